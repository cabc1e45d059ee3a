//! KServe's repository API (`inference.GRPCInferenceService`) over the one connection to a process of the server.

use std::time::Duration;

use modelring_placement::id::ModelId;
use modelring_proto::inference::{
    RepositoryIndexRequest, RepositoryModelLoadRequest, RepositoryModelUnloadRequest, ServerMetadataRequest,
    ServerReadyRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::{Code, Status, transport::Channel};

use crate::{connection::Held, handshake::NotReady};

/// How long a server may take to tell its index: it reads all that lies in its folder.
const INDEX: Duration = Duration::from_secs(30);
/// Time between two looks at an index that still shows models.
const PURGE_EVERY: Duration = Duration::from_millis(200);
/// How long a load or unload that nobody waits for may take to end by itself.
const SETTLE: Duration = Duration::from_secs(10);
/// Largest answer, bytes: an index names each model of the pod.
const LARGEST: usize = 64 << 20;
/// How many models a text names.
const NAMED: usize = 3;

/// The connection to one process of a server.
pub(crate) struct Repository {
    client: GrpcInferenceServiceClient<Channel>,
    /// Looks at the connection.
    pub(crate) held: Held,
}

/// What an index says of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The server holds it.
    Ready,
    /// The server does not hold it.
    Absent,
    /// It is being loaded or unloaded. MLServer calls that unknown.
    Between,
}

// === impl Repository ===

impl Repository {
    pub(crate) fn new(channel: Channel, held: Held) -> Self {
        let client = GrpcInferenceServiceClient::new(channel).max_decoding_message_size(LARGEST);
        Self { client, held }
    }

    /// Whether the server says that it is ready.
    pub(crate) async fn ready(&self, deadline: Instant) -> Result<(), NotReady> {
        let asking = timeout_at(deadline, self.client.clone().server_ready(ServerReadyRequest {})).await;
        let asked = asking.map_err(|_| NotReady::Yet("ServerReady has no answer".to_owned()))?;
        let answer = asked.map_err(|status| NotReady::Yet(format!("ServerReady: {}", status.message())))?;
        if answer.into_inner().ready {
            return Ok(());
        }
        Err(NotReady::Yet("ServerReady says no".to_owned()))
    }

    /// The version that the server tells; none where it tells none.
    pub(crate) async fn version(&self, deadline: Instant) -> Result<Option<String>, NotReady> {
        let asking = timeout_at(deadline, self.client.clone().server_metadata(ServerMetadataRequest {})).await;
        let asked = asking.map_err(|_| NotReady::Yet("ServerMetadata has no answer".to_owned()))?;
        let answer = asked.map_err(|status| NotReady::Yet(format!("ServerMetadata: {}", status.message())))?;
        Ok(Some(answer.into_inner().version).filter(|version| !version.is_empty()))
    }

    /// Unloads all that the server holds, until its index shows nothing loaded or on its way.
    ///
    /// What is on its way is given a moment to settle, and is unloaded then: MLServer, whose caller went away in the middle
    /// of a load, neither ends that load nor forgets the model, and is never ready again.
    pub(crate) async fn purge(&self, deadline: Instant) -> Result<(), NotReady> {
        let settled_at = Instant::now() + SETTLE;
        loop {
            let index = timeout_at(deadline, self.index(false)).await;
            let index = index.map_err(|_| NotReady::Yet("RepositoryIndex has no answer".to_owned()))?;
            let index = index.map_err(|status| NotReady::Yet(format!("RepositoryIndex: {}", status.message())))?;
            let held: Vec<_> = index.into_iter().filter(|(_, state)| *state != State::Absent).collect();
            if held.is_empty() {
                return Ok(());
            }
            let settled = Instant::now() >= settled_at;
            for (model, state) in held.iter().filter(|(_, state)| *state == State::Ready || settled) {
                tracing::info!(%model, ?state, "purged from the model server");
                let unloading = timeout_at(deadline, self.unload(model)).await;
                let unloaded = unloading.map_err(|_| NotReady::Yet(format!("unload of '{model}' has no answer")))?;
                unloaded.map_err(|status| NotReady::Yet(format!("unload of '{model}': {}", status.message())))?;
            }
            if Instant::now() + PURGE_EVERY >= deadline {
                let names: Vec<_> = held.iter().take(NAMED).map(|(model, _)| model.as_str()).collect();
                return Err(NotReady::Yet(format!("it still holds {} models: {}, …", held.len(), names.join(", "))));
            }
            sleep(PURGE_EVERY).await;
        }
    }

    /// Has a model loaded. There is no deadline: until the server has answered, the memory is charged.
    pub(crate) async fn load(&self, model: &ModelId) -> Result<(), Status> {
        let request = RepositoryModelLoadRequest { model_name: model.to_string(), ..Default::default() };
        self.client.clone().repository_model_load(request).await.map(drop)
    }

    /// Has a model unloaded; one that is not there is unloaded. There is no deadline, as for a load.
    pub(crate) async fn unload(&self, model: &ModelId) -> Result<(), Status> {
        let request = RepositoryModelUnloadRequest { model_name: model.to_string(), ..Default::default() };
        absent_is_unloaded(self.client.clone().repository_model_unload(request).await.map(drop))
    }

    /// Whether the server holds a model ready; true where it does not tell, since what was not denied stands.
    pub(crate) async fn knows(&self, model: &ModelId) -> bool {
        match timeout(INDEX, self.index(true)).await {
            Ok(Ok(index)) => index.iter().any(|(name, state)| name == model && *state == State::Ready),
            Ok(Err(status)) => {
                tracing::warn!(%model, code = ?status.code(), text = status.message(), "no index from the model server");
                true
            }
            Err(_) => {
                tracing::warn!(%model, timeout_seconds = INDEX.as_secs(), "no index from the model server in time");
                true
            }
        }
    }

    async fn index(&self, ready: bool) -> Result<Vec<(ModelId, State)>, Status> {
        let request = RepositoryIndexRequest { ready, ..Default::default() };
        let index = self.client.clone().repository_index(request).await?.into_inner();
        Ok(index.models.into_iter().map(|model| (model.name.into(), State::of(&model.state))).collect())
    }
}

/// Older versions of MLServer call a model that is not there an invalid argument.
fn absent_is_unloaded(unloaded: Result<(), Status>) -> Result<(), Status> {
    match unloaded {
        Err(status) if !matches!(status.code(), Code::NotFound | Code::InvalidArgument) => Err(status),
        _ => Ok(()),
    }
}

// === impl State ===

impl State {
    /// Reads Triton's `READY` and MLServer's `State.READY`.
    fn of(text: &str) -> Self {
        match text.rsplit('.').next().unwrap_or_default() {
            "READY" => Self::Ready,
            "UNAVAILABLE" => Self::Absent,
            _ => Self::Between,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_is_not_there_is_unloaded_and_other_failures_count() {
        for status in [Status::not_found("Model x not found"), Status::invalid_argument("Model x not found")] {
            assert!(absent_is_unloaded(Err(status)).is_ok());
        }
        assert_eq!(
            absent_is_unloaded(Err(Status::internal("broken"))).map_err(|status| status.code()),
            Err(Code::Internal)
        );
    }

    #[test]
    fn the_words_of_triton_and_of_mlserver_are_read() {
        assert_eq!((State::of("READY"), State::of("State.READY")), (State::Ready, State::Ready));
        assert_eq!((State::of("UNAVAILABLE"), State::of("State.UNAVAILABLE")), (State::Absent, State::Absent));
        for text in ["LOADING", "UNLOADING", "State.UNKNOWN", ""] {
            assert_eq!(State::of(text), State::Between, "{text}");
        }
    }
}
