//! The agent, asked over gRPC, with a scripted double in the place of a model server.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it expects")]

#[expect(unreachable_pub, dead_code, reason = "it is shared with the end-to-end tests")]
#[path = "../../../tests/harness/ca.rs"]
mod ca;
mod embedded;
#[expect(dead_code, unreachable_pub, reason = "a part of the harness, which has more users")]
#[path = "../../../tests/harness/faulty_link.rs"]
mod faulty_link;
mod fixture;
mod handshake;
mod loading;
mod object_store;
mod relay;
mod restart;
#[expect(dead_code, unreachable_pub, reason = "a part of the harness, which has more users")]
#[path = "../../../tests/harness/s3.rs"]
mod s3;
mod scripted;
mod starting;
mod watching;
