//! The decisions of one agent, seen from outside: events in, actions out.

mod kit;
mod loads;
