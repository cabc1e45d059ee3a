//! The bytes that say a name at a field path, to be appended to a message: protobuf takes the last value of a field and
//! merges sub-messages, so the reader sees this name wherever another one stood.

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

/// `name` at `path`; nothing for an empty path.
#[must_use]
pub(super) fn tail(path: &[u32], name: &str) -> Option<Bytes> {
    if path.is_empty() {
        return None;
    }
    // Lengths of what lies inside each level, innermost first.
    let mut inside = vec![name.len()];
    for field in path.iter().rev() {
        let length = inside[inside.len() - 1];
        inside.push(key_len(*field) + encoded_len_varint(length as u64) + length);
    }
    let whole = inside.pop()?;
    let mut bytes = BytesMut::with_capacity(whole);
    for (field, length) in path.iter().zip(inside.iter().rev()) {
        encode_key(*field, WireType::LengthDelimited, &mut bytes);
        encode_varint(*length as u64, &mut bytes);
    }
    bytes.put_slice(name.as_bytes());
    Some(bytes.freeze())
}

#[cfg(test)]
mod tests {
    use modelring_proto::inference::{ModelInferRequest, ModelStreamInferResponse};
    use prost::Message;

    use super::*;

    #[test]
    fn a_tail_has_the_last_word() {
        let request = ModelInferRequest { model_name: "asked".into(), id: "7".into(), ..Default::default() };
        let mut bytes = request.encode_to_vec();
        bytes.extend(tail(&[1], &"x".repeat(300)).expect("a path"));
        let read = ModelInferRequest::decode(&*bytes).expect("a message");
        assert_eq!((read.model_name, read.id), ("x".repeat(300), "7".into()));
    }

    #[test]
    fn a_tail_reaches_into_sub_messages() {
        let infer_response = Some(modelring_proto::inference::ModelInferResponse {
            model_name: "concrete".into(),
            id: "7".into(),
            ..Default::default()
        });
        let response = ModelStreamInferResponse { infer_response, ..Default::default() };
        let mut bytes = response.encode_to_vec();
        bytes.extend(tail(&[2, 1], "asked").expect("a path"));
        let read = ModelStreamInferResponse::decode(&*bytes).expect("a message").infer_response.expect("a part");
        assert_eq!((read.model_name, read.id), ("asked".into(), "7".into()));
        assert_eq!(tail(&[], "name"), None);
    }
}
