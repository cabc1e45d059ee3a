//! The name walker and the tail, against prost's own reading of the same bytes.

use bytes::Bytes;
use modelring_proto::inference::{ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use modelring_proxy::engine::{
    name::{Look, Walker},
    pieces::Pieces,
    tail::{Tail, TooLarge, suffix},
};
use proptest::prelude::*;
use prost::Message;

use crate::raw::framed;

fn walk(path: &[u32], pieces: impl IntoIterator<Item = Bytes>) -> Look {
    let mut walker = Walker::new(path.into());
    for piece in pieces {
        match walker.feed(&piece) {
            Look::More => {}
            look => return look,
        }
    }
    walker.finish()
}

fn append(suffix: &Bytes, limit: usize, pieces: impl IntoIterator<Item = Bytes>) -> Result<(Vec<u8>, bool), TooLarge> {
    let (mut tail, mut out) = (Tail::new(suffix.clone(), limit), Pieces::default());
    for piece in pieces {
        tail.push(piece, &mut out)?;
    }
    let mut bytes = Vec::new();
    while !out.is_empty() {
        bytes.extend_from_slice(&out.take(usize::MAX));
    }
    Ok((bytes, tail.is_whole()))
}

/// The messages of a wire image.
fn messages(mut wire: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let [0, a, b, c, d, rest @ ..] = wire {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        messages.push(rest[..length].to_vec());
        wire = &rest[length..];
    }
    assert!(wire.is_empty());
    messages
}

fn chunks(wire: &Bytes, sizes: &[usize]) -> Vec<Bytes> {
    let (mut wire, mut chunks) = (wire.clone(), Vec::new());
    for size in sizes.iter().cycle() {
        if wire.is_empty() {
            break;
        }
        chunks.push(wire.split_to(wire.len().min(*size)));
    }
    chunks
}

/// The same by a plain reading of a message that is there as a whole; `None` = no message with such a field.
fn read_plainly(mut message: &[u8], path: &[u32]) -> Option<Option<Vec<u8>>> {
    let varint = |bytes: &mut &[u8]| -> Option<u64> {
        let mut value = 0;
        for at in 0..10 {
            let (byte, rest) = bytes.split_first()?;
            *bytes = rest;
            if at == 9 && *byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    };
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let (number, wire) = (tag >> 3, tag & 7);
        let is_it = number == u64::from(path[0]);
        if number == 0 || number > 0x1fff_ffff || is_it && wire != 2 {
            return None;
        }
        let length = match wire {
            0 => {
                varint(&mut message)?;
                0
            }
            1 => 8,
            2 => varint(&mut message)?,
            5 => 4,
            _ => return None,
        };
        let (field, rest) = message.split_at_checked(usize::try_from(length).ok()?)?;
        match path {
            [_] if is_it => return Some(Some(field.to_vec())),
            [_, rest @ ..] if is_it => return read_plainly(field, rest),
            _ => message = rest,
        }
    }
    Some(None)
}

/// Fields of any kind, some of them messages again.
fn fields(depth: u32) -> BoxedStrategy<Vec<u8>> {
    let number = 1u8..5;
    let field = (number, 0u8..4, prop::collection::vec(any::<u8>(), 0..12));
    let plain = field.prop_map(|(number, kind, bytes)| match kind {
        0 => vec![number << 3, bytes.first().copied().unwrap_or(0) & 0x7f],
        1 => [vec![number << 3 | 1], vec![7; 8]].concat(),
        2 => [vec![number << 3 | 5], vec![7; 4]].concat(),
        _ => [vec![number << 3 | 2, bytes.len() as u8], bytes].concat(),
    });
    if depth == 0 {
        return prop::collection::vec(plain, 0..4).prop_map(|fields| fields.concat()).boxed();
    }
    let nested = (1u8..5, fields(depth - 1)).prop_map(|(number, inner)| {
        let mut bytes = vec![number << 3 | 2];
        prost::encoding::encode_varint(inner.len() as u64, &mut bytes);
        [bytes, inner].concat()
    });
    prop::collection::vec(prop_oneof![plain, nested], 0..4).prop_map(|fields| fields.concat()).boxed()
}

prop_compose! {
    /// A message, perhaps damaged: a byte changed, or its end cut off.
    fn a_message()(
        message in fields(3), damage in 0u8..4, at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) -> Vec<u8> {
        let mut message = message;
        if !message.is_empty() {
            let at = at.index(message.len());
            match damage {
                0 => message[at] = byte,
                1 => message.truncate(at),
                _ => {}
            }
        }
        message
    }
}

prop_compose! {
    fn a_request()(
        model_name in "[a-zé]{0,12}", model_version in "[0-9]{0,3}", id in ".{0,40}",
        raw in prop::collection::vec(any::<u8>(), 0..300),
    ) -> ModelInferRequest {
        ModelInferRequest {
            model_name, model_version, id, raw_input_contents: vec![raw.into()], ..ModelInferRequest::default()
        }
    }
}

proptest! {
    /// Parts of a request in any order are one message; the first part with a name has the name.
    #[test]
    fn the_first_name_is_found_at_every_split_and_in_any_order(
        parts in prop::collection::vec(a_request(), 1..4), sizes in prop::collection::vec(1usize..40, 1..5),
    ) {
        let message = parts.iter().rev().flat_map(|part| {
            // Each field by itself, the name last.
            let name = ModelInferRequest { model_name: part.model_name.clone(), ..ModelInferRequest::default() };
            let rest = ModelInferRequest { model_name: String::new(), ..part.clone() };
            [rest.encode_to_vec(), name.encode_to_vec()].concat()
        }).collect::<Vec<_>>();
        let expected = parts.iter().rev().map(|part| &part.model_name).find(|name| !name.is_empty());
        let expected = expected.map_or(Look::Absent, |name| Look::Name(name.clone().into_bytes()));
        prop_assert_eq!(walk(&[1], chunks(&framed(0, &message), &sizes)), expected);
    }

    #[test]
    fn a_nested_name_is_found(error in ".{0,20}", name in "[a-z]{1,12}", sizes in prop::collection::vec(1usize..9, 1..5)) {
        let infer_response = Some(ModelInferResponse { model_name: name.clone(), ..ModelInferResponse::default() });
        let message = ModelStreamInferResponse { error_message: error, infer_response }.encode_to_vec();
        prop_assert_eq!(walk(&[2, 1], chunks(&framed(0, &message), &sizes)), Look::Name(name.into_bytes()));
    }

    #[test]
    fn the_walker_agrees_with_itself_on_any_bytes_at_any_split(
        bytes in prop::collection::vec(any::<u8>(), 0..200), path in prop::collection::vec(1u32..4, 0..3),
        sizes in prop::collection::vec(1usize..20, 1..5), framing in any::<bool>(),
    ) {
        let wire = if framing { framed(0, &bytes) } else { Bytes::from(bytes) };
        let whole = walk(&path, [wire.clone()]);
        prop_assert_eq!(walk(&path, chunks(&wire, &sizes)), whole);
    }

    #[test]
    fn the_walker_finds_what_a_plain_reading_finds(
        message in a_message(), path in prop::collection::vec(1u32..5, 1..4), sizes in prop::collection::vec(1usize..9, 1..5),
    ) {
        let walked = match walk(&path, chunks(&framed(0, &message), &sizes)) {
            Look::Name(name) => Some(Some(name)),
            Look::Absent => Some(None),
            Look::Malformed(_) => None,
            look => panic!("{look:?} of a small message"),
        };
        prop_assert_eq!(walked, read_plainly(&message, &path));
    }

    #[test]
    fn the_appended_value_is_what_prost_reads_and_all_else_is_unchanged(
        requests in prop::collection::vec(a_request(), 1..4), id in "[a-z_0-9]{1,60}",
        sizes in prop::collection::vec(1usize..300, 1..5),
    ) {
        let wire = requests.iter().flat_map(|request| framed(0, &request.encode_to_vec())).collect::<Bytes>();
        let (out, whole) = append(&suffix(&[1], id.as_bytes()), 1 << 20, chunks(&wire, &sizes)).expect("fits");
        prop_assert!(whole);
        let read = messages(&out).iter().map(|it| ModelInferRequest::decode(&it[..]).expect("valid")).collect::<Vec<_>>();
        let expected = requests.into_iter().map(|request| ModelInferRequest { model_name: id.clone(), ..request });
        prop_assert_eq!(read, expected.collect::<Vec<_>>());
    }

    /// Fields that nobody knows, and an id that was right already, too.
    #[test]
    fn a_message_passes_byte_for_byte_with_the_id_behind_it(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..4), id in "[a-z_0-9]{1,60}",
        right in any::<bool>(), sizes in prop::collection::vec(1usize..300, 1..5),
    ) {
        let suffix = suffix(&[1], id.as_bytes());
        let ends = if right { &suffix[..] } else { &[] };
        let sent: Vec<Vec<u8>> = parts.iter().map(|part| [part, ends].concat()).collect();
        let wire = sent.iter().flat_map(|message| framed(0, message)).collect::<Bytes>();
        let (out, _) = append(&suffix, 1 << 20, chunks(&wire, &sizes)).expect("fits");
        let expected: Vec<Vec<u8>> = sent.iter().map(|message| [message, &suffix[..]].concat()).collect();
        prop_assert_eq!(messages(&out), expected);
    }

    #[test]
    fn the_tail_never_panics_and_loses_no_byte_of_what_it_takes(
        bytes in prop::collection::vec(any::<u8>(), 0..200), sizes in prop::collection::vec(1usize..20, 1..5),
    ) {
        let wire = Bytes::from(bytes);
        let whole = append(&Bytes::new(), 1 << 10, [wire.clone()]);
        let split = append(&Bytes::new(), 1 << 10, chunks(&wire, &sizes));
        prop_assert_eq!(&split, &whole);
        if let Ok((out, _)) = whole {
            prop_assert!(wire.starts_with(&out) && wire.len() - out.len() < 5);
        }
    }
}

#[test]
fn nested_paths_merge_into_what_is_there() {
    let response = ModelInferResponse { id: "seven".into(), model_name: "concrete".into(), ..Default::default() };
    let message = ModelStreamInferResponse { error_message: "none".into(), infer_response: Some(response) };
    let (out, _) = append(&suffix(&[2, 1], b"asked"), 1 << 20, [framed(0, &message.encode_to_vec())]).expect("fits");
    let read = ModelStreamInferResponse::decode(&messages(&out)[0][..]).expect("valid");
    let response = read.infer_response.expect("is there");
    assert_eq!((&*read.error_message, &*response.id, &*response.model_name), ("none", "seven", "asked"));
    assert_eq!(suffix(&[1, 1], b"abc"), Bytes::from_static(b"\x0a\x05\x0a\x03abc"));
}

#[test]
fn a_message_over_the_limit_is_refused_by_its_prefix() {
    let prefix = framed(0, &[7; 100]).slice(..5);
    assert_eq!(append(&Bytes::new(), 99, [prefix.clone()]), Err(TooLarge { length: 100, limit: 99 }));
    assert!(append(&Bytes::new(), 100, [prefix]).is_ok());
    let largest = Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff]);
    assert!(append(&suffix(&[1], b"a"), usize::MAX, [largest]).is_err());
}
