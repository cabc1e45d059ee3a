//! What is to be brought for a model, and what it is called in its folder.

use std::{path::Path, sync::Arc};

use modelring_placement::{id::ModelRef, pod::LoadError};

use super::{Files, PULL_FAILED, Store, blocking, check_id};
use crate::{
    failure::prefixed,
    storage::{
        Found, Storage, Target,
        entry::{Entry, is_plain_name},
        key::ModelKey,
    },
};

/// What a model without a last path part is called.
const NAMELESS: &str = "_model";
/// What a schema is called whose name is the model's.
const NAMELESS_SCHEMA: &str = "_schema.json";
/// What is to be brought for a model.
pub(super) struct Plan {
    storage: Box<dyn Storage>,
    key: ModelKey,
    /// Path in the storage.
    remote: String,
    /// Name of the model in its folder.
    pub(super) name: String,
    /// Path in the storage and name in the folder of the schema.
    schema: Option<(String, String)>,
}

// === impl Store ===

impl Store {
    pub(super) async fn plan(self: &Arc<Self>, model: &ModelRef) -> Result<Plan, LoadError> {
        check_id(&model.id)?;
        let (store, model) = (self.clone(), model.clone());
        blocking(move || {
            let key = ModelKey::parse(&model.key)?;
            let entry = Entry::choose(store.places.config_dir.as_deref(), &key)?;
            let storage = store.storage(&entry).map_err(|error| prefixed(PULL_FAILED, error))?;
            let name = last_part(&model.path).unwrap_or(NAMELESS).to_owned();
            let schema = key.schema_path.as_ref().map(|path| {
                let named = last_part(path).filter(|schema| *schema != name).unwrap_or(NAMELESS_SCHEMA);
                (path.clone(), named.to_owned())
            });
            Ok(Plan { storage, key, remote: model.path, name, schema })
        })
        .await
    }
}

// === impl Plan ===

impl Plan {
    /// Finds the files in the storage.
    pub(super) async fn find(&self) -> Result<Box<dyn Found>, LoadError> {
        let model = Target { remote: self.remote.clone(), local: self.name.clone() };
        let schema = self.schema.iter().map(|(path, name)| Target { remote: path.clone(), local: name.clone() });
        let targets: Vec<_> = std::iter::once(model).chain(schema).collect();
        self.storage.find(&targets).await.map_err(|error| prefixed(PULL_FAILED, error))
    }

    /// Where the files come from.
    pub(super) fn origin(&self) -> String {
        self.storage.origin()
    }

    /// The files as the server will be told of them.
    pub(super) fn files(&self, dir: &Path, bytes: u64) -> Files {
        let schema = self.schema.as_ref().map(|(_, name)| dir.join(name).display().to_string());
        Files { path: dir.join(&self.name), key: self.key.for_server(bytes, schema.as_deref()), bytes, kept: false }
    }
}

/// The last part of a path; none for an empty path, `/`, `.` and `..`.
fn last_part(path: &str) -> Option<&str> {
    path.trim_end_matches('/').rsplit('/').next().filter(|name| is_plain_name(name))
}
