//! mTLS between real processes, and the data hop through the agent's relay.

use std::{fs, time::Duration};

use harness::{Pems, grpc};
use modelring_process::tls::{Connector, Files, Identity, Name};
use modelring_proto::{
    PROTOCOL,
    v1::{
        Hints, LoadRequest, ModelRef, ProxyMessage, Role, RoutesHello, WatcherHello, WatcherMessage,
        agent_client::AgentClient, load_request::Why, proxy_message, routes_client::RoutesClient, watcher_message,
    },
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Status, transport::Channel};

use crate::world::{World, free, request, right, run, until, words};

async fn identity(pems: &Pems) -> Identity {
    let Pems { certificate, key, ca } = pems.clone();
    Identity::load(Files { certificate, key, ca }).await.expect("the files are good")
}

async fn dial(address: std::net::SocketAddr, whom: Name, as_whom: Option<&Pems>) -> Result<Channel, String> {
    let identity = match as_whom {
        Some(pems) => Some(identity(pems).await),
        None => None,
    };
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("an address makes a URL");
    let dialled =
        endpoint.connect_timeout(Duration::from_secs(20)).connect_with_connector(Connector::new(identity, whom)).await;
    dialled.map_err(|error| error.to_string())
}

/// Opens a watch of control; `Ok` once the table comes.
async fn watch_control(world: &World, role: Role, as_whom: Option<&Pems>) -> Result<(), Status> {
    let channel = dial(world.control.listens, Name::control(), as_whom).await.map_err(Status::unavailable)?;
    let hello = RoutesHello {
        protocol: PROTOCOL,
        role: role.into(),
        id: "a-test".into(),
        namespace: "default".into(),
        last: None,
    };
    let (says, messages) = tokio::sync::mpsc::channel(4);
    let hello = ProxyMessage { message: Some(proxy_message::Message::Hello(hello)) };
    says.send(hello).await.expect("the channel is new");
    let mut updates = RoutesClient::new(channel).watch(ReceiverStream::new(messages)).await?.into_inner();
    updates.next().await.expect("an update comes").map(drop)
}

/// Opens a watch of the agent and sends hints where it is in control's role; `Ok` once a second event has come.
async fn watch_agent(world: &World, role: Role, as_whom: Option<&Pems>) -> Result<(), Status> {
    let name = Name::agent("default").expect("a name");
    let channel = dial(world.agent.listens, name, as_whom).await.map_err(Status::unavailable)?;
    let (says, messages) = tokio::sync::mpsc::channel(4);
    let mut first = vec![watcher_message::Message::Hello(WatcherHello {
        protocol: PROTOCOL,
        role: role.into(),
        id: "a-test".into(),
    })];
    if role == Role::Control {
        // Of an epoch below control's: without effect, where they are taken.
        first.push(watcher_message::Message::Hints(Hints::default()));
    }
    for message in first {
        says.send(WatcherMessage { message: Some(message) }).await.expect("the channel is new");
    }
    let mut events = AgentClient::new(channel).watch(ReceiverStream::new(messages)).await?.into_inner();
    for _ in 0..2 {
        events.next().await.expect("an event comes")?;
    }
    Ok(())
}

/// Asks the agent for a load of nothing that there is.
async fn ask_agent(world: &World, replaces: &str, as_whom: Option<&Pems>) -> Result<(), Status> {
    let name = Name::agent("default").expect("a name");
    let channel = dial(world.agent.listens, name, as_whom).await.map_err(Status::unavailable)?;
    let model = Some(ModelRef { id: "nothing__isvc-0123456789".into(), ..ModelRef::default() });
    let request = LoadRequest { model, why: Why::Ahead.into(), replaces: replaces.into(), table: None };
    AgentClient::new(channel).ensure_loaded(request).await.map(drop)
}

#[tokio::test]
async fn a_mesh_over_mtls_serves_through_the_relay_and_lets_in_whom_it_should() {
    let mut world = World::start(true, "", "").await;

    // Small and large, unary and streamed, both through the relay: the model server is on loopback.
    world.infer(1).await;
    world.infer(400_000).await;
    let mut client = grpc(world.proxy.listens).await;
    let (feed, messages) = tokio::sync::mpsc::channel(1);
    // The first message names the model: nothing begins before it.
    feed.send(request(1)).await.expect("the channel is new");
    let mut answers = client.model_stream_infer(ReceiverStream::new(messages)).await.expect("it begins").into_inner();
    for (rows, next) in [(1, 10_000), (10_000, 2), (2, 1), (1, 0)] {
        if next > 0 {
            feed.send(request(next)).await.expect("it is taken");
        }
        let answer = answers.next().await.expect("it comes").expect("it is one");
        let answer = answer.infer_response.expect("it is a response");
        assert!(answer.raw_output_contents[0] == right(rows), "another answer");
    }
    drop(feed);
    assert!(answers.next().await.is_none());
    // What has passed is on the connections of the relay, and none to the server but the agent's own.
    let proxy_log = world.proxy.log();
    assert!(!proxy_log.contains("cannot be connected"), "{proxy_log}");
    assert!(established(world.relay.port()) >= 1, "nothing goes through the relay");

    // Who may what.
    let [ours, other, control, agent] =
        ["proxy.default.modelring", "proxy.other.modelring", "control.modelring", "agent.default.modelring"]
            .map(|name| Some(world.issue(name)));
    let stranger = Some(harness::Ca::new().issue(&world.certificates, "stranger", "proxy.default.modelring"));
    let stranger = stranger.map(|pems| Pems { ca: world.certificates.join("proxy-ca.crt"), ..pems });
    let denied = |what: &str, outcome: Result<(), Status>| {
        let status = outcome.expect_err(what);
        assert_eq!(status.code(), Code::PermissionDenied, "{what}: {status}");
    };
    let away = |what: &str, outcome: Result<(), Status>| {
        let status = outcome.expect_err(what);
        assert_ne!(status.code(), Code::Ok, "{what}");
        assert_ne!(status.code(), Code::PermissionDenied, "{what}: it came as far as the service: {status}");
    };
    watch_control(&world, Role::Proxy, ours.as_ref()).await.expect("a proxy gets its table");
    watch_control(&world, Role::Observer, ours.as_ref()).await.expect("a proxy may look");
    watch_control(&world, Role::Observer, control.as_ref()).await.expect("control may look");
    denied("another namespace's proxy", watch_control(&world, Role::Proxy, other.as_ref()).await);
    denied("another namespace's observer", watch_control(&world, Role::Observer, other.as_ref()).await);
    denied("control as a proxy", watch_control(&world, Role::Proxy, control.as_ref()).await);
    denied("an agent", watch_control(&world, Role::Proxy, agent.as_ref()).await);
    away("another CA", watch_control(&world, Role::Proxy, stranger.as_ref()).await);
    away("plaintext", watch_control(&world, Role::Proxy, None).await);

    watch_agent(&world, Role::Proxy, ours.as_ref()).await.expect("a proxy may watch");
    watch_agent(&world, Role::Control, control.as_ref()).await.expect("control may watch and hint");
    denied("a proxy that hints", watch_agent(&world, Role::Control, ours.as_ref()).await);
    denied("control as a proxy", watch_agent(&world, Role::Proxy, control.as_ref()).await);
    denied("another namespace's proxy", watch_agent(&world, Role::Proxy, other.as_ref()).await);
    denied("another namespace's observer", watch_agent(&world, Role::Observer, other.as_ref()).await);
    away("another CA", watch_agent(&world, Role::Proxy, stranger.as_ref()).await);
    away("plaintext", watch_agent(&world, Role::Proxy, None).await);
    ask_agent(&world, "", ours.as_ref()).await.expect("a proxy may ask");
    ask_agent(&world, "some-model", control.as_ref()).await.expect("control may ask for one in place of another");
    denied("a proxy that replaces", ask_agent(&world, "some-model", ours.as_ref()).await);
    denied("another namespace's proxy", ask_agent(&world, "", other.as_ref()).await);

    // Whoever looks has a certificate too.
    let look = |pems: Option<&Pems>| {
        let flags = pems.map(Pems::flags).into_iter().flatten();
        let url = format!("status --control http://{} --json --timeout 5s", world.control.listens);
        run(&words(&url).into_iter().chain(flags).collect::<Vec<_>>())
    };
    let seen = look(ours.as_ref());
    let status: serde_json::Value = serde_json::from_slice(&seen.stdout).expect("it is JSON");
    assert!(seen.status.success());
    let instances = status["instances"].as_object().expect("there are instances");
    assert!(instances.values().all(|instance| instance["connected"] == true), "{status}");
    assert!(!look(None).status.success());

    // New certificates under way: what is on goes on, what comes anew has them.
    world.ca.issue(&world.certificates, "agent", "agent.default.modelring");
    world.ca.issue(&world.certificates, "control", "control.modelring");
    for part in [&world.agent, &world.control] {
        until("the new files are in force", async || part.log().contains("new mTLS files are in force")).await;
    }
    world.infer(1).await;
    world.proxy.kill_and_start();
    let ready = world.probes.proxy;
    until("the proxy is ready", async || crate::world::probe(ready, "/ready").await.0 == 200).await;
    world.infer(1).await;
}

/// Connections to a port of this machine that are established.
fn established(port: u16) -> usize {
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel tells");
    let port = format!(":{port:04X}");
    let of_port = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(1).is_some_and(|local| local.ends_with(&port)) && fields.get(3) == Some(&"01")
    };
    table.lines().filter(of_port).count()
}

#[tokio::test]
async fn internal_ports_beyond_loopback_are_refused_without_certificates() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let path = dir.path().display();
    let cases = [
        (format!("control {path} --listen 0.0.0.0:0"), "--listen"),
        (format!("agent --model-dir {path} --listen 0.0.0.0:0"), "--listen"),
        (format!("agent --model-dir {path} --listen 127.0.0.1:0 --relay 0.0.0.0:0"), "--relay"),
    ];
    for (command, flag) in cases {
        let output = run(&words(&command));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{command}: {text}");
        for part in [flag, "--tls-cert", "--tls-key", "--tls-ca", "loopback"] {
            assert!(text.contains(part), "{command}: no {part} in: {text}");
        }
    }
    let some = format!("proxy --grpc {} --rest {} --tls-cert {path}/x --tls-ca {path}/y", free(), free());
    let output = run(&words(&some));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("--tls-key too"), "{text}");
}
