//! The calls to agents: one watch each, and one call for each load that is asked for. No decision is made here.

use std::time::Duration;

use modelring_placement::pod::LoadError;
use modelring_process::tls::Connector;
use modelring_proto::{
    PROTOCOL,
    v1::{
        self, AgentEvent, Hints, LoadRequest, Ping, Role, WatcherHello, WatcherMessage, agent_client::AgentClient,
        agent_event, load_event, watcher_message,
    },
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::transport::{Channel, Endpoint};

use super::{Event, wire};

const CONNECT: Duration = Duration::from_secs(2);
const PING: Duration = Duration::from_millis(500);
/// Without an answer for this long the stream is taken for dead.
const SILENCE: Duration = Duration::from_secs(5);
const KEEP_ALIVE: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Until an agent says that it takes a load.
const PLACE: Duration = Duration::from_secs(30);

/// What happens on the watch of an agent.
#[derive(Debug)]
pub enum Heard {
    /// A ping of this number is about to be written.
    PingSent(u64),
    /// The agent said something.
    Said(AgentEvent),
    /// The stream ended.
    Ended,
    /// No answer came from the address.
    Unreachable {
        /// The connection was refused: no agent is there, and with it no copy.
        refused: bool,
        /// What the connection said.
        text: String,
    },
    /// It speaks another protocol, or refuses the watch.
    Refused(String),
}

/// What came of asking for a load.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The copy is ready.
    Loaded {
        /// Boot of the agent.
        boot: u64,
        /// Seq of the READY.
        seq: u64,
    },
    /// The load failed.
    Failed(LoadError),
    /// It was not tried.
    Refused {
        /// Why.
        reason: v1::refused::Reason,
        /// When to ask again; zero = not said.
        retry_after: Duration,
        /// For people.
        text: String,
    },
    /// No answer.
    Lost(String),
}

// === impl Heard ===

impl Heard {
    /// Whether it is only a sign of life, which changes nothing while a lease is on.
    pub(super) fn is_quiet(&self) -> bool {
        match self {
            Self::PingSent(_) => true,
            Self::Said(event) => matches!(event.event, Some(agent_event::Event::Pong(_))),
            Self::Ended | Self::Unreachable { .. } | Self::Refused(_) => false,
        }
    }
}

/// A channel to an agent, made when it is first used.
pub(super) fn channel(address: &str, connector: Connector) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
    Ok(endpoint
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(connector))
}

/// Watches an agent, again and again, until nobody listens any more.
pub(super) async fn watch_agent(
    address: String,
    channel: Channel,
    watcher: String,
    mut hints: watch::Receiver<Hints>,
    events: mpsc::Sender<Event>,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        let heard = match watch_once(&address, channel.clone(), &watcher, &mut hints, &events).await {
            Ok(()) => Heard::Ended,
            Err(heard) => heard,
        };
        if events.send(Event::Agent { address: address.clone(), heard }).await.is_err() {
            return;
        }
        pause = if began.elapsed() > LONGEST_PAUSE { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        tokio::select! {
            () = events.closed() => return,
            () = sleep(pause) => {}
        }
    }
}

async fn watch_once(
    address: &str,
    channel: Channel,
    watcher: &str,
    hints: &mut watch::Receiver<Hints>,
    events: &mpsc::Sender<Event>,
) -> Result<(), Heard> {
    use watcher_message::Message;

    let (write, requests) = mpsc::channel(16);
    let message = |message| WatcherMessage { message: Some(message) };
    let hello = WatcherHello { protocol: PROTOCOL, role: Role::Control.into(), id: watcher.to_owned() };
    let first = message(Message::Hello(hello));
    write.try_send(first).expect("the channel is new");
    let mut client = AgentClient::new(channel);
    let opened = client.watch(ReceiverStream::new(requests)).await;
    let mut stream = match opened {
        Ok(response) => response.into_inner(),
        Err(status) if status.code() == tonic::Code::Unavailable => {
            return Err(Heard::Unreachable { refused: is_refused(&status), text: status.message().to_owned() });
        }
        Err(status) => return Err(Heard::Refused(status.message().to_owned())),
    };
    let mut ticks = interval(PING);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut n, mut last_heard, mut greeted) = (0, Instant::now(), false);
    hints.mark_changed();
    loop {
        tokio::select! {
            said = stream.next() => {
                let event = match said {
                    Some(Ok(event)) => event,
                    Some(Err(status)) if !greeted => return Err(Heard::Refused(status.message().to_owned())),
                    Some(Err(_)) | None => return Ok(()),
                };
                last_heard = Instant::now();
                greeted = true;
                let heard = Heard::Said(event);
                if events.send(Event::Agent { address: address.to_owned(), heard }).await.is_err() {
                    return Ok(());
                }
            }
            _ = ticks.tick() => {
                // Until its handshake with the model server is done an agent is silent.
                if greeted && last_heard.elapsed() > SILENCE {
                    return Ok(());
                }
                n += 1;
                let heard = Heard::PingSent(n);
                if events.send(Event::Agent { address: address.to_owned(), heard }).await.is_err() {
                    return Ok(());
                }
                if timeout(SILENCE, write.send(message(Message::Ping(Ping { n })))).await.is_err() {
                    return Ok(());
                }
            }
            changed = hints.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let now = hints.borrow_and_update().clone();
                if now.epoch > 0 && timeout(SILENCE, write.send(message(Message::Hints(now)))).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// Whether nobody listens at the address, rather than that nobody answers.
fn is_refused(status: &tonic::Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return error.kind() == std::io::ErrorKind::ConnectionRefused;
        }
        cause = error.source();
    }
    false
}

/// Asks an agent for a load and waits for what comes of it.
pub(super) async fn ask(channel: Channel, request: LoadRequest, load_budget: Duration) -> Answer {
    use load_event::Event as Load;

    let mut client = AgentClient::new(channel);
    let mut stream = match timeout(PLACE, client.ensure_loaded(request)).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return Answer::Lost(status.message().to_owned()),
        Err(_) => return Answer::Lost("no answer in time".to_owned()),
    };
    let mut end = Instant::now() + PLACE;
    loop {
        let event = match tokio::time::timeout_at(end, stream.next()).await {
            Ok(Some(Ok(event))) => event,
            Ok(Some(Err(status))) => return Answer::Lost(status.message().to_owned()),
            Ok(None) => return Answer::Lost("the agent ended the call".to_owned()),
            Err(_) => return Answer::Lost("the load did not end in time".to_owned()),
        };
        match event.event {
            Some(Load::Accepted(_)) => end = Instant::now() + load_budget,
            Some(Load::Progress(_)) | None => {}
            Some(Load::Loaded(loaded)) => return Answer::Loaded { boot: loaded.boot_id, seq: loaded.seq },
            Some(Load::Failed(failed)) => return Answer::Failed(wire::load_error(failed.code, failed.text)),
            Some(Load::Refused(refused)) => {
                return Answer::Refused {
                    reason: refused.reason(),
                    retry_after: Duration::from_millis(refused.retry_after_millis),
                    text: refused.text,
                };
            }
        }
    }
}
