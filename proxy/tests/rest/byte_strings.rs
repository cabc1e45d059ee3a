//! BYTES in JSON requests.

use crate::support::{body, byte_strings, contents, input, refused};

fn bytes(shape: &str, data: &str) -> Vec<bytes::Bytes> {
    contents("BYTES", shape, data).bytes_contents
}

fn bytes_of_type(content_type: &str, data: &str) -> Vec<bytes::Bytes> {
    let json = format!(
        r#"{{"inputs":[{{"name":"x","datatype":"BYTES","shape":[1],
            "parameters":{{"content_type":"{content_type}"}},"data":{data}}}]}}"#
    );
    let input = input(&json);
    assert!(input.parameters.contains_key("content_type"), "the parameter is forwarded");
    input.contents.expect("typed").bytes_contents
}

#[test]
fn strings_are_flat_or_nested_to_the_rank() {
    let two = byte_strings(&[b"a", "é".as_bytes()]);
    assert_eq!(bytes("[2]", r#"["a","é"]"#), two);
    assert_eq!(bytes("[2,1]", r#"["a","é"]"#), two);
    assert_eq!(bytes("[2,1]", r#"[["a"],["é"]]"#), two);
    assert_eq!(bytes("[1,2,1]", r#"[[["a"],["é"]]]"#), two);
    assert_eq!(bytes("[0]", "[]"), byte_strings(&[]));
    assert_eq!(bytes("[2,0]", "[[],[]]"), byte_strings(&[]));
}

#[test]
fn strings_nested_otherwise_are_refused() {
    for (shape, data) in [
        ("[1]", r#"[["a"]]"#),
        ("[1,1,1]", r#"[["a"]]"#),
        ("[1,1]", r#"[[["a"]]]"#),
        ("[2,1]", r#"[["a"],"b"]"#),
        ("[2]", r#"["a",["b"]]"#),
    ] {
        assert_eq!(refused(&body("BYTES", shape, data)), "data array nesting does not match tensor shape", "{data}");
    }
}

#[test]
fn more_strings_than_the_shape_are_refused_and_fewer_accepted() {
    let text = "more strings than expected for tensor shape";
    assert_eq!(refused(&body("BYTES", "[2]", r#"["a","b","c"]"#)), text);
    assert_eq!(refused(&body("BYTES", "[1,1]", r#"[["a","b"]]"#)), text);
    assert_eq!(bytes("[3]", r#"["a"]"#), byte_strings(&[b"a"]));
}

#[test]
fn anything_but_strings_among_strings_is_refused() {
    for data in [r#"["a",1]"#, r#"["a",null]"#, r#"["a",{}]"#, "[null]", "[{}]", "[true]"] {
        let text = refused(&body("BYTES", "[2]", data));
        assert_eq!(text, "tensor data must be a flat or nested json array of strings", "{data}");
    }
    assert_eq!(refused(&body("BYTES", "[1]", r#""a""#)), "invalid tensor data: not a json array");
}

#[test]
fn base64_is_decoded_where_the_content_type_says_so() {
    for content_type in ["base64", "b64", "BASE64", "B64"] {
        assert_eq!(bytes_of_type(content_type, r#"["TXkgVVRGOCBTdHJpbmc="]"#), byte_strings(&[b"My UTF8 String"]));
    }
    let bad = r#"{"inputs":[{"datatype":"BYTES","shape":[1],"parameters":{"content_type":"b64"},"data":["a_b"]}]}"#;
    let text = refused(bad);
    assert!(text.starts_with("error decoding json string as base64: "), "{text}");
}

#[test]
fn any_other_content_type_is_text() {
    for content_type in ["", "utf8", "UTF8", "utf-8", "UTF-8", "str", "Base64", "image/png"] {
        assert_eq!(bytes_of_type(content_type, r#"["TQ=="]"#), byte_strings(&[b"TQ=="]));
    }
}

#[test]
fn unicode_escapes_are_what_json_says() {
    let expected = byte_strings(&["é\u{1f600}\u{8}\u{c}\r\t\n\\/\"".as_bytes()]);
    assert_eq!(bytes("[1]", r#"["\u00e9\ud83d\ude00\b\f\r\t\n\\\/\""]"#), expected);
}

#[test]
fn elements_may_be_arrays_of_bytes() {
    assert_eq!(bytes("[2]", "[[77,255],[0]]"), byte_strings(&[&[77, 255], &[0]]));
    assert_eq!(bytes("[2,1]", "[[77],[0]]"), byte_strings(&[&[77], &[0]]));
    assert_eq!(bytes("[2,1]", "[[[77]],[[0,1]]]"), byte_strings(&[&[77], &[0, 1]]));
    assert_eq!(bytes("[2]", "[[],[1]]"), byte_strings(&[&[], &[1]]));
    assert_eq!(bytes("[2]", "[[],[]]"), byte_strings(&[&[], &[]]));
    for number in ["256", "-1", "1.5"] {
        let text = refused(&body("BYTES", "[1]", &format!("[[{number}]]")));
        assert_eq!(text, format!("cannot take {number} as a byte of BYTES"));
    }
}

#[test]
fn arrays_of_bytes_nested_otherwise_are_refused() {
    assert_eq!(refused(&body("BYTES", "[2]", "[1,2]")), "invalid tensor data: must be an array of byte arrays");
    for (shape, data) in [("[1]", "[[[1]]]"), ("[1,1,1]", "[[[1]]]"), ("[1]", "[[1],[[2]]]"), ("[2]", "[[1],2]")] {
        assert_eq!(refused(&body("BYTES", shape, data)), "array nesting does not match tensor shape", "{data}");
    }
}

#[test]
fn the_documented_examples_give_the_documented_bytes() {
    let example = |shape: &str, data: &str, content_type: Option<&str>| {
        let params = content_type.map(|t| format!(r#","parameters":{{"content_type":"{t}"}}"#)).unwrap_or_default();
        let json = format!(r#"{{"inputs":[{{"datatype":"BYTES","shape":{shape},"data":{data}{params}}}]}}"#);
        input(&json).contents.expect("typed").bytes_contents
    };
    let strings = byte_strings(&[b"My UTF8 String", b"Another string"]);
    assert_eq!(example("[2]", r#"["My UTF8 String","Another string"]"#, None), strings);
    assert_eq!(
        example("[1]", "[[77,121,32,85,84,70,56,32,83,116,114,105,110,103]]", None),
        byte_strings(&[b"My UTF8 String"])
    );
    let two = byte_strings(&[b"String1", b"String2"]);
    assert_eq!(example("[2,1]", r#"[["String1"],["String2"]]"#, None), two);
    assert_eq!(example("[2,1]", r#"["String1","String2"]"#, Some("str")), two);
    let arrays = "[[[83,116,114,105,110,103,32,49]],[[83,116,114,105,110,103,32,50]]]";
    assert_eq!(example("[2,1]", arrays, None), byte_strings(&[b"String 1", b"String 2"]));
    let base64 = r#"["TXkgVVRGOCBTdHJpbmc=","QW5vdGhlciBzdHJpbmc="]"#;
    assert_eq!(example("[2,1]", base64, Some("base64")), strings);
}
