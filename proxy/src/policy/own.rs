//! The services that the proxy answers itself: whether it lives and is ready, what it is, what it offers.

use std::pin::Pin;

use futures_util::Stream;
use modelring_proto::{
    FILE_DESCRIPTOR_SET,
    inference::{
        self,
        grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer},
    },
};
use tonic::{Request, Response, Status, Streaming, service::Routes};
use tonic_health::pb::{
    FILE_DESCRIPTOR_SET as HEALTH,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
    {HealthCheckRequest, HealthCheckResponse},
};

use super::{Asked, Mesh};

/// All of them.
///
/// # Errors
///
/// The descriptors that are built in cannot be read: a defect of ours.
pub fn services(mesh: &Mesh) -> Result<Routes, tonic_reflection::server::Error> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(HEALTH)
            .with_service_name("inference.GRPCInferenceService")
            .with_service_name("grpc.health.v1.Health")
    };
    Ok(Routes::new(GrpcInferenceServiceServer::new(Own(mesh.clone())))
        .add_service(HealthServer::new(Own(mesh.clone())))
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?))
}

#[derive(Clone)]
struct Own(Mesh);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

// === impl Own ===

impl Own {
    fn serving(&self) -> ServingStatus {
        if self.0.0.fleet.is_ready() { ServingStatus::Serving } else { ServingStatus::NotServing }
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for Own {
    async fn server_live(
        &self,
        _: Request<inference::ServerLiveRequest>,
    ) -> Result<Response<inference::ServerLiveResponse>, Status> {
        Ok(Response::new(inference::ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<inference::ServerReadyRequest>,
    ) -> Result<Response<inference::ServerReadyResponse>, Status> {
        Ok(Response::new(inference::ServerReadyResponse { ready: self.0.0.fleet.is_ready() }))
    }

    async fn server_metadata(
        &self,
        _: Request<inference::ServerMetadataRequest>,
    ) -> Result<Response<inference::ServerMetadataResponse>, Status> {
        Ok(Response::new(inference::ServerMetadataResponse {
            name: "modelring".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            extensions: vec!["binary_tensor_data".into()],
        }))
    }

    async fn model_ready(
        &self,
        request: Request<inference::ModelReadyRequest>,
    ) -> Result<Response<inference::ModelReadyResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let asked = match message.name.as_str() {
            "" => Asked::from_headers(&metadata.into_headers()),
            name => Ok(Asked::VModel(name.into())),
        };
        let asked = asked.map_err(|answer| Status::new(i32::try_from(answer.code).unwrap_or(2).into(), answer.text))?;
        Ok(Response::new(inference::ModelReadyResponse { ready: self.0.is_model_ready(&asked).is_ok() }))
    }

    async fn model_metadata(
        &self,
        _: Request<inference::ModelMetadataRequest>,
    ) -> Result<Response<inference::ModelMetadataResponse>, Status> {
        Err(elsewhere())
    }

    async fn model_infer(
        &self,
        _: Request<inference::ModelInferRequest>,
    ) -> Result<Response<inference::ModelInferResponse>, Status> {
        Err(elsewhere())
    }

    type ModelStreamInferStream = Answers<inference::ModelStreamInferResponse>;

    async fn model_stream_infer(
        &self,
        _: Request<Streaming<inference::ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        Err(elsewhere())
    }

    async fn repository_index(
        &self,
        _: Request<inference::RepositoryIndexRequest>,
    ) -> Result<Response<inference::RepositoryIndexResponse>, Status> {
        Err(elsewhere())
    }

    async fn repository_model_load(
        &self,
        _: Request<inference::RepositoryModelLoadRequest>,
    ) -> Result<Response<inference::RepositoryModelLoadResponse>, Status> {
        Err(elsewhere())
    }

    async fn repository_model_unload(
        &self,
        _: Request<inference::RepositoryModelUnloadRequest>,
    ) -> Result<Response<inference::RepositoryModelUnloadResponse>, Status> {
        Err(elsewhere())
    }
}

#[tonic::async_trait]
impl Health for Own {
    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse { status: self.serving().into() }))
    }

    type WatchStream = Answers<HealthCheckResponse>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let own = self.clone();
        let mut ready = self.0.0.fleet.ready();
        Ok(Response::new(Box::pin(async_stream::stream! {
            loop {
                ready.borrow_and_update();
                yield Ok(HealthCheckResponse { status: own.serving().into() });
                if ready.changed().await.is_err() {
                    return;
                }
            }
        })))
    }
}

/// The policy sends these to model servers or refuses them; they do not come here.
fn elsewhere() -> Status {
    Status::unimplemented("not answered by the proxy itself")
}
