//! What every process of Modelring has at its rim: internal mTLS, probes, metrics.
//!
//! | module | does |
//! |---|---|
//! | [`http`] | a small server for what kubelet and Prometheus ask |
//! | [`probes`] | whether the process takes work, and whether its loops turn |

mod error;
pub mod http;
pub mod probes;

pub use error::Error;
