//! Settings of the adapter of a built-in model server, under the names of ModelMesh's adapters.

use std::time::Duration;

use clap::ValueEnum;
use modelring_agent::{ServerKind, adapter::Settings};

/// Kinds of model servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Any that implements mmesh.ModelRuntime, the embedded one too
    Custom,
    /// MLServer; its MLSERVER_MODELS_DIR is `_mlserver_models` in the model directory
    Mlserver,
}

/// Settings that a built-in model server needs and a custom one tells by itself.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Adapter of a built-in model server (not custom)")]
pub(crate) struct Adapter {
    /// Port on localhost where the model server is managed and serves inference
    #[arg(long, env = "RUNTIME_PORT", default_value_t = 8001)]
    runtime_port: u16,

    /// Memory that the model server's container asks for, bytes; required
    #[arg(long, env = "CONTAINER_MEM_REQ_BYTES", allow_negative_numbers = true)]
    container_mem_req_bytes: Option<i64>,

    /// How much of that memory is not for models, bytes
    #[arg(long, env = "MEM_BUFFER_BYTES", default_value_t = 256 << 20, allow_negative_numbers = true)]
    mem_buffer_bytes: i64,

    /// Loads that may run at once
    #[arg(long, env = "LOADING_CONCURRENCY", default_value_t = 1)]
    loading_concurrency: u32,

    /// How long a load may take where the model does not say, milliseconds
    #[arg(long, env = "LOADTIME_TIMEOUT", default_value_t = 30_000)]
    loadtime_timeout: u32,

    /// Size of a model whose size on disk is not known, bytes
    #[arg(long, env = "DEFAULT_MODELSIZE", default_value_t = 1_000_000)]
    default_modelsize: u64,

    /// Bytes in memory per byte on disk
    #[arg(long, env = "MODELSIZE_MULTIPLIER", default_value_t = 1.25, allow_negative_numbers = true)]
    modelsize_multiplier: f64,

    /// Calls that one copy takes at once; 0 = no limit
    #[arg(long, env = "LIMIT_PER_MODEL_CONCURRENCY", default_value_t = 0)]
    limit_per_model_concurrency: u32,

    /// Version of the model server where it does not tell its own
    #[arg(long, env = "RUNTIME_VERSION", default_value = "v1")]
    runtime_version: String,
}

// === impl Adapter ===

impl Adapter {
    /// The server that the agent is to drive.
    pub(crate) fn server(&self, kind: Kind) -> ServerKind {
        match kind {
            Kind::Custom => ServerKind::Custom,
            Kind::Mlserver => ServerKind::MlServer(Settings {
                container_mem_req_bytes: self.container_mem_req_bytes,
                mem_buffer_bytes: self.mem_buffer_bytes,
                loading_concurrency: self.loading_concurrency,
                loadtime_timeout: Duration::from_millis(self.loadtime_timeout.into()),
                default_modelsize: self.default_modelsize,
                modelsize_multiplier: self.modelsize_multiplier,
                limit_per_model_concurrency: self.limit_per_model_concurrency,
                runtime_version: self.runtime_version.clone(),
            }),
        }
    }

    /// Where a server of this kind is managed if nothing else is said.
    pub(crate) fn management(&self, kind: Kind) -> String {
        match kind {
            Kind::Custom => "http://127.0.0.1:8085".to_owned(),
            Kind::Mlserver => format!("port:{}", self.runtime_port),
        }
    }

    /// Where a server of this kind serves inference if nothing else is said.
    pub(crate) fn data(&self, kind: Kind) -> String {
        match kind {
            Kind::Custom => "127.0.0.1:8085".to_owned(),
            Kind::Mlserver => format!("127.0.0.1:{}", self.runtime_port),
        }
    }
}
