//! The names of things.

use std::{borrow::Borrow, fmt, sync::Arc};

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.into())
            }
        }

        impl From<String> for $name {
            fn from(name: String) -> Self {
                Self(name.into())
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

name! {
    /// Id of a model: `<name>__<source>-<hash10>`. Never reused for other content.
    ModelId
}
name! {
    /// Id of an instance: the name of its pod.
    InstanceId
}
name! {
    /// Id of a watcher of an agent: random per process start.
    WatcherId
}

/// Random number of one start of an agent.
pub type BootId = u64;

/// Counts the changes of copies within a boot of an agent.
pub type Seq = u64;

/// A model complete enough to be loaded by an agent that knows nothing else of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRef {
    /// Its id.
    pub id: ModelId,
    /// Type string, e.g. `mt:onnx:1|pv:grpc-v2`.
    pub model_type: String,
    /// Path in the storage.
    pub path: String,
    /// JSON of storage_key, storage_params, model_type, schema_path.
    pub key: String,
    /// Bytes in memory, if known from an earlier load.
    pub size_hint: Option<u64>,
    /// Load timeout where the InferenceService sets one.
    pub load_timeout: Option<std::time::Duration>,
}
