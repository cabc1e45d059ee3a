//! The way of a REST call: read, decode, call as gRPC, encode.

use std::{cell::Cell, mem, net::IpAddr, num::NonZero, sync::Arc, thread};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use modelring_placement::time::Time;
use modelring_proto::inference::{ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse};
use prost::Message;
use tokio::sync::Semaphore;

use super::{
    compress,
    error::{self, bad, unshowable},
    headers, metadata,
    request::{self, Infer, OutputForm},
    response,
    route::{Model, Route, route},
};
use crate::{
    engine::{
        answer::{Answer, Reason},
        call::{Call, CallAnswer, Caller, Local},
        policy::Head,
    },
    metrics::Metrics,
    net::http::{Body, Collected, HttpHandler, HttpRequest, HttpResponse},
};

/// Bytes that are translated on the request's own thread; more would keep its other calls waiting.
const INLINE: usize = 64 * 1024;

const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
const MODEL_ID: HeaderName = HeaderName::from_static("mm-model-id");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// What REST answers without asking a model server.
pub trait Readiness: Send + Sync + 'static {
    /// Whether the proxy takes calls.
    fn ready(&self) -> bool;

    /// Whether a call of this model would be answered; a cold one is ready, it would be loaded.
    ///
    /// # Errors
    ///
    /// `NM` where there is no such model, else what a call would be answered.
    fn model_ready(&self, name: &str) -> Result<(), Answer>;

    /// Largest message and body, bytes (`grpcMaxMessageSizeBytes`).
    fn max_message(&self) -> usize;
}

/// The REST side of the proxy.
pub struct Rest {
    readiness: Arc<dyn Readiness>,
    infer: Arc<str>,
    metadata: Arc<str>,
    /// How many large bodies are translated at a time: as many as there are CPUs.
    translators: Arc<Semaphore>,
    /// Where answers are counted.
    metrics: Option<Arc<Metrics>>,
}

/// One REST call.
struct Exchange<'a> {
    rest: &'a Rest,
    calls: &'a dyn Caller,
    /// Set when what the caller is told was counted as the end of a call.
    counted: &'a Cell<bool>,
    arrived: Time,
    deadline: Time,
    limit: usize,
    request: HeaderMap,
    /// What of the request's headers the model server gets.
    metadata: HeaderMap,
}

// === impl Rest ===

impl Rest {
    /// A REST side that answers readiness from here.
    #[must_use]
    pub fn new(readiness: Arc<dyn Readiness>) -> Self {
        Self {
            readiness,
            infer: "/inference.GRPCInferenceService/ModelInfer".into(),
            metadata: "/inference.GRPCInferenceService/ModelMetadata".into(),
            translators: Arc::new(Semaphore::new(thread::available_parallelism().map_or(1, NonZero::get))),
            metrics: None,
        }
    }

    /// Counts its own answers there; those of calls are counted as such.
    #[must_use]
    pub fn counting(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    fn refuse(&self, answer: &Answer, counted: bool) -> HttpResponse {
        if let (Some(metrics), Some(reason), false) = (&self.metrics, answer.reason, counted) {
            metrics.answered(reason, answer.code);
        }
        refusal(answer)
    }

    async fn answer(
        &self,
        request: HttpRequest,
        calls: &dyn Caller,
        counted: &Cell<bool>,
    ) -> Result<HttpResponse, Answer> {
        let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
        let route = match route(&request.method, target) {
            Ok(route) => route,
            Err(stray) => {
                let mut response = self.refuse(&stray.answer(), false);
                response.headers.extend(stray.headers());
                return Ok(response);
            }
        };
        match route {
            Route::Server => Ok(json(metadata::server())),
            Route::Live => Ok(json(metadata::live())),
            Route::Ready if self.readiness.ready() => Ok(json(metadata::ready(None))),
            Route::Ready => Err(Answer::new(Reason::TB, "the proxy is not ready yet")),
            Route::ModelReady(model) => {
                self.readiness.model_ready(&model.name)?;
                Ok(json(metadata::ready(Some(&model.name))))
            }
            Route::Metadata(model) => {
                let exchange = Exchange::new(self, calls, counted, request.headers, request.peer)?;
                let (message, answer) = exchange.model_metadata(&model).await?;
                Ok(exchange.respond(answer, metadata::model(&message), JSON))
            }
            Route::Infer(model) => {
                Exchange::new(self, calls, counted, request.headers, request.peer)?.infer(&model, request.body).await
            }
        }
    }
}

impl HttpHandler for Rest {
    fn handle<'a>(&'a self, request: HttpRequest, calls: &'a dyn Caller) -> Local<'a, HttpResponse> {
        Box::pin(async move {
            let counted = Cell::new(false);
            let answered = self.answer(request, calls, &counted).await;
            answered.unwrap_or_else(|answer| self.refuse(&answer, counted.get()))
        })
    }
}

// === impl Exchange ===

impl<'a> Exchange<'a> {
    fn new(
        rest: &'a Rest,
        calls: &'a dyn Caller,
        counted: &'a Cell<bool>,
        request: HeaderMap,
        peer: Option<IpAddr>,
    ) -> Result<Self, Answer> {
        let arrived = calls.now();
        let deadline = headers::timeout(&request)?.map_or(Time::NEVER, |timeout| arrived + timeout);
        let metadata = headers::to_metadata(&request, peer)?;
        let limit = rest.readiness.max_message();
        Ok(Self { rest, calls, counted, arrived, deadline, limit, request, metadata })
    }

    async fn infer(&self, model: &Model, body: Body) -> Result<HttpResponse, Answer> {
        let encoding = compress::of_request(&self.request)?;
        let header_length: Option<usize> = number(&self.request, &HEADER_LENGTH)?;
        let limit = self.limit;
        if number(&self.request, &header::CONTENT_LENGTH)?.is_some_and(|length: usize| length > limit) {
            return Err(Answer::new(Reason::TL, format!("the request body is larger than {limit} bytes")));
        }
        let Collected { bytes: mut body, mut held } = body.collect(limit).await?;
        if let Some(encoding) = encoding {
            body = self.translate(body.len(), move || compress::inflate(encoding, &body, limit)).await?;
            held.resize(body.len())?;
        }
        let (message, form) = if header_length == Some(0) {
            let (metadata, _) = self.model_metadata(model).await?;
            let message = request::raw_input(&metadata, body)?;
            (encode(message, model, limit)?, OutputForm::all_binary())
        } else {
            let model = model.clone();
            let translate = move || {
                let Infer { message, outputs } = request::decode(&body, header_length, limit)?;
                Ok((encode(message, &model, limit)?, outputs))
            };
            self.translate(usize::try_from(held.bytes()).unwrap_or(usize::MAX), translate).await?
        };
        held.resize(message.len())?;
        let answer = self.call(&self.rest.infer, model, message).await?;
        drop(held);
        self.show(answer, form).await
    }

    /// Runs work on so many bytes, aside where they are many.
    async fn translate<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> Result<T, Answer> + Send + 'static,
    ) -> Result<T, Answer> {
        if bytes <= INLINE {
            return work();
        }
        let broken = || Answer::new(Reason::IN, "the call could not be translated");
        let permit = self.rest.translators.clone().acquire_owned().await.map_err(|_| broken())?;
        // The work goes on when the caller goes away; so does its permit.
        let work = move || (work(), drop(permit)).0;
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(broken()))
    }

    async fn model_metadata(&self, model: &Model) -> Result<(ModelMetadataResponse, CallAnswer), Answer> {
        let message = ModelMetadataRequest { name: model.name.clone(), version: model.version.clone() };
        let answer = self.call(&self.rest.metadata, model, message.encode_to_vec().into()).await?;
        let metadata = ModelMetadataResponse::decode(answer.message.clone()).map_err(|e| undecodable(&e))?;
        Ok((metadata, answer))
    }

    async fn call(&self, path: &Arc<str>, model: &Model, message: Bytes) -> Result<CallAnswer, Answer> {
        let head = Head {
            path: path.clone(),
            headers: self.metadata.clone(),
            deadline: self.deadline,
            arrived: self.arrived,
            noted: crate::engine::policy::Noted::new(),
        };
        let name = Some(Bytes::copy_from_slice(model.name.as_bytes()));
        let answer = self.calls.call(Call { head, name, message }).await;
        self.counted.set(answer.is_err());
        answer
    }

    /// The answer of a model in the form that the caller wants.
    async fn show(&self, mut answer: CallAnswer, form: OutputForm) -> Result<HttpResponse, Answer> {
        let message = mem::take(&mut answer.message);
        let wanted = compress::of_response(&self.request);
        let translate = move || {
            let message = ModelInferResponse::decode(message).map_err(|e| undecodable(&e))?;
            let mut encoded = response::encode(&message, &form)?;
            let encoding = wanted.filter(|_| encoded.body.len() >= compress::WORTHWHILE);
            if let Some(encoding) = encoding {
                encoded.body = compress::deflate(encoding, &encoded.body).map_err(|e| unshowable(e.to_string()))?;
            }
            Ok((encoded, encoding))
        };
        let size = usize::try_from(answer.held.bytes()).unwrap_or(usize::MAX);
        let (encoded, encoding) = self.translate(size, translate).await?;
        answer.held.resize(encoded.body.len())?;
        let content_type = if encoded.header_length.is_some() { OCTETS } else { JSON };
        let mut response = self.respond(answer, encoded.body, content_type);
        if let Some(length) = encoded.header_length {
            response.headers.insert(HEADER_LENGTH, HeaderValue::from(length));
        }
        if let Some(encoding) = encoding {
            response.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding.as_str()));
            response.headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        }
        Ok(response)
    }

    fn respond(&self, answer: CallAnswer, body: Vec<u8>, content_type: HeaderValue) -> HttpResponse {
        let mut headers = headers::from_metadata(&answer.headers);
        headers.insert(header::CONTENT_TYPE, content_type);
        if let Some(id) = answer.headers.get(&MODEL_ID) {
            headers.insert(MODEL_ID, id.clone());
        }
        let trailers = headers::from_trailers(&self.request, &answer.trailers).unwrap_or_default();
        HttpResponse { headers, trailers, held: vec![answer.held], ..HttpResponse::new(StatusCode::OK, body) }
    }
}

/// The message as it is sent.
fn encode(mut message: ModelInferRequest, model: &Model, limit: usize) -> Result<Bytes, Answer> {
    message.model_name.clone_from(&model.name);
    message.model_version.clone_from(&model.version);
    let size = message.encoded_len();
    if size > limit {
        let text = format!("the request takes {size} bytes as a gRPC message, more than {limit}");
        return Err(Answer::new(Reason::TL, text));
    }
    Ok(message.encode_to_vec().into())
}

/// A header that is a number.
fn number(headers: &HeaderMap, name: &HeaderName) -> Result<Option<usize>, Answer> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    number.map(Some).ok_or_else(|| bad(format!("header {name} is not a number of bytes")))
}

fn json(body: Vec<u8>) -> HttpResponse {
    let mut response = HttpResponse::new(StatusCode::OK, body);
    response.headers.insert(header::CONTENT_TYPE, JSON);
    response
}

fn refusal(answer: &Answer) -> HttpResponse {
    let status = StatusCode::from_u16(answer.http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response =
        HttpResponse { headers: error::headers(answer), ..HttpResponse::new(status, error::body(answer)) };
    response.headers.insert(header::CONTENT_TYPE, JSON);
    response
}

fn undecodable(error: &prost::DecodeError) -> Answer {
    unshowable(format!("the model server's answer is no such message: {error}"))
}
