//! How failures of loads are made: a gRPC code, a text, and whether they pass by themselves.

use std::{io, path::Path};

use modelring_placement::pod::LoadError;
use tonic::{Code, Status};

/// A failure that will be the same at the next try.
pub(crate) fn permanent(code: Code, text: impl Into<String>) -> LoadError {
    LoadError { code: code as u32, text: text.into(), passing: false }
}

/// A failure that may be over at the next try.
pub(crate) fn passing(code: Code, text: impl Into<String>) -> LoadError {
    LoadError { code: code as u32, text: text.into(), passing: true }
}

/// The same failure with words before its text.
pub(crate) fn prefixed(prefix: &str, error: LoadError) -> LoadError {
    LoadError { text: format!("{prefix}{}", error.text), ..error }
}

/// A failure to use a file: `cannot <verb> <path>: <cause>`.
pub(crate) fn file(verb: &str, path: &Path, error: &io::Error) -> LoadError {
    let (code, passes) = match error.kind() {
        io::ErrorKind::NotFound => (Code::NotFound, false),
        io::ErrorKind::PermissionDenied => (Code::PermissionDenied, false),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => (Code::ResourceExhausted, true),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename | io::ErrorKind::NotADirectory => {
            (Code::InvalidArgument, false)
        }
        _ => (Code::Unavailable, true),
    };
    LoadError { code: code as u32, text: format!("cannot {verb} '{}': {error}", path.display()), passing: passes }
}

/// A failure that a model server told by gRPC.
pub(crate) fn server(status: &Status) -> LoadError {
    let passes = matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Aborted | Code::Cancelled | Code::ResourceExhausted
    );
    LoadError { code: status.code() as u32, text: status.message().to_owned(), passing: passes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_named_and_told_apart_from_a_bad_model() {
        let full = io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error());
        let error = file("write", Path::new("/models/m/big.bin"), &full);
        assert_eq!((error.code, error.passing), (Code::ResourceExhausted as u32, true));
        assert!(error.text.starts_with("cannot write '/models/m/big.bin': No space left on device"), "{}", error.text);
    }
}
