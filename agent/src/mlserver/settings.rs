//! A model's folder as MLServer wants it: links, and `model-settings.json`.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

use modelring_placement::{id::ModelId, pod::LoadError};
use serde_json::{Map, Value, json};
use tonic::Code;

use crate::{
    adapter::{AdapterKey, Schema, layout},
    failure::{file, permanent},
    storage::SafeJoin,
};

/// Name of the file by which MLServer knows a model.
const SETTINGS: &str = "model-settings.json";
/// Mode of one that is made here.
const MODE: u32 = 0o664;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LaidOut {
    /// The settings say which Python class runs the model.
    pub(super) implementation_is_known: bool,
}

/// Fills the empty folder `dir` with the model whose files are at `path`.
///
/// # Errors
///
/// Files that cannot be read, settings or a schema that make no sense, settings of further models; the text names them.
pub(super) fn lay_out(dir: &Path, model: &ModelId, path: &Path, key: &AdapterKey) -> Result<LaidOut, LoadError> {
    let schema = key.schema.as_deref().map(Schema::read).transpose()?.unwrap_or_default();
    let found = fs::metadata(path).map_err(|error| file("read", path, &error))?;
    if found.is_dir() {
        refuse_further_models(path)?;
    }
    let given = path.join(SETTINGS);
    let settings = match found.is_dir().then(|| fs::read(&given)) {
        Some(Ok(settings)) => settings,
        Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => return Err(file("read", &given, &error)),
        _ => return made(dir, model, path, &key.model_type, &schema),
    };
    // Before the links are there: a path in the settings is to lead to them, not through them.
    let (settings, laid_out) = adapted(dir, model, &given, settings, &schema)?;
    let mode = fs::metadata(&given).map_or(MODE, |found| found.permissions().mode() & 0o777);
    layout::write(&dir.join(SETTINGS), &settings, mode)?;
    for entry in fs::read_dir(path).map_err(|error| file("list", path, &error))? {
        let entry = entry.map_err(|error| file("list", path, &error))?;
        if entry.file_name() != SETTINGS {
            layout::link(dir, &entry.path())?;
        }
    }
    Ok(laid_out)
}

/// MLServer looks for settings in folders below too, and would serve what they name beside this model: under a name that
/// may be another model's.
fn refuse_further_models(path: &Path) -> Result<(), LoadError> {
    let refuse = |path: &Path, why: &str| permanent(Code::InvalidArgument, format!("'{}' {why}", path.display()));
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(|error| file("list", &folder, &error))? {
            let entry = entry.map_err(|error| file("list", &folder, &error))?;
            let found = entry.file_type().map_err(|error| file("read", &entry.path(), &error))?;
            if folder != path && entry.file_name() == SETTINGS {
                let why = "would be served by MLServer as a further model: a model has one such file, at the top of its folder";
                return Err(refuse(&entry.path(), why));
            }
            if found.is_dir() {
                folders.push(entry.path());
            } else if fs::metadata(entry.path()).is_ok_and(|target| target.is_dir()) {
                return Err(refuse(
                    &entry.path(),
                    "is a link to a folder, in which MLServer would look for further models",
                ));
            }
        }
    }
    Ok(())
}

/// A file or plain folder: one link, and settings made for it.
fn made(dir: &Path, model: &ModelId, path: &Path, model_type: &str, schema: &Schema) -> Result<LaidOut, LoadError> {
    if path.file_name().is_some_and(|name| name == SETTINGS) {
        let text = format!("a file '{SETTINGS}' is no model; name the folder in which it lies");
        return Err(permanent(Code::InvalidArgument, text));
    }
    let link = layout::link(dir, path)?;
    let mut settings = Map::new();
    settings.insert("name".to_owned(), json!(model.as_str()));
    let implementation = implementation(model_type);
    if let Some(implementation) = implementation {
        settings.insert("implementation".to_owned(), json!(implementation));
    }
    settings.insert("parameters".to_owned(), json!({"uri": link.display().to_string()}));
    describe(&mut settings, schema);
    layout::write(&dir.join(SETTINGS), &text(&settings), MODE)?;
    Ok(LaidOut { implementation_is_known: implementation.is_some() })
}

/// The settings that a model brings, with its name, place and schema put in. Settings that are no JSON object are left to
/// MLServer to complain of.
fn adapted(
    dir: &Path,
    model: &ModelId,
    given: &Path,
    settings: Vec<u8>,
    schema: &Schema,
) -> Result<(Vec<u8>, LaidOut), LoadError> {
    let wrong = |text: &str| permanent(Code::InvalidArgument, format!("'{}' is wrong: {text}", given.display()));
    let mut fields: Map<String, Value> = match serde_json::from_slice(&settings) {
        Ok(fields) => fields,
        Err(error) => {
            tracing::warn!(%model, path = %given.display(), %error, "settings are no JSON object and are used as they are");
            return Ok((settings, LaidOut { implementation_is_known: true }));
        }
    };
    fields.insert("name".to_owned(), json!(model.as_str()));
    match fields.get_mut("parameters") {
        None | Some(Value::Null) => {}
        Some(Value::Object(parameters)) => match parameters.get_mut("uri") {
            None | Some(Value::Null) => {}
            Some(Value::String(uri)) => {
                // An absolute one is meant from the model's folder too.
                *uri = dir.safe_join(uri.trim_start_matches('/'))?.display().to_string();
            }
            Some(_) => return Err(wrong("parameters.uri is not a string")),
        },
        Some(_) => return Err(wrong("parameters is not an object")),
    }
    describe(&mut fields, schema);
    let implementation_is_known = fields.contains_key("implementation");
    Ok((text(&fields), LaidOut { implementation_is_known }))
}

/// Puts the lists of a schema in place of those that are there.
fn describe(settings: &mut Map<String, Value>, schema: &Schema) {
    for (name, list) in [("inputs", &schema.inputs), ("outputs", &schema.outputs)] {
        if let Some(list) = list {
            settings.insert(name.to_owned(), json!(list));
        }
    }
}

/// The Python class that runs models of a type.
fn implementation(model_type: &str) -> Option<&'static str> {
    match model_type {
        "sklearn" => Some("mlserver_sklearn.SKLearnModel"),
        "xgboost" => Some("mlserver_xgboost.XGBoostModel"),
        "lightgbm" => Some("mlserver_lightgbm.LightGBMModel"),
        "mllib" => Some("mlserver_mllib.MLlibModel"),
        _ => None,
    }
}

fn text(settings: &Map<String, Value>) -> Vec<u8> {
    serde_json::to_vec_pretty(settings).expect("a JSON object is written as JSON")
}

#[cfg(test)]
mod tests;
