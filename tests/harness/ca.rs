//! Certificates for tests: a CA, and leaves of it, written as PEM files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};

/// A CA.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// The three files of an identity.
#[derive(Clone, Debug)]
pub struct Pems {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The CA.
    pub ca: PathBuf,
}

// === impl Ca ===

impl Ca {
    /// A new CA.
    ///
    /// # Panics
    /// Never, but for a defect of the library.
    #[must_use]
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Writes a certificate for `name`, its key and this CA to `dir/<file>.{crt,key}` and `dir/<file>-ca.crt`.
    ///
    /// # Panics
    /// When the files cannot be written.
    pub fn issue(&self, dir: &Path, file: &str, name: &str) -> Pems {
        self.write(dir, file, name, false)
    }

    /// As [`Ca::issue`], of a certificate whose time is over.
    ///
    /// # Panics
    /// When the files cannot be written.
    pub fn issue_expired(&self, dir: &Path, file: &str, name: &str) -> Pems {
        self.write(dir, file, name, true)
    }

    fn write(&self, dir: &Path, file: &str, name: &str, expired: bool) -> Pems {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        if expired {
            (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
        }
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let put = |ending: &str, text: &str| {
            let path = dir.join(format!("{file}{ending}"));
            fs::write(&path, text).expect("the file is written");
            path
        };
        Pems {
            certificate: put(".crt", &certificate.pem()),
            key: put(".key", &key.serialize_pem()),
            ca: put("-ca.crt", &self.pem),
        }
    }
}

impl Default for Ca {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Pems ===

impl Pems {
    /// As flags of a process.
    #[must_use]
    pub fn flags(&self) -> [String; 6] {
        let text = |path: &Path| path.display().to_string();
        [
            "--tls-cert".into(),
            text(&self.certificate),
            "--tls-key".into(),
            text(&self.key),
            "--tls-ca".into(),
            text(&self.ca),
        ]
    }
}
