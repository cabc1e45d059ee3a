//! Who this process is to the others: the files for mTLS.

use std::path::PathBuf;

use anyhow::Result;
use modelring_process::tls::{Files, Identity};

/// The files for mTLS, all three or none. Without them the processes speak plaintext, and only on loopback. They are re-read
/// when they change.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "mTLS between the processes")]
pub(crate) struct Tls {
    /// Certificate of this process, PEM; its SAN is agent.NAMESPACE.modelring, proxy.NAMESPACE.modelring or
    /// control.modelring
    #[arg(long, env = "MODELRING_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,

    /// Private key of the certificate, PEM
    #[arg(long, env = "MODELRING_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,

    /// CA that the certificates of the others must be of, PEM
    #[arg(long, env = "MODELRING_TLS_CA", value_name = "FILE")]
    tls_ca: Option<PathBuf>,
}

// === impl Tls ===

impl Tls {
    /// The identity of this process, if the files are given.
    pub(crate) async fn identity(&self) -> Result<Option<Identity>> {
        let given = |file: &Option<PathBuf>| file.clone().filter(|file| !file.as_os_str().is_empty());
        match Files::of(given(&self.tls_cert), given(&self.tls_key), given(&self.tls_ca))? {
            Some(files) => Ok(Some(Identity::load(files).await?)),
            None => Ok(None),
        }
    }
}
