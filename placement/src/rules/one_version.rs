//! Rule `one-version`: a call is decided by one version of the table, from its first byte to its last.

/// Checks the versions (epoch, n) by which a call was decided first and later.
///
/// # Errors
/// Names both where they differ.
pub fn check(first: (u64, u64), later: (u64, u64)) -> Result<(), String> {
    if first == later {
        return Ok(());
    }
    Err(format!("a call saw table {}.{} and then {}.{}", first.0, first.1, later.0, later.1))
}
