//! The embedded ONNX model server.

pub mod config;
