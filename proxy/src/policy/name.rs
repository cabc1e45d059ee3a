//! Which model a call names: by the id in its message, else by its headers.

use std::{borrow::Cow, sync::Arc};

use base64::{
    Engine,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{HeaderMap, HeaderValue};

use crate::engine::answer::{Answer, Reason};

/// Takes padded and unpadded forms, as gRPC asks for.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a caller asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A concrete model by its id.
    Model(Arc<str>),
    /// A vmodel by its name.
    VModel(Arc<str>),
}

// === impl Asked ===

impl Asked {
    /// The name that a message carried.
    ///
    /// # Errors
    ///
    /// It is not UTF-8.
    pub fn from_message(name: &[u8], vmodel: bool) -> Result<Self, Answer> {
        let name = str::from_utf8(name).map_err(|_| bad("the id in the message is not UTF-8"))?;
        Ok(if vmodel { Self::VModel(name.into()) } else { Self::Model(name.into()) })
    }

    /// The name that the headers carry.
    ///
    /// # Errors
    ///
    /// There is none, or an empty one, or more than one, or one that is no text.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, Answer> {
        let model = id(headers, "mm-model-id", "mm-model-id-bin")?;
        let vmodel = id(headers, "mm-vmodel-id", "mm-vmodel-id-bin")?;
        let legacy = || single(headers, "tas-model-id").and_then(|id| id.map(text).transpose());
        match (model, vmodel) {
            (Some(_), Some(_)) => Err(bad("must include only one of model id and vmodel id")),
            (None, Some(name)) if name.is_empty() => Err(bad("provided vmodel-id header must be non-empty")),
            (None, Some(name)) => Ok(Self::VModel(name.as_ref().into())),
            (model, None) => match model.map_or_else(legacy, |id| Ok(Some(id)))? {
                None => Err(bad("must include mm-model-id header")),
                Some(id) if id.is_empty() => Err(bad("provided model-id header must be non-empty")),
                Some(id) => Ok(Self::Model(id.as_ref().into())),
            },
        }
    }

    /// Whether the headers name anything, well or badly.
    #[must_use]
    pub fn is_in(headers: &HeaderMap) -> bool {
        ["mm-model-id", "mm-vmodel-id", "mm-model-id-bin", "mm-vmodel-id-bin", "tas-model-id"]
            .iter()
            .any(|name| headers.contains_key(*name))
    }

    /// The name as the caller gave it.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        match self {
            Self::Model(name) | Self::VModel(name) => name,
        }
    }
}

/// The base64 form in which `-bin` headers carry bytes.
#[must_use]
pub(super) fn binary(id: &str) -> String {
    BASE64.encode(id)
}

/// An id by its header, or where that is absent by the binary form of it.
fn id<'h>(headers: &'h HeaderMap, plain: &str, bin: &str) -> Result<Option<Cow<'h, str>>, Answer> {
    if let Some(value) = single(headers, plain)? {
        return text(value).map(Some);
    }
    let Some(value) = single(headers, bin)? else { return Ok(None) };
    if value.as_bytes().contains(&b',') {
        return Err(repeated());
    }
    let bytes = BASE64.decode(value.as_bytes()).map_err(|_| bad(format!("header {bin} is not base64")))?;
    let id = String::from_utf8(bytes).map_err(|_| bad(format!("header {bin} is not UTF-8")))?;
    Ok(Some(id.into()))
}

fn single<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h HeaderValue>, Answer> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(repeated()),
        (value, None) => Ok(value),
    }
}

fn text(value: &HeaderValue) -> Result<Cow<'_, str>, Answer> {
    value.to_str().map(Cow::Borrowed).map_err(|_| bad("an id header has characters that need its -bin form"))
}

fn repeated() -> Answer {
    Answer::new(
        Reason::MN,
        "an id header was repeated: calls of several models at once are not offered, send one per model",
    )
}

fn bad(text: impl Into<String>) -> Answer {
    Answer::new(Reason::BR, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(headers: &[(&'static str, &'static str)]) -> Result<Asked, (u32, String)> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        Asked::from_headers(&map).map_err(|answer| (answer.code, answer.text))
    }

    fn model(id: &str) -> Result<Asked, (u32, String)> {
        Ok(Asked::Model(id.into()))
    }

    #[test]
    fn header_mm_model_id_names_a_model_and_mm_vmodel_id_a_vmodel() {
        assert_eq!(asked(&[("mm-model-id", "m")]), model("m"));
        assert_eq!(asked(&[("mm-vmodel-id", "v")]), Ok(Asked::VModel("v".into())));
    }

    #[test]
    fn a_bin_header_is_read_only_when_the_plain_one_is_absent() {
        assert_eq!(asked(&[("mm-model-id-bin", "bcO8bGw")]), model("müll"));
        assert_eq!(asked(&[("mm-model-id-bin", "bQ==")]), model("m"), "padded");
        assert_eq!(asked(&[("mm-model-id-bin", "bQ"), ("mm-model-id", "n")]), model("n"));
        assert_eq!(asked(&[("mm-vmodel-id-bin", "dg")]), Ok(Asked::VModel("v".into())));
        assert_eq!(asked(&[("mm-model-id-bin", "!")]).map_err(|(code, _)| code), Err(3));
    }

    #[test]
    fn the_legacy_header_counts_only_when_no_other_is_there() {
        assert_eq!(asked(&[("tas-model-id", "m")]), model("m"));
        assert_eq!(asked(&[("tas-model-id", "m"), ("mm-vmodel-id-bin", "dg")]), Ok(Asked::VModel("v".into())));
        assert_eq!(asked(&[("tas-model-id", "m"), ("mm-model-id", "n")]), model("n"));
    }

    #[test]
    fn both_kinds_none_and_empty_are_answered_with_their_texts() {
        let bad = |text: &str| Err((3, text.to_owned()));
        let both = [("mm-model-id", "m"), ("mm-vmodel-id", "v")];
        assert_eq!(asked(&both), bad("must include only one of model id and vmodel id"));
        assert_eq!(asked(&[]), bad("must include mm-model-id header"));
        assert_eq!(asked(&[("mm-model-id", "")]), bad("provided model-id header must be non-empty"));
        assert_eq!(asked(&[("mm-vmodel-id", "")]), bad("provided vmodel-id header must be non-empty"));
    }

    #[test]
    fn a_repeated_id_header_is_unimplemented() {
        assert_eq!(asked(&[("mm-model-id", "m"), ("mm-model-id", "n")]).map_err(|(code, _)| code), Err(12));
        assert_eq!(asked(&[("mm-vmodel-id-bin", "dg,dg")]).map_err(|(code, _)| code), Err(12));
    }
}
