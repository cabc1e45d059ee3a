//! What every process has at its rim: probes, metrics, the end.

use std::{net::SocketAddr, str::FromStr, sync::Arc};

use anyhow::Result;
use modelring_process::{
    http::{Routes, Server},
    metrics::{self, Collect, Options, Own},
};

/// Ports for kubelet and Prometheus. Off where they are not given, so that many processes live on one machine; the
/// Deployments of a cluster set the environment twins.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Probes and metrics")]
pub(crate) struct Rim {
    /// Where /ready and /live are answered (in a pod 0.0.0.0:8089; port 0 = a free one) [default: none]
    #[arg(long, env = "MODELRING_PROBES", value_name = "ADDRESS")]
    probes: Option<Port>,

    /// Where Prometheus finds /metrics (in a pod 0.0.0.0:2112; port 0 = a free one) [default: none]
    #[arg(long, env = "MODELRING_METRICS", value_name = "ADDRESS")]
    metrics: Option<Port>,
}

/// An address, or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    None,
    At(SocketAddr),
}

/// The servers of a rim. Dropped, they end.
#[derive(Debug)]
pub(crate) struct Served(#[expect(dead_code, reason = "kept for its drop")] Vec<Server>);

// === impl Rim ===

impl Rim {
    /// Opens the ports that were asked for.
    pub(crate) async fn serve(&self, probes: Routes, metrics: Routes) -> Result<Served> {
        let mut servers = Vec::new();
        if let Some(address) = at(self.probes) {
            servers.push(Server::start(address, "probes", "--probes", probes).await?);
        }
        if let Some(address) = at(self.metrics) {
            servers.push(Server::start(address, "metrics", "--metrics", metrics).await?);
        }
        Ok(Served(servers))
    }
}

/// Serves what a process of this name shows, and what it uses; nothing where `MM_METRICS` says so.
pub(crate) fn metrics(process: &'static str, options: Options, shown: Arc<dyn Collect>) -> Routes {
    if options.disabled {
        return Routes::new();
    }
    metrics::routes(vec![shown, Arc::new(Own::new(process, options))])
}

/// The address that was asked for, if one was.
pub(crate) fn at(port: Option<Port>) -> Option<SocketAddr> {
    match port {
        Some(Port::At(address)) => Some(address),
        Some(Port::None) | None => None,
    }
}

// === impl Port ===

impl FromStr for Port {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "" | "none" => Ok(Self::None),
            address => address
                .parse()
                .map(Self::At)
                .map_err(|_| format!("`{text}` is no address such as 0.0.0.0:8089, and not `none`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_an_address_or_none() {
        assert_eq!("0.0.0.0:8089".parse(), Ok(Port::At(([0, 0, 0, 0], 8089).into())));
        assert_eq!("none".parse(), Ok(Port::None));
        assert_eq!("".parse(), Ok(Port::None));
        assert!("8089".parse::<Port>().is_err());
    }
}
