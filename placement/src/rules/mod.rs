//! The rules that always hold (DESIGN: "Rules that always hold"). Each is one named check over plain data, used by property
//! tests, by the simulator and by `debug_assert!` where the state changes.
