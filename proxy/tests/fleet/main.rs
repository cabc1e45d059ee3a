//! The fleet and the policy among scripted agents and a scripted control, over real gRPC.

mod again;
mod control;
mod drains;
mod hold;
mod limits;
mod names;
mod scripted;
mod view;
mod whole;
mod world;
