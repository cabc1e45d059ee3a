//! One file for each benchmark.

pub(crate) mod direct;
