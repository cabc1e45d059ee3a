//! The client of `Routes.Watch`: takes tables from control, says whether they apply, reports use.
//!
//! When control is away everything goes on from the last table; this task alone minds, and dials again.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use modelring_proto::{
    PROTOCOL,
    v1::{self, proxy_message::Message, routes_client::RoutesClient},
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_stream::wrappers::ReceiverStream;

use super::{Fleet, backoff::Backoff, dial};
use crate::table::{Inbox, Refusal};

/// Time between reports of use.
const REPORT: Duration = Duration::from_secs(1);
/// Least time between two reports when copies are saturated.
const REPORT_AT_LEAST: Duration = Duration::from_millis(100);
/// Messages that may wait to be sent.
const OUTBOX: usize = 64;
/// How long a message may wait before the stream counts as stuck.
const STUCK: Duration = Duration::from_secs(5);
/// How long control may take to end a stream whose caller has said its last: until it does, a refusal may not have come.
const FAREWELL: Duration = Duration::from_secs(5);
/// Largest update of a table, bytes.
const LARGEST: usize = 64 << 20;

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Connect(#[from] tonic::transport::Error),
    #[error("{}: {}", .0.code(), .0.message())]
    Status(#[from] tonic::Status),
    #[error("control ended the stream")]
    Closed,
    #[error("the stream takes no more messages")]
    Stuck,
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Takes tables for as long as the task runs.
pub(super) async fn run(fleet: Arc<Fleet>, control: String, namespace: String) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    let mut said = String::new();
    loop {
        let Err(ended) = connected(&fleet, &control, &namespace, &mut backoff).await;
        fleet.connected.store(false, Ordering::Relaxed);
        let why = ended.to_string();
        if why != said {
            tracing::warn!(control, error = %why, "watch of control ended, the last table stays in force");
            said = why;
        }
        backoff.wait().await;
    }
}

async fn connected(
    fleet: &Arc<Fleet>,
    control: &str,
    namespace: &str,
    backoff: &mut Backoff,
) -> Result<std::convert::Infallible, Ended> {
    let channel = dial(control)?.connect_with_connector(fleet.links.control.clone()).await?;
    let (out, messages) = mpsc::channel(OUTBOX);
    let hello = v1::RoutesHello {
        protocol: PROTOCOL,
        role: v1::Role::Proxy.into(),
        id: fleet.id.to_string(),
        namespace: namespace.to_owned(),
        last: fleet.table().map(|table| table.version.to_proto()),
    };
    send(&out, Message::Hello(hello)).await?;
    let mut client = RoutesClient::new(channel).max_decoding_message_size(LARGEST);
    let mut updates = client.watch(ReceiverStream::new(messages)).await?.into_inner();
    fleet.connected.store(true, Ordering::Relaxed);
    tracing::info!(control, "watching control");
    // What was gathered while control was away is of no moment that it would take it for.
    drop(fleet.usage());

    let mut inbox = Inbox::default();
    let mut ticks = interval(REPORT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reported = Instant::now();
    loop {
        tokio::select! {
            update = updates.message() => {
                let update = update?.ok_or(Ended::Closed)?;
                let version = update.version;
                match inbox.receive(fleet.table().as_deref(), update) {
                    Ok(None) => {}
                    Ok(Some(table)) => {
                        fleet.install(table);
                        backoff.reset();
                        send(&out, Message::Ack(v1::Ack { version })).await?;
                    }
                    Err(refusal) => {
                        tracing::error!(%refusal, "table refused, the last one stays in force");
                        send(&out, Message::Nack(v1::Nack { version, reason: refusal.to_string() })).await?;
                        // A new stream begins with a snapshot.
                        if !matches!(refusal, Refusal::Wrong(_)) {
                            drop(out);
                            // A stream that is dropped at once would take the refusal with it.
                            let _ = timeout(FAREWELL, async { while let Ok(Some(_)) = updates.message().await {} }).await;
                            return Err(refusal.into());
                        }
                    }
                }
            }
            _ = ticks.tick() => {
                reported = Instant::now();
                report(fleet, &out).await?;
            }
            () = fleet.saturated.notified(), if reported.elapsed() >= REPORT_AT_LEAST => {
                reported = Instant::now();
                report(fleet, &out).await?;
            }
            () = tokio::time::sleep_until(reported + REPORT_AT_LEAST), if reported.elapsed() < REPORT_AT_LEAST => {}
        }
    }
}

async fn report(fleet: &Fleet, out: &mpsc::Sender<v1::ProxyMessage>) -> Result<(), Ended> {
    let usage = fleet.usage();
    if usage.copies.is_empty() && usage.models.is_empty() {
        return Ok(());
    }
    send(out, Message::Usage(usage)).await
}

async fn send(out: &mpsc::Sender<v1::ProxyMessage>, message: Message) -> Result<(), Ended> {
    match timeout(STUCK, out.send(v1::ProxyMessage { message: Some(message) })).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Ended::Closed),
        Err(_) => Err(Ended::Stuck),
    }
}
