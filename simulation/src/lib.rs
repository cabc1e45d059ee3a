//! A mesh in one process and in virtual time: proxies, agents with model servers, controls and callers, whose messages
//! are delayed and lost, and who crash, stand still and come back.
//!
//! It drives the code of the processes: control's core, the proxy's fleet (view, copies, searches, table), the state
//! machines and rules of `modelring-placement`. What it has of its own are the shells that carry messages, the model
//! servers, the faults, and the checks. One seed is one run: the same seed gives the same run, event by event.
//!
//! | file | what |
//! |---|---|
//! | `world` | who is there, what is to happen, one loop |
//! | `network` | connections: order, delay, loss |
//! | `process` | lives, clocks, stops |
//! | `agent`, `server` | a pod |
//! | `proxy`, `search`, `call` | a proxy and its callers |
//! | `control`, `desired` | control, what users ask for, what is kept |
//! | `checks` | what must hold at every moment, and in the end |
//! | `faults`, `seed` | a random run |
//! | `log` | what is told of it |

pub mod agent;
pub mod call;
pub mod checks;
pub mod control;
pub mod desired;
pub mod faults;
pub mod log;
pub mod network;
pub mod process;
pub mod proxy;
pub mod queue;
pub mod search;
pub mod seed;
pub mod server;
mod wire;
pub mod world;

use queue::Nanos;

/// Milliseconds as the world counts time.
#[must_use]
pub const fn millis(millis: u64) -> Nanos {
    millis * 1_000_000
}

/// Seconds as the world counts time.
#[must_use]
pub const fn secs(secs: u64) -> Nanos {
    millis(secs * 1000)
}
