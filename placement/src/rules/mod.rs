//! The rules that always hold (DESIGN: "Rules that always hold"). Each is one named check over plain data, used by property
//! tests, by the simulator and by `debug_assert!` where the state changes.

pub mod last_copy;
pub mod ledger;
pub mod never_unready;
pub mod no_storm;
pub mod one_load;
pub mod one_version;
pub mod same_order;
pub mod stable_name;
pub mod static_stability;
pub mod unload;
