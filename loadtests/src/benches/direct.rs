//! The embedded model server called directly, and through the proxy: what the proxy costs.
//!
//! Every part is a process of its own. The same ModelInfer call (MNIST, 3 KB of raw tensor) goes to both in alternating
//! rounds; the medians of the rounds are shown.

use std::{fs, net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use harness::{Folder, Mesh};
use modelring_proto::inference::{ModelInferRequest, model_infer_request::InferInputTensor};

use crate::{
    load::{Call, Shape, closed_loop},
    report::{Better, Figure, median, write},
};

const MODEL: &str = "example-onnx-mnist";
const PATH: &str = "/inference.GRPCInferenceService/ModelInfer";
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(3);
const SHAPES: [Shape; 3] =
    [Shape { connections: 1, streams: 1 }, Shape { connections: 4, streams: 4 }, Shape { connections: 8, streams: 8 }];

/// Runs the benchmark.
pub(crate) fn run() -> Result<()> {
    let served = Served::start();
    let (data, grpc) = (served.mesh.data, served.mesh.grpc);
    let through = call(MODEL);
    // The same model under its concrete id, which the model server knows it by; the proxy loads it first.
    let warm = Shape { connections: 1, streams: 1 };
    closed_loop(grpc, &through, warm, Duration::from_secs(1)).context("the mesh does not answer")?;
    let direct = call(&served.model_id()?);
    closed_loop(data, &direct, warm, Duration::from_secs(1)).context("the model server does not answer")?;

    println!(
        "ModelInfer of MNIST, {} bytes, closed loop, {ROUNDS} rounds of {ROUND:?}, medians",
        through.message.len()
    );
    println!("CPU is user + system time per call: of the model server (server), of the proxy (proxy)\n");
    println!(
        "{:<16}{:>9}{:>10}{:>10}{:>12}{:>12}",
        "connections x", "req/s", "p50 us", "p99 us", "server us", "proxy us"
    );
    let mut figures = Vec::new();
    for shape in SHAPES {
        let mut rows = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            rows[0].push(served.round(data, &direct, shape)?);
            rows[1].push(served.round(grpc, &through, shape)?);
        }
        let name = format!("{}x{}", shape.connections, shape.streams);
        let [direct, proxied] = rows.map(|rows| Row::medians(&rows));
        direct.print(&format!("{name} direct"));
        proxied.print(&format!("{name} proxy"));
        let ratio = |name: &str, value, better| Figure {
            name: format!("direct.{name}"),
            value,
            unit: "x",
            better,
            goal: None,
            floor: None,
        };
        let cpu = (proxied.server + proxied.proxy) / direct.server;
        println!(
            "{:<16}{:>8.2}x{:>9.2}x{:>9.2}x{:>23.2}x\n",
            "  ratio",
            proxied.rate / direct.rate,
            proxied.p50 / direct.p50,
            proxied.p99 / direct.p99,
            cpu
        );
        figures.extend(direct.figures(&format!("{name}.direct")));
        figures.extend(proxied.figures(&format!("{name}.proxy")));
        figures.push(ratio(&format!("{name}.rate"), proxied.rate / direct.rate, Better::Higher));
        figures.push(ratio(&format!("{name}.p50"), proxied.p50 / direct.p50, Better::Lower));
        figures.push(ratio(&format!("{name}.p99"), proxied.p99 / direct.p99, Better::Lower));
        figures.push(ratio(&format!("{name}.cpu"), cpu, Better::Lower));
    }
    println!(
        "resident memory: proxy {:.1} MiB, model server {:.1} MiB",
        served.mesh.proxy.rss_mib(),
        served.mesh.runtime.rss_mib()
    );
    write("direct", &figures)
}

/// The call for a model of this name.
fn call(model: &str) -> Call {
    let image: Vec<u8> = (0..784_u32).flat_map(|pixel| ((pixel % 256) as f32).to_le_bytes()).collect();
    let message = ModelInferRequest {
        model_name: model.to_owned(),
        inputs: vec![InferInputTensor {
            name: "Input3".to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![1, 1, 28, 28],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![image.into()],
        ..ModelInferRequest::default()
    };
    Call::new(PATH, &message)
}

/// The mesh, and the folder that it serves.
struct Served {
    mesh: Mesh,
    folder: Folder,
}

// === impl Served ===

impl Served {
    fn start() -> Self {
        let folder = Folder::quickstart();
        let mesh = Mesh::start(&folder, &["--threads", "1"], &["--threads", "1", "--access-log", "off"]);
        Self { mesh, folder }
    }

    /// Id of the one model that is loaded: the folder that the agent has put its files in.
    fn model_id(&self) -> Result<String> {
        fs::read_dir(self.folder.path().join("loaded"))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .find(|name| name.starts_with(MODEL))
            .context("no model was loaded")
    }

    fn round(&self, address: SocketAddr, call: &Call, shape: Shape) -> Result<Row> {
        let (runtime, proxy) = (self.mesh.runtime.cpu(), self.mesh.proxy.cpu());
        let outcome = closed_loop(address, call, shape, ROUND)?;
        let per_call = |cpu: Duration| cpu.as_secs_f64() * 1e6 / outcome.calls.max(1) as f64;
        Ok(Row {
            rate: outcome.calls as f64 / outcome.took.as_secs_f64(),
            p50: outcome.latency.value_at_quantile(0.5) as f64,
            p99: outcome.latency.value_at_quantile(0.99) as f64,
            server: per_call(self.mesh.runtime.cpu() - runtime),
            proxy: per_call(self.mesh.proxy.cpu() - proxy),
        })
    }
}

/// What one way of calling gave.
struct Row {
    rate: f64,
    p50: f64,
    p99: f64,
    server: f64,
    proxy: f64,
}

// === impl Row ===

impl Row {
    fn medians(rows: &[Self]) -> Self {
        let of = |field: fn(&Self) -> f64| median(rows.iter().map(field).collect());
        Self {
            rate: of(|row| row.rate),
            p50: of(|row| row.p50),
            p99: of(|row| row.p99),
            server: of(|row| row.server),
            proxy: of(|row| row.proxy),
        }
    }

    fn print(&self, name: &str) {
        println!(
            "{name:<16}{:>9.0}{:>10.0}{:>10.0}{:>12.1}{:>12.1}",
            self.rate, self.p50, self.p99, self.server, self.proxy
        );
    }

    fn figures(&self, name: &str) -> [Figure; 5] {
        let figure = |what: &str, value, unit, better| Figure {
            name: format!("direct.{name}.{what}"),
            value,
            unit,
            better,
            goal: None,
            floor: None,
        };
        [
            figure("rate", self.rate, "req/s", Better::Higher),
            figure("p50", self.p50, "us", Better::Lower),
            figure("p99", self.p99, "us", Better::Lower),
            figure("server-cpu", self.server, "us", Better::Lower),
            figure("proxy-cpu", self.proxy, "us", Better::Lower),
        ]
    }
}
