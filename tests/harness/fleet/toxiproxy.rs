//! A network that delays, cuts and resets: toxiproxy between two parts.

use std::{net::SocketAddr, path::Path};

use serde_json::{Value, json};

use super::part::Part;
use crate::{Rest, tools::tool};

/// A running toxiproxy. Killed when dropped.
#[derive(Debug)]
pub struct Toxiproxy {
    part: Part,
}

/// One link: what is sent to `listens` arrives at another address, unless it is harmed.
#[derive(Clone, Debug)]
pub struct Link {
    /// What it is called.
    pub name: String,
    /// Where it takes connections.
    pub listens: SocketAddr,
    api: SocketAddr,
}

/// Harm to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// Everything takes so many milliseconds longer, each way.
    Delay(u32),
    /// Nothing of what the dialled side says arrives any more.
    CutAnswers,
    /// Nothing of what the dialling side says arrives any more.
    CutCalls,
    /// Connections are reset as soon as something is said.
    Reset,
}

// === impl Toxiproxy ===

impl Toxiproxy {
    /// Starts it with its API at `api`.
    #[must_use]
    pub fn start(api: SocketAddr, logs: &Path) -> Self {
        let args = ["-host", &api.ip().to_string(), "-port", &api.port().to_string()].map(ToOwned::to_owned).to_vec();
        let mut part = Part::new("toxiproxy", api, &tool("bin/toxiproxy-server"), args, logs);
        part.start();
        Self { part }
    }

    /// Makes a link.
    pub async fn link(&self, name: &str, listens: SocketAddr, upstream: SocketAddr) -> Link {
        let link = Link { name: name.to_owned(), listens, api: self.part.listens };
        let body = json!({"name": name, "listen": listens, "upstream": upstream, "enabled": true});
        link.api("POST", "/proxies", &body, 201).await;
        link
    }
}

// === impl Link ===

impl Link {
    /// Harms it, in addition to what harms it already.
    pub async fn harm(&self, harm: Harm) {
        let toxic = |kind: &str, stream: &str, attributes: Value| json!({"type": kind, "stream": stream, "attributes": attributes});
        let toxics = match harm {
            Harm::Delay(millis) => vec![
                toxic("latency", "upstream", json!({"latency": millis})),
                toxic("latency", "downstream", json!({"latency": millis})),
            ],
            Harm::CutAnswers => vec![toxic("timeout", "downstream", json!({"timeout": 0}))],
            Harm::CutCalls => vec![toxic("timeout", "upstream", json!({"timeout": 0}))],
            Harm::Reset => vec![toxic("reset_peer", "upstream", json!({"timeout": 0}))],
        };
        for toxic in toxics {
            self.api("POST", &format!("/proxies/{}/toxics", self.name), &toxic, 200).await;
        }
    }

    /// Takes all harm away.
    pub async fn heal(&self) {
        let toxics = Rest::send(self.api, "GET", &format!("/proxies/{}/toxics", self.name), "").await.json();
        for toxic in toxics.as_array().expect("toxics are a list") {
            let name = toxic["name"].as_str().expect("a toxic has a name");
            self.api("DELETE", &format!("/proxies/{}/toxics/{name}", self.name), &Value::Null, 204).await;
        }
    }

    /// Ends its connections and leads new ones to another address.
    pub async fn lead_to(&self, upstream: SocketAddr) {
        let path = format!("/proxies/{}", self.name);
        for (enabled, upstream) in [(false, upstream), (true, upstream)] {
            self.api("POST", &path, &json!({"enabled": enabled, "listen": self.listens, "upstream": upstream}), 200)
                .await;
        }
    }

    async fn api(&self, method: &str, path: &str, body: &Value, status: u16) {
        let answer = Rest::send(self.api, method, path, body.to_string()).await;
        assert_eq!(answer.status, status, "toxiproxy, {method} {path} {body}: {}", answer.text());
    }
}
