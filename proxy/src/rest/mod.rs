//! KServe v2 REST in front of gRPC.
//!
//! | module | does |
//! |---|---|
//! | [`route`] | method and path -> [`route::Route`] |
//! | [`headers`] | HTTP headers <-> gRPC metadata |
//! | [`request`] | JSON and binary tail -> `ModelInferRequest` |
//! | [`response`] | `ModelInferResponse` -> JSON, or JSON and binary tail |
//! | [`metadata`] | `ModelMetadataResponse` -> JSON; the small local answers |
//! | [`compress`] | gzip and deflate, both ways |
//! | [`error`] | an answer -> HTTP |
//! | [`handler`] | the way of a call through all of them |
//!
//! The codecs are pure and never panic, whatever the bytes. Numbers go straight from text into typed vectors and back.

pub mod compress;
pub mod datatype;
pub mod error;
pub mod handler;
pub mod headers;
pub mod metadata;
pub mod request;
pub mod response;
pub mod route;

mod binary;
mod bytes;
mod half;
mod json;
mod params;
mod shape;
mod tensor;
