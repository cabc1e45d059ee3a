//! Method and path -> what is asked.

use http::{HeaderMap, HeaderValue, Method, header};

use super::error::bad;
use crate::engine::answer::{Answer, Reason};

/// What a REST call asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `GET /v2`: what this is.
    Server,
    /// `GET /v2/health/live`: does it live.
    Live,
    /// `GET /v2/health/ready`: does it take calls.
    Ready,
    /// `GET /v2/models/{name}[/versions/{version}]`, or with `?version=`.
    Metadata(Model),
    /// `GET /v2/models/{name}[/versions/{version}]/ready`.
    ModelReady(Model),
    /// `POST /v2/models/{name}[/versions/{version}]/infer`.
    Infer(Model),
}

/// A model by the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// The name that the caller uses.
    pub name: String,
    /// The version, empty where none is asked for.
    pub version: String,
}

/// A path that leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stray {
    /// There is nothing.
    NotFound,
    /// There is something, for this method.
    Method(Method),
    /// Models are managed elsewhere.
    Repository,
    /// The path is no text.
    Malformed,
}

/// Finds out what is asked. `target` is the path with its query.
///
/// A name and a version are one segment each, after percent-decoding; so an encoded slash in one matches nothing, and
/// neither does a slash at the end, but for `/v2/`.
///
/// # Errors
///
/// See [`Stray`].
pub fn route(method: &Method, target: &str) -> Result<Route, Stray> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = path.strip_prefix('/').ok_or(Stray::NotFound)?;
    let segments: Vec<String> =
        path.split('/').map(|segment| decode(segment, false)).collect::<Option<_>>().ok_or(Stray::Malformed)?;
    if segments.iter().any(|segment| segment.contains('/')) {
        return Err(Stray::NotFound);
    }
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();

    let (allowed, route) = match segments.as_slice() {
        ["v2"] | ["v2", ""] => (Method::GET, Route::Server),
        ["v2", "health", "live"] => (Method::GET, Route::Live),
        ["v2", "health", "ready"] => (Method::GET, Route::Ready),
        ["v2", "repository", ..] => return Err(Stray::Repository),
        ["v2", "models", name, rest @ ..] if !name.is_empty() => {
            let (version, verb) = match rest {
                ["versions", version, verb @ ..] if !version.is_empty() => (Some(*version), verb),
                verb => (None, verb),
            };
            let model = |version: String| Model { name: (*name).to_owned(), version };
            let named = version.unwrap_or_default().to_owned();
            match verb {
                [] => {
                    let asked = version.is_none().then(|| query_value(query, "version")).flatten();
                    (Method::GET, Route::Metadata(model(asked.unwrap_or(named))))
                }
                ["ready"] => (Method::GET, Route::ModelReady(model(named))),
                ["infer"] => (Method::POST, Route::Infer(model(named))),
                _ => return Err(Stray::NotFound),
            }
        }
        _ => return Err(Stray::NotFound),
    };
    if method == allowed { Ok(route) } else { Err(Stray::Method(allowed)) }
}

/// Decodes percent signs, and plus signs where it is a form's; `None` where that gives no text.
fn decode(text: &str, form: bool) -> Option<String> {
    if !(text.contains('%') || form && text.contains('+')) {
        return Some(text.to_owned());
    }
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            b'+' if form => b' ',
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

fn query_value(query: &str, key: &str) -> Option<String> {
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let (_, value) = pairs.find(|(name, _)| decode(name, true).as_deref() == Some(key))?;
    decode(value, true)
}

// === impl Stray ===

impl Stray {
    /// What the caller is told.
    #[must_use]
    pub fn answer(&self) -> Answer {
        match self {
            Self::NotFound => Answer { code: 5, http: 404, ..Answer::new(Reason::MN, "Not Found") },
            Self::Method(_) => Answer { http: 405, ..Answer::new(Reason::MN, "Method Not Allowed") },
            Self::Repository => Answer::new(
                Reason::MN,
                "models are managed by InferenceService and Predictor resources, not through the repository API",
            ),
            Self::Malformed => bad("the path is not percent-encoded UTF-8"),
        }
    }

    /// Headers that go with it.
    #[must_use]
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Self::Method(allowed) = self
            && let Ok(allowed) = HeaderValue::from_str(allowed.as_str())
        {
            headers.insert(header::ALLOW, allowed);
        }
        headers
    }
}
