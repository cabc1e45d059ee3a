//! `modelring up`: control, a proxy, an agent and the embedded model server in one process. They talk over loopback as
//! they would apart, through the same code.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use modelring_agent::Agent;
use modelring_control::{Control, source::InstanceSpec};
use modelring_placement::pod::EvictionPolicy;
use modelring_proxy::start::Proxy;
use modelring_runtime::Runtime;

use super::{control::BUILT_IN_RUNTIME, proxy::AccessLog, runtime::threads};
use crate::{
    args::{Bytes, Seconds},
    dataplane::Dataplane,
    observe::{Mesh, Observer, State},
    render,
    signal::Stop,
};

/// Name of the embedded model server's ServingRuntime.
const RUNTIME: &str = "modelring-onnx";
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// What to serve, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of manifests: InferenceServices, ServingRuntimes, Secret storage-config, instances.yaml
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Where gRPC is served (REST too); port 0 = a free one
    #[arg(long, env = "MODELRING_GRPC", default_value = "127.0.0.1:8033", value_name = "ADDRESS")]
    grpc: SocketAddr,

    /// Where REST is served (gRPC too); port 0 = a free one
    #[arg(long, env = "MODELRING_REST", default_value = "127.0.0.1:8008", value_name = "ADDRESS")]
    rest: SocketAddr,

    /// Namespace that the folder stands for
    #[arg(long, env = "NAMESPACE", default_value = "default", value_name = "NAME")]
    namespace: String,

    #[command(flatten)]
    dataplane: Dataplane,

    /// Memory that models may fill
    #[arg(long, env = "MODELRING_CAPACITY", default_value = "1GiB", value_name = "BYTES")]
    capacity: Bytes,

    /// Threads that relay calls, and as many that run inference [default: the CPUs that this process may use]
    #[arg(long, env = "MODELRING_THREADS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,

    /// A copy used more recently is not evicted for another [default: 10 x the learned load time, at least 1s]
    #[arg(long, env = "MODELRING_MIN_CHURN_AGE", value_name = "TIME")]
    min_churn_age: Option<Seconds>,

    /// Which calls are logged
    #[arg(long, env = "MODELRING_ACCESS_LOG", value_enum, default_value_t = AccessLog::Errors, hide_env_values = true)]
    access_log: AccessLog,
}

/// Serves the folder until it is asked to stop.
pub(crate) async fn run(args: Args) -> Result<()> {
    ensure!(args.dir.is_dir(), "{} is no folder; name one that holds manifests", args.dir.display());
    let mut stop = Stop::listen()?;
    let dir = args.dir.canonicalize().with_context(|| format!("{} cannot be read", args.dir.display()))?;
    let mut mesh = tokio::select! {
        mesh = Parts::start(&args, &dir) => mesh?,
        () = stop.asked() => return Ok(()),
    };
    println!("modelring {} serves {}\n", env!("CARGO_PKG_VERSION"), args.dir.display());
    println!("  gRPC  {}\n  REST  http://{}\n", mesh.proxy.grpc_addr, mesh.proxy.rest_addr);
    let mut observer = Observer::start(format!("http://{}", mesh.control.addr()), args.namespace.clone(), None)?;
    tokio::select! {
        () = report(&mut observer, &args.dir, mesh.proxy.rest_addr) => {}
        error = mesh.agent.ended() => return Err(error).context("the agent has ended"),
        error = mesh.control.failed() => return Err(error).context("control has ended"),
        () = stop.asked() => {}
    }
    println!("\nstopping: calls in flight are finished (Ctrl-C again stops at once)");
    tokio::select! {
        () = mesh.stop() => {}
        () = stop.asked() => {}
    }
    Ok(())
}

/// The processes of the mesh, in one.
struct Parts {
    runtime: modelring_runtime::Running,
    agent: modelring_agent::Running,
    control: modelring_control::Running,
    proxy: modelring_proxy::start::Running,
}

// === impl Parts ===

impl Parts {
    async fn start(args: &Args, dir: &Path) -> Result<Self> {
        let state = dir.join(".modelring");
        let threads = threads(args.threads);
        let runtime = Runtime::start(modelring_runtime::config::Config {
            listen: LOOPBACK,
            capacity: args.capacity.0,
            loading_concurrency: 2,
            load_timeout: Duration::from_secs(90),
            threads,
            max_message: 16 << 20,
        })
        .await
        .context("the embedded model server cannot start")?;
        let agent = Agent::start(modelring_agent::config::Config {
            listen: LOOPBACK,
            instance: None,
            pod_uid: None,
            tls: None,
            namespace: args.namespace.clone(),
            runtime: RUNTIME.to_owned(),
            model_dir: state.join("models"),
            storage_config: Some(state.join("storage-config")),
            local_root: Some(dir.to_owned()),
            disk_limit: None,
            server: modelring_agent::ServerKind::Custom,
            management: format!("http://{}", runtime.addr),
            data: runtime.addr.to_string(),
            data_direct: None,
            relay: None,
            min_churn_age: args.min_churn_age.map(|age| age.0),
            eviction: EvictionPolicy::Gdsf,
            drain_timeout: Duration::from_secs(30),
        })
        .await
        .context("the agent cannot start")?;
        let own = InstanceSpec { runtime: RUNTIME.to_owned(), ..InstanceSpec::default() };
        let control = Control::start(modelring_control::config::Config {
            dir: dir.to_owned(),
            listen: LOOPBACK,
            tls: None,
            namespace: args.namespace.clone(),
            instances: vec![(agent.addr.to_string(), own)],
            built_in_runtimes: vec![BUILT_IN_RUNTIME.to_owned()],
            dataplane: args.dataplane.source()?,
        })
        .await
        .context("control cannot start")?;
        let proxy = Proxy::start(modelring_proxy::config::Config {
            grpc: args.grpc,
            rest: args.rest,
            control: format!("http://{}", control.addr()),
            tls: None,
            namespace: args.namespace.clone(),
            threads,
            memory_budget: 200 << 20,
            drain_delay: Duration::ZERO,
            access_log: args.access_log.into(),
            metrics: Default::default(),
            state_dir: None,
            limits: Default::default(),
        })
        .context("the proxy cannot start")?;
        // It is ready when it has its table, and then or 5 s later what the agent holds.
        let mut ready = proxy.watch_ready();
        let _ = tokio::time::timeout(Duration::from_secs(20), ready.wait_for(|ready| *ready)).await;
        Ok(Self { runtime, agent, control, proxy })
    }

    /// Callers first, then what serves them.
    async fn stop(self) {
        self.proxy.shutdown(Duration::from_secs(30)).await;
        self.control.shutdown().await;
        self.agent.shutdown(Duration::ZERO).await;
        self.runtime.shutdown().await;
    }
}

/// Prints what changes, for ever; when the first model is known, how to call it.
async fn report(observer: &mut Observer, dir: &Path, rest: SocketAddr) {
    let mut reporter = Reporter::default();
    observer.complete().await;
    loop {
        let mesh = observer.mesh();
        reporter.print(&mesh, dir, rest);
        observer.changed().await;
    }
}

#[derive(Default)]
struct Reporter {
    models: BTreeMap<String, (String, State)>,
    loading_since: BTreeMap<String, Instant>,
    notices: Vec<String>,
    told_how: bool,
    told_empty: bool,
}

// === impl Reporter ===

impl Reporter {
    fn print(&mut self, mesh: &Mesh, dir: &Path, rest: SocketAddr) {
        let notices: Vec<String> =
            mesh.notices.iter().map(|notice| format!("  ! {}: {}", notice.subject, notice.text)).collect();
        for notice in notices.iter().filter(|notice| !self.notices.contains(notice)) {
            println!("{notice}");
        }
        self.notices = notices;
        for gone in self.models.keys().filter(|name| !mesh.models.contains_key(*name)) {
            println!("  {gone}  removed");
        }
        self.models.retain(|name, _| mesh.models.contains_key(name));
        for (name, model) in &mesh.models {
            // While a change is on its target is what there is to tell.
            let id = if model.target.is_empty() { &model.active } else { &model.target };
            let now = (id.clone(), mesh.state(id));
            if self.models.get(name) != Some(&now) {
                println!("  {name}  {}", self.words(mesh, name, model, id, now.1));
                self.models.insert(name.clone(), now);
            }
        }
        if let (false, Some(name)) = (self.told_how, mesh.models.keys().next()) {
            self.told_how = true;
            println!("\ntry it:\n\n  {}\n\n  Ctrl-C stops\n", curl(name, dir, rest));
        } else if mesh.models.is_empty() && !self.told_empty {
            self.told_empty = true;
            println!("  no InferenceService in {} yet; add one, it is taken up at once", dir.display());
        }
    }

    fn words(&mut self, mesh: &Mesh, name: &str, model: &crate::observe::Model, id: &str, state: State) -> String {
        match state {
            State::Loaded => {
                let bytes = mesh.copies(id).map(|(_, copy)| copy.bytes).max().unwrap_or(0);
                let took = self.loading_since.remove(name).map(|since| format!(" in {:.2?}", since.elapsed()));
                format!("ready: {} loaded{}", render::bytes(bytes), took.unwrap_or_default())
            }
            State::Loading => {
                self.loading_since.entry(name.to_owned()).or_insert_with(Instant::now);
                "loading ...".to_owned()
            }
            State::Standby => "known, not loaded: the first call loads it".to_owned(),
            State::FailedToLoad | State::NoRuntime => {
                let kept = if model.target.is_empty() { "" } else { " (the model before it answers on)" };
                format!("cannot be loaded{kept}: {}", mesh.error(model).unwrap_or_default())
            }
        }
    }
}

/// A line that calls a model; its body is a file `requests/<model>*.json` of the folder where there is one.
fn curl(model: &str, dir: &Path, rest: SocketAddr) -> String {
    let requests = dir.join("requests");
    let mut bodies: Vec<String> = std::fs::read_dir(&requests)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(model) && name.ends_with(".json"))
        .collect();
    bodies.sort();
    let body =
        bodies.pop().map_or_else(|| "@request.json".into(), |name| format!("@{}", requests.join(name).display()));
    format!("curl -s http://{rest}/v2/models/{model}/infer -d {body}")
}
