//! An S3 server: moto, as a process of its own, which checks signatures and policies.
//!
//! This file and `faulty_link.rs` need nothing but the standard library and crates that most test targets have, so a crate
//! may take them into its own tests by their path.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

/// Longest that anything of it may take.
const LONG: Duration = Duration::from_secs(60);
/// May read everything.
const READER: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:ListBucket","s3:GetObject"],"Resource":"*"}]}"#;

/// A running S3 server. Killed when dropped.
#[derive(Debug)]
pub struct S3 {
    child: Child,
    /// Where it serves, by HTTP.
    pub addr: SocketAddr,
    /// Access key of a user who may list and read.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
    /// Held by whoever changes what is stored.
    changing: Mutex<()>,
    /// Whether signatures and policies count.
    checks: AtomicBool,
}

// === impl S3 ===

impl S3 {
    /// Starts an S3 server on a free port and makes a user who may list and read.
    ///
    /// # Panics
    /// When moto is not installed or does not come up within a minute.
    #[must_use]
    pub fn start() -> Self {
        let python = cache().join("py/bin/python");
        assert!(python.exists(), "{} is missing; run `./dev setup`", python.display());
        let mut child = Command::new(python)
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"])
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONUNBUFFERED", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("moto starts");
        let stderr = child.stderr.take().expect("standard error is piped");
        let (sender, address) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            // Read to the end, so that moto can always log.
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some((_, address)) = line.split_once("Running on http://") {
                    let _ = sender.try_send(address.trim().to_owned());
                }
            }
        });
        let address = address.recv_timeout(LONG).expect("moto says where it serves");
        let addr = address.parse().expect("an address");
        let mut s3 = Self {
            child,
            addr,
            access_key_id: String::new(),
            secret_access_key: String::new(),
            changing: Mutex::new(()),
            checks: AtomicBool::new(true),
        };
        s3.make_a_reader();
        s3.check_requests(true);
        s3
    }

    /// A storage entry for a bucket.
    #[must_use]
    pub fn entry(&self, bucket: &str) -> String {
        self.entry_by(self.addr, bucket)
    }

    /// A storage entry for a bucket that is reached by another address, as that of a `FaultyLink`.
    #[must_use]
    pub fn entry_by(&self, addr: SocketAddr, bucket: &str) -> String {
        let (id, secret) = (&self.access_key_id, &self.secret_access_key);
        format!(
            r#"{{"type":"s3","access_key_id":"{id}","secret_access_key":"{secret}","endpoint_url":"http://{addr}","region":"us-east-1","bucket":"{bucket}"}}"#
        )
    }

    /// Makes a bucket.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn make_bucket(&self, bucket: &str) {
        self.change(|| self.ask("PUT", &format!("/{bucket}"), "s3", b""));
    }

    /// Lets anyone list a bucket and read one of its objects.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn make_public(&self, bucket: &str, key: &str) {
        self.change(|| {
            self.ask("PUT", &format!("/{bucket}?acl"), "s3", PUBLIC_READ.as_bytes());
            self.ask("PUT", &format!("/{bucket}/{key}?acl"), "s3", PUBLIC_READ.as_bytes())
        });
    }

    /// From now on requests without a signature are looked at (moto ends in an error where it checks signatures), and
    /// signatures are not: a bucket's access list decides.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn take_unsigned_requests(&self) {
        self.checks.store(false, Ordering::Relaxed);
        self.check_requests(false);
    }

    /// Stores an object. Its key is what a URL path says: encode what needs it.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn put(&self, bucket: &str, key: &str, content: &[u8]) {
        self.change(|| self.ask("PUT", &format!("/{bucket}/{key}"), "s3", content));
    }

    /// Stores many objects.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn put_all<'a>(&self, bucket: &str, objects: impl IntoIterator<Item = (String, &'a [u8])>) {
        self.change(|| {
            for (key, content) in objects {
                self.ask("PUT", &format!("/{bucket}/{key}"), "s3", content);
            }
            String::new()
        });
    }

    /// Stores the files of a folder below a prefix.
    ///
    /// # Panics
    /// When a file cannot be read, or the server refuses.
    pub fn put_folder(&self, bucket: &str, prefix: &str, folder: &Path) {
        for entry in fs::read_dir(folder).expect("the folder is there") {
            let path = entry.expect("the folder can be read").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name that is a text");
            let key = format!("{}/{name}", prefix.trim_end_matches('/'));
            if path.is_dir() {
                self.put_folder(bucket, &key, &path);
            } else {
                self.put(bucket, &key, &fs::read(&path).expect("the file can be read"));
            }
        }
    }

    /// Removes an object.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn delete(&self, bucket: &str, key: &str) {
        self.change(|| self.ask("DELETE", &format!("/{bucket}/{key}"), "s3", b""));
    }

    /// Changes what is stored, in the name of no user.
    fn change(&self, change: impl FnOnce() -> String) {
        let _changing = self.changing.lock().expect("no change has failed");
        self.check_requests(false);
        change();
        self.check_requests(self.checks.load(Ordering::Relaxed));
    }

    /// Whether signatures and policies count.
    fn check_requests(&self, check: bool) {
        self.ask("POST", "/moto-api/reset-auth", "s3", if check { b"0" } else { b"inf" });
    }

    fn make_a_reader(&mut self) {
        let encoded: String = READER.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let iam = |action: &str, more: &str| {
            let form = format!("Action={action}&Version=2010-05-08&UserName=reader{more}");
            self.ask("POST", "/", "iam", form.as_bytes())
        };
        iam("CreateUser", "");
        iam("PutUserPolicy", &format!("&PolicyName=reads&PolicyDocument={encoded}"));
        let keys = iam("CreateAccessKey", "");
        let field = |name: &str| {
            let (_, rest) = keys.split_once(&format!("<{name}>"))?;
            rest.split_once("</").map(|(value, _)| value.to_owned())
        };
        let (id, secret) = (field("AccessKeyId"), field("SecretAccessKey"));
        self.access_key_id = id.expect("the answer has an access key");
        self.secret_access_key = secret.expect("the answer has a secret");
    }

    /// One request, which must succeed.
    fn ask(&self, method: &str, path: &str, service: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect_timeout(&self.addr, LONG).expect("the server takes connections");
        stream.set_read_timeout(Some(LONG)).expect("a time limit can be set");
        // By the scope of the credentials the server tells its services apart; here nobody looks at the signature.
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=X/20260101/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=0"
        );
        let content_type =
            if service == "iam" { "application/x-www-form-urlencoded" } else { "application/octet-stream" };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAuthorization: {authorization}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
            self.addr,
            body.len()
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).expect("the server takes requests");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the server answers");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split_whitespace().nth(1).unwrap_or_default();
        assert!(status.starts_with('2'), "{method} {path}: {answer}");
        answer
    }
}

/// An access list that lets everyone read.
const PUBLIC_READ: &str = r#"<AccessControlPolicy xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Owner><ID>75aa57f09aa0c8caeab4f8c24e99d10f8e7faeebf76c078efc7c6caea54ba06a</ID></Owner><AccessControlList><Grant><Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="Group"><URI>http://acs.amazonaws.com/groups/global/AllUsers</URI></Grantee><Permission>READ</Permission></Grant></AccessControlList></AccessControlPolicy>"#;

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cache() -> PathBuf {
    std::env::var("MODELRING_CACHE")
        .map_or_else(|_| Path::new(&std::env::var("HOME").unwrap_or_default()).join(".cache/modelring"), PathBuf::from)
}
