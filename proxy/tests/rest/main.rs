//! REST: every behaviour that users rely on, and properties of the codecs.

#![cfg(test)]

mod binary;
mod byte_strings;
mod compress;
mod error;
mod handler;
mod headers;
mod properties;
mod request;
mod response;
mod route;
mod support;
