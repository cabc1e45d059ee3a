//! The decisions of one agent, seen from outside: events in, actions out.

mod drains;
mod evictions;
mod failures;
mod kit;
mod leaving;
mod loads;
mod properties;
mod proxy;
mod server;
mod traces;
mod world;
