//! What the adapters of the built-in model servers have in common: their settings, the model key as they read it, the
//! schema, the folder in which models are laid out for the server, and KServe's repository API.

mod key;
pub(crate) mod layout;
mod repository;
mod schema;
mod settings;

pub(crate) use key::AdapterKey;
pub(crate) use layout::Layout;
pub(crate) use repository::Repository;
pub(crate) use schema::Schema;
pub use settings::Settings;

use modelring_placement::pod::LoadError;

use crate::failure::prefixed;

/// Says that a failure is the adapter's, not the server's.
pub(crate) fn adapter_error(error: LoadError) -> LoadError {
    prefixed("Failed to load Model due to adapter error: ", error)
}
