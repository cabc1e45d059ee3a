//! The way of the bytes.

pub mod answer;
pub mod budget;
pub mod call;
pub mod policy;
pub mod target;
