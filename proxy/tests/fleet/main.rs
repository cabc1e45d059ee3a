//! The fleet and the policy among scripted agents and a scripted control, over real gRPC.

mod again;
mod control;
mod drains;
mod hold;
mod limits;
mod names;
#[expect(dead_code, reason = "shared with the tests of the engine")]
#[path = "../engine/raw.rs"]
mod raw;
mod rig;
mod safe;
mod scripted;
mod services;
mod view;
mod whole;
mod world;
