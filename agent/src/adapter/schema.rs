//! The schema file: what a model takes and gives, where its own files do not tell.

use std::{fs, io::Read, path::Path};

use modelring_placement::pod::LoadError;
use serde::{Deserialize, Serialize};
use tonic::Code;

use crate::failure::{file, permanent};

/// Largest schema file, bytes.
const LARGEST: u64 = 4 << 20;

/// Inputs and outputs. A list that is absent is another thing than an empty one: it leaves what was there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Schema {
    /// What the model takes.
    pub(crate) inputs: Option<Vec<Tensor>>,
    /// What it gives.
    pub(crate) outputs: Option<Vec<Tensor>>,
}

/// One tensor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Tensor {
    /// Name.
    pub(crate) name: String,
    /// Datatype of KServe v2.
    pub(crate) datatype: String,
    /// Dimensions, -1 = any.
    pub(crate) shape: Vec<i64>,
}

// === impl Schema ===

impl Schema {
    /// Reads a schema file.
    ///
    /// # Errors
    ///
    /// It cannot be read, is too large, or is not of this form; the text names it.
    pub(crate) fn read(path: &Path) -> Result<Self, LoadError> {
        let mut text = String::new();
        let read = fs::File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_string(&mut text));
        read.map_err(|error| file("read the schema", path, &error))?;
        let wrong = |text: String| {
            permanent(Code::InvalidArgument, format!("the schema '{}' is wrong: {text}", path.display()))
        };
        if text.len() as u64 > LARGEST {
            return Err(wrong(format!("larger than {LARGEST} bytes")));
        }
        serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Schema, LoadError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("schema.json");
        fs::write(&path, text).unwrap();
        Schema::read(&path)
    }

    #[test]
    fn lists_are_read_and_an_absent_one_is_not_an_empty_one() {
        let schema = read(r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[-1,64]}],"more":1}"#).unwrap();
        let tensor = Tensor { name: "x".to_owned(), datatype: "FP32".to_owned(), shape: vec![-1, 64] };
        assert_eq!(schema, Schema { inputs: Some(vec![tensor]), outputs: None });
        assert_eq!(read(r#"{"outputs":[]}"#).unwrap().outputs, Some(Vec::new()));
    }

    #[test]
    fn a_schema_that_cannot_be_read_or_is_wrong_is_named() {
        let missing = Schema::read(Path::new("/no/such/schema.json")).unwrap_err();
        assert!(missing.text.starts_with("cannot read the schema '/no/such/schema.json'"), "{}", missing.text);
        for text in ["", "{", r#"{"inputs":{}}"#, r#"{"inputs":[{"shape":["a"]}]}"#, r#"{"inputs":[{"shape":[1.5]}]}"#]
        {
            let error = read(text).unwrap_err();
            assert!(error.text.contains("schema.json' is wrong"), "{}", error.text);
            assert!(!error.passing);
        }
    }
}
