//! Calls that a service of the proxy itself answers (health, reflection, management): body adapters between the
//! caller's end and tonic.

use std::{
    cell::RefCell,
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::HeaderMap;
use http_body::{Body as _, Frame};
use tokio::sync::mpsc;
use tonic::{body::Body, codegen::Service, service::Routes};

use super::{
    answer::{Answer, Reason},
    budget::Held,
    client::Client,
    drive::End,
    headers,
    policy::Head,
    request::Request,
};

/// A call to a service in the process.
pub(super) struct Local<'a, C> {
    pub head: &'a Head,
    pub client: &'a mut C,
    pub request: &'a mut Request,
    pub held: &'a mut Held,
}

/// A request body that is fed from the caller's end.
struct Fed(mpsc::Receiver<Bytes>);

// === impl Local ===

impl<C: Client> Local<'_, C> {
    pub(super) async fn serve(self, mut routes: Routes) -> End {
        let (feed, body) = mpsc::channel(1);
        let mut request = http::Request::new(Body::new(Fed(body)));
        *request.method_mut() = http::Method::POST;
        *request.version_mut() = http::Version::HTTP_2;
        *request.headers_mut() = self.head.headers.clone();
        match self.head.path.parse() {
            Ok(uri) => *request.uri_mut() = uri,
            Err(_) => return Answer::new(Reason::BR, "the path of the call is not valid").into(),
        }
        // The request was made plain on its way here.
        request.headers_mut().remove("grpc-encoding");
        request.headers_mut().remove("grpc-accept-encoding");
        let client = RefCell::new(self.client);
        let upload = pin!(upload(&client, self.request, self.held, feed));
        let download = pin!(async {
            let Ok(response) = routes.call(request).await;
            download(&client, response).await
        });
        match select(upload, download).await {
            Either::Left((end, _)) | Either::Right((end, _)) => end,
        }
    }
}

/// Feeds the request; ends only if the caller goes or breaks a rule.
async fn upload<C: Client>(
    client: &RefCell<&mut C>,
    request: &mut Request,
    held: &mut Held,
    feed: mpsc::Sender<Bytes>,
) -> End {
    let mut feed = Some(feed);
    request.forget();
    loop {
        // A permit first: what cannot be fed stays in the window.
        let permit = match &feed {
            Some(feed) => feed.clone().reserve_owned().await.ok(),
            None => None,
        };
        let piece = poll_fn(|cx| {
            let client = &mut **client.borrow_mut();
            if client.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(End::Gone));
            }
            if let Err(broken) = request.poll_read(client, cx) {
                return Poll::Ready(Err(broken.into()));
            }
            if let Err(spent) = held.charge(request.cost()) {
                return Poll::Ready(Err(End::Answer(spent.into())));
            }
            match request.next() {
                Some(piece) => {
                    request.passed(client, piece.len(), true);
                    Poll::Ready(Ok(Some(piece)))
                }
                None if request.is_ended() && feed.is_some() => Poll::Ready(Ok(None)),
                None => Poll::Pending,
            }
        });
        match (piece.await, permit) {
            (Err(end), _) => return end,
            (Ok(Some(piece)), Some(permit)) => {
                permit.send(piece);
            }
            // The end of the request, or a service that reads no more.
            (Ok(_), _) => feed = None,
        }
    }
}

/// Passes the response on.
async fn download<C: Client>(client: &RefCell<&mut C>, response: http::Response<Body>) -> End {
    let (head, body) = response.into_parts();
    let mut body = pin!(body);
    let mut code = headers::code(&head.headers);
    if client.borrow_mut().headers(head.headers, body.is_end_stream()).is_err() {
        return End::Gone;
    }
    if body.is_end_stream() {
        return End::Done { code: code.unwrap_or(0) };
    }
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let Ok(frame) = frame else { return Answer::new(Reason::IN, "a service of the proxy failed").into() };
        let frame = match frame.into_data() {
            Ok(data) => match send(client, data).await {
                Ok(()) => continue,
                Err(end) => return end,
            },
            Err(frame) => frame,
        };
        if let Ok(trailers) = frame.into_trailers() {
            code = headers::code(&trailers);
            return end(client, code, |client| client.trailers(trailers));
        }
    }
    end(client, code, |client| client.trailers(HeaderMap::new()))
}

async fn send<C: Client>(client: &RefCell<&mut C>, mut data: Bytes) -> Result<(), End> {
    while !data.is_empty() {
        let room = poll_fn(|cx| client.borrow_mut().poll_room(data.len(), cx)).await;
        let piece = data.split_to(room.map_err(|_| End::Gone)?);
        client.borrow_mut().data(piece, false).map_err(|_| End::Gone)?;
    }
    Ok(())
}

fn end<C: Client>(
    client: &RefCell<&mut C>,
    code: Option<u32>,
    last: impl FnOnce(&mut C) -> Result<(), super::client::Gone>,
) -> End {
    match last(*client.borrow_mut()) {
        Ok(()) => End::Done { code: code.unwrap_or(2) },
        Err(_) => End::Gone,
    }
}

// === impl Fed ===

impl http_body::Body for Fed {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}
