//! gRPC codes as labels.

/// Names by number.
pub(super) const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Where a code stands in [`NAMES`]; one that gRPC does not have counts as UNKNOWN.
pub(super) fn index(code: u32) -> usize {
    usize::try_from(code).ok().filter(|code| *code < NAMES.len()).unwrap_or(2)
}
