//! Calls over the one connection to a process of the server.

use http::uri::PathAndQuery;
use modelring_placement::id::ModelId;
use modelring_proto::mmesh::{UnloadModelRequest, UnloadModelResponse};
use tonic::{Code, Request, Status, client::Grpc, transport::Channel};
use tonic_prost::ProstCodec;

use crate::connection::Held;

/// Name of the service.
const SERVICE: &str = "mmesh.ModelRuntime";
/// Name of the service in the oldest servers; the same methods and messages.
const OLDER_SERVICE: &str = "com.ibm.watson.tas.internal.proto.ModelServer";

/// The connection to one process of the server.
pub(super) struct Link {
    channel: Channel,
    /// Looks at the connection.
    pub(super) held: Held,
    service: &'static str,
}

// === impl Link ===

impl Link {
    pub(super) fn new(channel: Channel, held: Held) -> Self {
        Self { channel, held, service: SERVICE }
    }

    /// Speaks to the service under its older name from now on; false if it did already.
    pub(super) fn use_older_name(&mut self) -> bool {
        std::mem::replace(&mut self.service, OLDER_SERVICE) == SERVICE
    }

    /// One call, without a deadline.
    pub(super) async fn call<Q, A>(&self, method: &str, request: Q) -> Result<A, Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let path = PathAndQuery::try_from(format!("/{}/{method}", self.service))
            .map_err(|error| Status::internal(error.to_string()))?;
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.map_err(|error| Status::unavailable(format!("the model server is gone: {error}")))?;
        Ok(grpc.unary(Request::new(request), path, ProstCodec::default()).await?.into_inner())
    }

    /// Unloads a model; one that is not there is unloaded.
    pub(super) async fn unload(&self, model: &ModelId) -> Result<(), Status> {
        let request = UnloadModelRequest { model_id: model.to_string() };
        match self.call::<_, UnloadModelResponse>("unloadModel", request).await {
            Err(status) if status.code() != Code::NotFound => Err(status),
            _ => Ok(()),
        }
    }
}
