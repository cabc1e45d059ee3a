//! One file for each benchmark.

pub(crate) mod counting;
pub(crate) mod direct;
