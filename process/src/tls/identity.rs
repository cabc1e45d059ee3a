//! Who this process is: its certificate, key and CA, as the files say at the moment.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::{ClientConfig, ServerConfig};

use super::read::{Configs, Contents, FLAGS};
use crate::Error;

/// Time between two looks at the files.
const LOOK: Duration = Duration::from_secs(1);

/// Where certificate, key and CA are, each in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate, with the chain behind it.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The CA, or several of them, that others' certificates must be of.
    pub ca: PathBuf,
}

/// Who this process is. Clones are one; the files are followed until the last is dropped.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    files: Files,
    configs: ArcSwap<Configs>,
}

// === impl Files ===

impl Files {
    /// The three files of the flags `--tls-cert`, `--tls-key`, `--tls-ca`; `None` if none is given.
    ///
    /// # Errors
    ///
    /// [`Error::Incomplete`] if only some are given.
    pub fn of(certificate: Option<PathBuf>, key: Option<PathBuf>, ca: Option<PathBuf>) -> Result<Option<Self>, Error> {
        let are_given = [certificate.is_some(), key.is_some(), ca.is_some()];
        match (certificate, key, ca) {
            (Some(certificate), Some(key), Some(ca)) => Ok(Some(Self { certificate, key, ca })),
            (None, None, None) => Ok(None),
            _ => {
                let flags = |given| {
                    let of = FLAGS.iter().zip(are_given).filter(|(_, is_given)| *is_given == given);
                    of.map(|(flag, _)| *flag).collect::<Vec<_>>().join(" and ")
                };
                Err(Error::Incomplete { given: flags(true), missing: flags(false) })
            }
        }
    }
}

// === impl Identity ===

impl Identity {
    /// Reads the files, and follows them on the current runtime: a change counts for connections that are made after it.
    /// What cannot be used is said once, and the last good files stay in force.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], [`Error::Content`]: a file cannot be read, or holds something else.
    pub async fn load(files: Files) -> Result<Self, Error> {
        let contents = read(&files).await?;
        let configs = ArcSwap::from_pointee(contents.configs(&files)?);
        let inner = Arc::new(Inner { files, configs });
        tokio::spawn(follow(Arc::downgrade(&inner), contents));
        Ok(Self(inner))
    }

    pub(super) fn server(&self) -> Arc<ServerConfig> {
        self.0.configs.load().server.clone()
    }

    pub(super) fn client(&self) -> Arc<ClientConfig> {
        self.0.configs.load().client.clone()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.0.files).finish()
    }
}

async fn read(files: &Files) -> Result<Contents, Error> {
    let files = files.clone();
    tokio::task::spawn_blocking(move || Contents::read(&files)).await.expect("reading does not panic")
}

async fn follow(identity: Weak<Inner>, mut last: Contents) {
    let mut said = String::new();
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(identity) = identity.upgrade() else { return };
        let look = match read(&identity.files).await {
            Ok(contents) if contents == last => continue,
            Ok(contents) => {
                let configs = contents.configs(&identity.files);
                last = contents;
                configs
            }
            Err(error) => Err(error),
        };
        match look {
            Ok(configs) => {
                identity.configs.store(Arc::new(configs));
                tracing::info!(certificate = %identity.files.certificate.display(), "new mTLS files are in force");
                said.clear();
            }
            Err(error) if error.to_string() == said => {}
            Err(error) => {
                tracing::warn!(code = error.code(), %error, "mTLS files cannot be used, the last good ones stay in force");
                said = error.to_string();
            }
        }
    }
}
