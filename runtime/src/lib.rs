//! The embedded model server of Modelring: ONNX models run by [tract](https://docs.rs/tract-onnx), many at once, behind
//! KServe v2 gRPC and `mmesh.ModelRuntime`. It is small on purpose: authors of custom runtimes read it
//! (`docs/custom-runtimes.md`).
//!
//! ```text
//!  clients, by way of a proxy          the agent of the pod
//!        │ ModelInfer ...                │ loadModel, unloadModel, runtimeStatus ...
//!  inference.rs                    management.rs            one port for both: server.rs
//!        │ decode.rs, encode.rs          │
//!        ▼                               ▼
//!   pool.rs: bounded threads  ───▶  models.rs: what is loaded, one load or unload of an id at a time
//!                                        │ Loader, Servable (servable.rs)
//!                                        ▼
//!                                   onnx/: files, plans, sizes
//! ```
//!
//! # Promises
//! - A model is called only between the end of its load and the arrival of its unload; an unload answers when the calls
//!   that were admitted before are done and the memory is given back.
//! - READY is said only once everything is unloaded, also what was being loaded.
//! - A request that does not fit its model is refused before the model runs: [`Error::InvalidRequest`] names the tensor,
//!   what was expected and what came.
//! - Inference runs on a bounded number of threads with a bounded queue; a caller that goes away while it waits leaves
//!   nothing behind; a panic in a model is that call's error and nothing else's.
//!
//! # Example
//! ```no_run
//! # async fn example() -> Result<(), modelring_runtime::Error> {
//! use modelring_runtime::{Config, Runtime};
//!
//! let running = Runtime::start(Config { listen: ([127, 0, 0, 1], 0).into(), ..Config::default() }).await?;
//! println!("serves on {}", running.addr);
//! running.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! Another kind of model needs a [`Loader`] and a [`Servable`], and [`Runtime::start_with`]; everything else stays.

pub mod config;
mod contents;
mod datatype;
mod decode;
mod encode;
mod error;
mod inference;
mod management;
mod models;
mod onnx;
mod pool;
mod serial;
mod servable;
mod server;
mod tensor;

pub use config::Config;
pub use contents::{join, split};
pub use datatype::DataType;
pub use error::{Error, Result};
pub use onnx::OnnxLoader;
pub use servable::{Loader, ModelFiles, Servable};
pub use server::{Running, Runtime};
pub use tensor::{Dim, Signature, Tensor, TensorSpec};

/// The guide's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../../docs/custom-runtimes.md")]
struct Guide;
