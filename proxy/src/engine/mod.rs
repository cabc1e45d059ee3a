//! The way of the bytes.

pub mod answer;
pub mod policy;
pub mod target;
