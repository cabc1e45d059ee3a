//! JSON requests, but for BYTES.

use modelring_proto::inference::infer_parameter::ParameterChoice as Choice;

use crate::support::{body, contents, decode, input, params, refused};

#[test]
fn an_empty_body_or_one_without_inputs_is_a_request_without_inputs() {
    for json in ["", " \n", "{}", "null", r#"{"inputs":null}"#, r#"{"inputs":[]}"#] {
        assert_eq!(decode(json).expect(json).message, Default::default(), "{json}");
    }
}

#[test]
fn only_the_first_json_value_counts() {
    let message = decode(r#"{"id":"a"} {"id":"b"} more"#).expect("decodes").message;
    assert_eq!(message.id, "a");
}

#[test]
fn keys_match_in_any_case_and_unknown_ones_are_ignored() {
    let json = r#"{"ID":"a","model_name":"other","model_version":"9","extra":[{"x":[1,{}]}],
        "Inputs":[{"NAME":"x","DataType":"INT32","SHAPE":[1],"Data":[7],"more":null}],
        "OUTPUTS":[{"Name":"y","what":1}]}"#;
    let message = decode(json).expect("decodes").message;
    assert_eq!((message.id.as_str(), message.model_name.as_str(), message.model_version.as_str()), ("a", "", ""));
    assert_eq!(message.inputs[0].name, "x");
    assert_eq!(message.inputs[0].contents.as_ref().expect("typed").int_contents, [7]);
    assert_eq!(message.outputs[0].name, "y");
}

#[test]
fn members_may_come_in_any_order() {
    let json = r#"{"inputs":[{"data":[[1,2],[3,4]],"shape":[2,2],"datatype":"FP64","name":"x"}]}"#;
    assert_eq!(input(json).contents.expect("typed").fp64_contents, [1.0, 2.0, 3.0, 4.0]);
    let json = r#"{"inputs":[{"data":["aGk="],"shape":[1],"datatype":"BYTES","parameters":{"content_type":"b64"}}]}"#;
    assert_eq!(input(json).contents.expect("typed").bytes_contents, ["hi"]);
    let json = r#"{"inputs":[{"datatype":"FP32","shape":[1],"data":[5],"datatype":"INT64"}]}"#;
    assert_eq!(input(json).contents.expect("typed").int64_contents, [5]);
}

#[test]
fn the_id_is_forwarded() {
    assert_eq!(decode(r#"{"id":"é\"\u00e9"}"#).expect("decodes").message.id, "é\"é");
    assert_eq!(decode(r#"{"id":null}"#).expect("decodes").message.id, "");
}

#[test]
fn parameters_keep_their_kind() {
    let json = r#"{"parameters":{"s":"t","i":-9223372036854775808,"b":true,"n":null},
        "inputs":[{"name":"x","datatype":"BOOL","shape":[0],"data":[],"parameters":{"f":false}}]}"#;
    let message = decode(json).expect("decodes").message;
    let expected = params(&[
        ("s", Some(Choice::StringParam("t".to_owned()))),
        ("i", Some(Choice::Int64Param(i64::MIN))),
        ("b", Some(Choice::BoolParam(true))),
        ("n", None),
    ]);
    assert_eq!(message.parameters, expected);
    assert_eq!(message.inputs[0].parameters, params(&[("f", Some(Choice::BoolParam(false)))]));
}

#[test]
fn a_parameter_with_a_fraction_is_a_double_and_a_large_one_unsigned() {
    let json = r#"{"parameters":{"d":1.5,"e":1e3,"u":18446744073709551615,"m":9223372036854775807}}"#;
    let expected = params(&[
        ("d", Some(Choice::DoubleParam(1.5))),
        ("e", Some(Choice::DoubleParam(1000.0))),
        ("u", Some(Choice::Uint64Param(u64::MAX))),
        ("m", Some(Choice::Int64Param(i64::MAX))),
    ]);
    assert_eq!(decode(json).expect("decodes").message.parameters, expected);
    assert!(refused(r#"{"parameters":{"d":1e999}}"#).contains("1e999"));
}

#[test]
fn a_parameter_that_is_a_list_or_an_object_is_left_out() {
    let json = r#"{"parameters":{"a":[1,[2]],"o":{"x":{}},"k":1}}"#;
    assert_eq!(decode(json).expect("decodes").message.parameters, params(&[("k", Some(Choice::Int64Param(1)))]));
}

#[test]
fn parameters_of_outputs_are_forwarded() {
    let json = r#"{"outputs":[{"name":"y","parameters":{"classification":3,"s":"t","b":true,"d":0.5}},{"name":"z"}]}"#;
    let message = decode(json).expect("decodes").message;
    let expected = params(&[
        ("classification", Some(Choice::Int64Param(3))),
        ("s", Some(Choice::StringParam("t".to_owned()))),
        ("b", Some(Choice::BoolParam(true))),
        ("d", Some(Choice::DoubleParam(0.5))),
    ]);
    assert_eq!(message.outputs[0].parameters, expected);
    assert_eq!(message.outputs[1].name, "z");
}

#[test]
fn bool_takes_true_and_false_alone() {
    assert_eq!(contents("BOOL", "[2]", "[true,false]").bool_contents, [true, false]);
    for data in ["[0,1]", r#"["true",true]"#, "[null,true]"] {
        let text = refused(&body("BOOL", "[2]", data));
        assert!(text.starts_with(r#"input tensor "x": BOOL wants true or false"#), "{text}");
    }
}

#[test]
fn small_integers_are_what_fits_int32() {
    for datatype in ["INT8", "INT16", "INT32"] {
        let contents = contents(datatype, "[3]", "[-2147483648,0,2147483647]");
        assert_eq!(contents.int_contents, [i32::MIN, 0, i32::MAX]);
        for number in ["1.0", "1e1", "2147483648", "-2147483649"] {
            let text = refused(&body(datatype, "[1]", &format!("[{number}]")));
            assert_eq!(text, format!(r#"input tensor "x": cannot take {number} as {datatype}"#));
        }
        assert!(refused(&body(datatype, "[1]", "[true]")).contains("wants a number"));
    }
}

#[test]
fn sixty_four_bit_integers_are_exact() {
    let signed = contents("INT64", "[3]", "[-9223372036854775808,9007199254740993,9223372036854775807]");
    assert_eq!(signed.int64_contents, [i64::MIN, (1 << 53) + 1, i64::MAX]);
    assert_eq!(contents("UINT64", "[2]", "[0,18446744073709551615]").uint64_contents, [0, u64::MAX]);
    assert!(refused(&body("INT64", "[1]", "[9223372036854775808]")).contains("cannot take"));
    assert!(refused(&body("UINT64", "[1]", "[-1]")).contains("cannot take -1 as UINT64"));
}

#[test]
fn small_unsigned_integers_are_what_fits_uint32() {
    for datatype in ["UINT8", "UINT16", "UINT32"] {
        assert_eq!(contents(datatype, "[2]", "[0,4294967295]").uint_contents, [0, u32::MAX]);
        for number in ["-1", "4294967296", "0.5"] {
            assert!(refused(&body(datatype, "[1]", &format!("[{number}]"))).contains(number));
        }
    }
}

#[test]
fn floats_are_any_number_in_range() {
    assert_eq!(contents("FP32", "[5]", "[0,-1,1.5,3.4e38,1E-3]").fp32_contents, [0.0, -1.0, 1.5, 3.4e38, 1e-3]);
    assert_eq!(contents("FP64", "[2]", "[0.1,1e308]").fp64_contents, [0.1, 1e308]);
    // Rounded once: by way of f64 this would be 16777216.
    assert_eq!(contents("FP32", "[1]", "[16777217.00000000000001]").fp32_contents, [16_777_218.0]);
    for (datatype, number) in [("FP32", "3.5e38"), ("FP64", "1e309"), ("FP32", "-1e999")] {
        let text = refused(&body(datatype, "[1]", &format!("[{number}]")));
        assert_eq!(text, format!(r#"input tensor "x": cannot take {number} as {datatype}"#));
    }
    for data in [r#"["1"]"#, r#"["NaN"]"#, "[null]", "[NaN]", "[Infinity]"] {
        refused(&body("FP32", "[1]", data));
    }
}

#[test]
fn half_floats_are_numbers_that_travel_raw() {
    for (datatype, raw) in [("FP16", [0x00u8, 0x3c, 0x66, 0x2e]), ("BF16", [0x80, 0x3f, 0xcd, 0x3d])] {
        let message = decode(&body(datatype, "[1,2]", "[[1,0.1]]")).expect("decodes").message;
        assert_eq!(message.raw_input_contents, [raw.to_vec()]);
        assert_eq!(message.inputs[0].contents, None);
    }
    assert!(refused(&body("FP16", "[1]", "[65520]")).contains("cannot take 65520 as FP16"));
}

#[test]
fn an_unknown_datatype_is_named() {
    for datatype in ["FP8", "", "fp32", "STRING"] {
        assert_eq!(refused(&body(datatype, "[1]", "[1]")), format!("unsupported datatype: {datatype}"));
    }
    assert_eq!(refused(r#"{"inputs":[{"name":"x"}]}"#), "unsupported datatype: ");
}

#[test]
fn rank_one_is_flat_and_null_or_missing_is_no_elements() {
    assert_eq!(contents("INT32", "[]", "[7]").int_contents, [7]);
    assert_eq!(contents("INT32", "null", "[7]").int_contents, [7]);
    assert_eq!(contents("INT32", "[2]", "null"), Default::default());
    assert_eq!(input(r#"{"inputs":[{"datatype":"INT32","shape":[2]}]}"#).contents, Some(Default::default()));
    assert_eq!(input(r#"{"inputs":[{"datatype":"INT32"}]}"#).contents, Some(Default::default()));
    assert!(refused(&body("INT32", "[1]", "[[7]]")).contains("INT32 wants a number"));
}

#[test]
fn a_flat_array_must_have_as_many_elements_as_the_shape() {
    assert_eq!(contents("INT32", "[2,3]", "[1,2,3,4,5,6]").int_contents, [1, 2, 3, 4, 5, 6]);
    assert_eq!(contents("INT32", "[2,0]", "[]").int_contents, [0i32; 0]);
    assert_eq!(
        refused(&body("INT32", "[2,3]", "[1,2,3,4,5]")),
        r#"input tensor "x": data has 5 elements, the shape [2, 3] has 6"#
    );
    assert_eq!(
        refused(&body("FP32", "[2]", "[1,2,3]")),
        r#"input tensor "x": data has 3 elements, the shape [2] has 2"#
    );
    for shape in ["[-1]", "[-1,2]", "[9223372036854775807,9223372036854775807]"] {
        assert!(refused(&body("FP32", shape, "[1,2]")).contains("no tensor has the shape"), "{shape}");
    }
    for shape in ["[1.5]", r#"["2"]"#, "2", "[[2]]", "[9223372036854775808]"] {
        refused(&body("FP32", shape, "[1,2]"));
    }
}

#[test]
fn nested_arrays_are_flattened_where_they_fit() {
    assert_eq!(contents("INT32", "[2,2,1]", "[[[1],[2]],[[3],[4]]]").int_contents, [1, 2, 3, 4]);
    assert_eq!(contents("FP32", "[2,0]", "[[],[]]").fp32_contents, [0f32; 0]);
    for (shape, data, text) in [
        ("[2,2]", "[[1,2],[3]]", "data[1] has 1 elements, the shape [2, 2] wants 2 there"),
        ("[2,2]", "[[1,2]]", "data has 1 elements, the shape [2, 2] wants 2 there"),
        ("[2,2]", "[[1,2],3]", "data[1] is not an array, the shape [2, 2] wants 2 there"),
        ("[1,2,2]", "[[[1,2],[3,4,5]]]", "data[0][1] has 3 elements, the shape [1, 2, 2] wants 2 there"),
        ("[1,1,1]", "[[1]]", "data[0][0] is not an array, the shape [1, 1, 1] wants 1 there"),
    ] {
        assert_eq!(refused(&body("INT32", shape, data)), format!(r#"input tensor "x": {text}"#));
    }
    assert!(refused(&body("INT32", "[1,1]", "[[[1]]]")).contains("INT32 wants a number"));
}

#[test]
fn data_of_rank_two_must_be_an_array() {
    for data in ["null", "1", r#""1""#, "{}", "true"] {
        assert_eq!(refused(&body("FP32", "[1,1]", data)), "invalid tensor data: not a json array");
    }
    let json = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1]}]}"#;
    assert_eq!(refused(json), "invalid tensor data: not a json array");
}

#[test]
fn malformed_json_is_refused_with_its_place() {
    for (json, text) in [
        ("{", "invalid JSON at byte 1: unexpected end of the text"),
        (r#"{"id":"a""#, "invalid JSON at byte 9: unexpected end of the text"),
        (r#"{"id":"a" "b"}"#, "invalid JSON at byte 10: expected a comma or the end of the object"),
        (r#"{"id":7}"#, "invalid JSON at byte 6: expected a string"),
        ("[]", "invalid JSON at byte 0: expected an object"),
        ("\x1f\u{8b}", "invalid JSON at byte 0: expected a value"),
        (r#"{"inputs":[{"datatype":"FP32","shape":[2],"data":[1,]}]}"#, "invalid JSON at byte 52: expected a value"),
        (r#"{"inputs":[1]}"#, "invalid JSON at byte 11: expected an object"),
        (r#"{"parameters":[]}"#, "invalid JSON at byte 14: expected an object"),
        (r#"{"id":"\x"}"#, "invalid JSON at byte 7: invalid escape"),
    ] {
        assert_eq!(refused(json), text, "{json}");
    }
}

#[test]
fn depth_and_number_of_things_are_bounded() {
    let deep = "[".repeat(200_000);
    refused(&format!(r#"{{"x":{deep}"#));
    refused(&body("FP32", "[1,1]", &deep));
    refused(&body("BYTES", "[1,1]", &deep));
    refused(&body("FP32", &format!("[{}1]", "1,".repeat(64)), "[1]"));
    let many = "{},".repeat(70_000);
    assert!(refused(&format!(r#"{{"outputs":[{many}{{}}]}}"#)).contains("more than 65536"));
}

#[test]
fn a_flood_of_strings_is_too_large() {
    let strings = r#""","#.repeat(2_200_000);
    let answer = decode(&body("BYTES", "[9000000]", &format!(r#"[{strings}""]"#))).expect_err("too many");
    assert_eq!((answer.code, answer.http), (8, 413));
}
