//! The rim of the processes, each a process of its own: mTLS between them, the relay, probes, and how they end.

mod ending;
mod mtls;
mod relay;
mod world;
