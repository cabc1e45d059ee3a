//! The model server, end to end over loopback.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;
mod lifecycle;
mod management;
mod protocol;
mod reference;
mod strict;
