//! Tools that others wrote; `./dev setup` installs them outside the checkout.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::Folder;

/// The Python of the test clients.
#[must_use]
pub fn python() -> PathBuf {
    tool("py/bin/python")
}

/// grpcurl.
#[must_use]
pub fn grpcurl() -> PathBuf {
    tool("bin/grpcurl")
}

/// k6.
#[must_use]
pub fn k6() -> PathBuf {
    tool("bin/k6")
}

/// MLServer.
pub(crate) fn mlserver() -> PathBuf {
    tool("mlserver/bin/mlserver")
}

/// The Python of MLServer, with scikit-learn, XGBoost and LightGBM.
#[must_use]
pub fn mlserver_python() -> PathBuf {
    tool("mlserver/bin/python")
}

/// Runs a client of `tests/clients` and returns what it printed; what it complains of fails the test.
///
/// # Panics
/// When the client ends with an error.
#[must_use]
pub fn python_client(script: &str, args: &[&str]) -> String {
    let output = Command::new(python())
        .arg(Folder::checkout().join("tests/clients").join(script))
        .args(args)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("the client starts");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("the client prints text")
}

pub(crate) fn tool(below: &str) -> PathBuf {
    let cache = std::env::var("MODELRING_CACHE")
        .map_or_else(|_| Path::new(&std::env::var("HOME").unwrap_or_default()).join(".cache/modelring"), PathBuf::from);
    let path = cache.join(below);
    assert!(path.exists(), "{} is missing; run `./dev setup`", path.display());
    path
}
