//! The client of `Agent.Watch`: one task per listed instance, for as long as it is listed.
//!
//! It pings, reports use, acknowledges drains, and hands what the agent says to the [`Peer`]. A stream that ends lets the
//! lease run out; a refused connection ends it at once.

use std::{io, sync::Arc, time::Duration};

use modelring_placement::{
    pod::{CopyState, LoadError},
    time::Time,
    view::ViewEvent,
};
use modelring_proto::{
    PROTOCOL,
    v1::{self, agent_client::AgentClient, agent_event::Event, copy_state::State, watcher_message::Message},
};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use super::{
    Fleet,
    backoff::Backoff,
    dial,
    host::Serving,
    peer::{Command, Peer},
};

/// Time between pings.
const PING: Duration = Duration::from_millis(500);
/// Pings between reports of use.
const TOUCH_EVERY: u64 = 2;
/// Messages that may wait to be sent.
const OUTBOX: usize = 256;
/// How long a message may wait before the stream counts as stuck.
const STUCK: Duration = Duration::from_secs(2);

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Connect(#[from] tonic::transport::Error),
    #[error("{}: {}", .0.code(), .0.message())]
    Status(#[from] tonic::Status),
    #[error("the agent ended the stream")]
    Closed,
    #[error("the stream takes no more messages")]
    Stuck,
    #[error("the agent speaks protocol {theirs}, this proxy speaks {PROTOCOL}")]
    Protocol { theirs: u32 },
    #[error("the address is that of instance `{theirs}`")]
    Another { theirs: String },
}

/// One stream.
struct Stream<'a> {
    peer: &'a Arc<Peer>,
    fleet: &'a Arc<Fleet>,
    out: mpsc::Sender<v1::WatcherMessage>,
    pings: u64,
}

/// Watches an instance until the task is aborted.
pub(super) async fn run(fleet: Arc<Fleet>, peer: Arc<Peer>, mut commands: mpsc::Receiver<Command>) {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    let mut said = String::new();
    loop {
        let ended = stream(&fleet, &peer, &mut commands, &mut backoff).await;
        peer.channel.store(None);
        peer.handle(if ended.is_refused() { ViewEvent::Refused } else { ViewEvent::Ended });
        let why = ended.to_string();
        if why != said {
            tracing::warn!(instance = %peer.listed.id, address = %peer.listed.address, error = %why, "watch of agent ended");
            said = why;
        }
        backoff.wait().await;
    }
}

async fn stream(
    fleet: &Arc<Fleet>,
    peer: &Arc<Peer>,
    commands: &mut mpsc::Receiver<Command>,
    backoff: &mut Backoff,
) -> Ended {
    match connected(fleet, peer, commands, backoff).await {
        Ok(()) => Ended::Closed,
        Err(ended) => ended,
    }
}

async fn connected(
    fleet: &Arc<Fleet>,
    peer: &Arc<Peer>,
    commands: &mut mpsc::Receiver<Command>,
    backoff: &mut Backoff,
) -> Result<(), Ended> {
    let channel =
        dial(&format!("http://{}", peer.listed.address))?.connect_with_connector(fleet.links.agent.clone()).await?;
    let (out, messages) = mpsc::channel(OUTBOX);
    let mut stream = Stream { peer, fleet, out, pings: 0 };
    stream.send(Message::Hello(fleet.watcher_hello())).await?;
    stream.ping().await?;
    let mut events = watch(channel.clone(), messages).await?;
    peer.channel.store(Some(Arc::new(channel)));

    let mut ticks = interval(PING);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        tokio::select! {
            event = events.message() => match event? {
                Some(event) => {
                    stream.event(event).await?;
                    backoff.reset();
                }
                None => return Ok(()),
            },
            _ = ticks.tick() => {
                stream.ping().await?;
                if stream.pings.is_multiple_of(TOUCH_EVERY) {
                    stream.touch(peer.touches(fleet.clock.now())).await?;
                }
                stream.acknowledge().await?;
            }
            () = peer.host.drained.notified() => stream.acknowledge().await?,
            Some(command) = commands.recv() => match command {
                Command::Ping => stream.ping().await?,
                Command::Missing(missing) => stream.send(Message::Missing(missing)).await?,
            },
        }
    }
}

async fn watch(
    channel: Channel,
    messages: mpsc::Receiver<v1::WatcherMessage>,
) -> Result<Streaming<v1::AgentEvent>, tonic::Status> {
    let mut client = AgentClient::new(channel);
    Ok(client.watch(ReceiverStream::new(messages)).await?.into_inner())
}

// === impl Stream ===

impl Stream<'_> {
    async fn event(&mut self, event: v1::AgentEvent) -> Result<(), Ended> {
        let seq = event.seq;
        let event = match event.event {
            Some(Event::Hello(hello)) => {
                self.check(&hello)?;
                let serving = Serving::from_hello(self.peer, &hello, &self.fleet.links.agent).await;
                tracing::info!(instance = %hello.instance_id, runtime = %hello.runtime, boot = hello.boot_id, "agent says hello");
                self.peer.host.set_serving(serving);
                ViewEvent::Hello { boot: hello.boot_id }
            }
            Some(Event::Copy(copy)) => {
                let now = self.fleet.clock.now();
                let Some(state) = copy_state(&copy, now) else { return Ok(()) };
                ViewEvent::Copy { seq, model: copy.model.into(), state }
            }
            Some(Event::SnapshotEnd(_)) => ViewEvent::SnapshotEnd { seq },
            Some(Event::Pong(pong)) => ViewEvent::Pong(pong.n),
            Some(Event::Leaving(_)) => ViewEvent::Leaving,
            // Memory is the agent's and control's business.
            Some(Event::Ledger(_)) | None => return Ok(()),
        };
        let urgent = self.peer.handle(event);
        self.touch(urgent).await
    }

    /// Whether the agent is the one that the table lists, and understands us.
    fn check(&self, hello: &v1::Hello) -> Result<(), Ended> {
        if hello.protocol != PROTOCOL {
            return Err(Ended::Protocol { theirs: hello.protocol });
        }
        let listed = &self.peer.listed;
        let other_pod = !listed.pod_uid.is_empty() && *listed.pod_uid != *hello.pod_uid;
        if listed.id.as_str() != hello.instance_id || other_pod {
            return Err(Ended::Another { theirs: format!("{} ({})", hello.instance_id, hello.pod_uid) });
        }
        Ok(())
    }

    async fn ping(&mut self) -> Result<(), Ended> {
        self.pings += 1;
        self.peer.handle(ViewEvent::PingSent(self.pings));
        self.send(Message::Ping(v1::Ping { n: self.pings })).await
    }

    async fn touch(&mut self, touches: Vec<v1::Touch>) -> Result<(), Ended> {
        if touches.is_empty() {
            return Ok(());
        }
        self.send(Message::Touches(v1::Touches { touches })).await
    }

    async fn acknowledge(&mut self) -> Result<(), Ended> {
        for ack in self.peer.acks(self.fleet.clock.now()) {
            self.send(Message::DrainAck(ack)).await?;
        }
        Ok(())
    }

    async fn send(&mut self, message: Message) -> Result<(), Ended> {
        let message = v1::WatcherMessage { message: Some(message) };
        match timeout(STUCK, self.out.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Ended::Closed),
            Err(_) => Err(Ended::Stuck),
        }
    }
}

// === impl Ended ===

impl Ended {
    /// Nobody listens at the address, or somebody else does.
    fn is_refused(&self) -> bool {
        let Self::Connect(error) = self else { return matches!(self, Self::Another { .. } | Self::Protocol { .. }) };
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return error.kind() == io::ErrorKind::ConnectionRefused;
            }
            cause = error.source();
        }
        false
    }
}

/// A copy's state with times of this process's clock; `None` = one that is not known here.
#[must_use]
pub fn copy_state(copy: &v1::CopyState, now: Time) -> Option<CopyState> {
    let bytes = copy.bytes;
    Some(match copy.state() {
        State::Unspecified => return None,
        State::Queued => CopyState::Queued,
        State::Loading => CopyState::Loading { bytes },
        State::Ready => CopyState::Ready { bytes, concurrency_limit: copy.concurrency_limit },
        State::Draining => CopyState::Draining { bytes, evict: copy.drain() == v1::copy_state::Drain::Evict },
        State::Failed => CopyState::Failed {
            error: LoadError { code: copy.code, text: copy.text.clone(), passing: false },
            until: now + Duration::from_millis(copy.retry_after_millis),
        },
        State::Gone => CopyState::Gone,
    })
}
