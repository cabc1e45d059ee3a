//! A mesh of processes whose parts are killed, frozen, stopped, started again and cut off from each other.
//!
//! `MODELRING_SOAK=1` runs the long forms (`./dev soak mesh`).

mod cold;
mod control_away;
mod failures;
mod freezes;
mod kills;
mod kit;
mod network;
mod report;
mod restarts;
mod stops;
mod storm;
