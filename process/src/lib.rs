//! What every process of Modelring has at its rim: internal mTLS, probes, metrics.
