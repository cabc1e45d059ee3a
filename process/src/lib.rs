//! What every process of Modelring has at its rim: internal mTLS, probes, metrics.
//!
//! | module | does |
//! |---|---|
//! | [`http`] | a small server for what kubelet and Prometheus ask |
//! | [`metrics`] | what Prometheus is told |
//! | [`prestop`] | holds the containers beside an agent until it has drained |
//! | [`probes`] | whether the process takes work, and whether its loops turn |
//! | [`tls`] | mTLS between the processes |

mod error;
pub mod http;
pub mod metrics;
pub mod prestop;
pub mod probes;
pub mod tls;

pub use error::Error;
