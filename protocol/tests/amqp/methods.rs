//! Methods beyond the golden ones: random ones of every kind, and broken ones.

use bytes::BytesMut;
use leveret_protocol::ReplyCode;
use leveret_protocol::amqp::{FieldProblem, Method, MethodError, basic};
use proptest::prelude::*;

use crate::golden;
use crate::schema::{METHODS, payload};

fn written(method: &Method<'_>) -> BytesMut {
    let mut out = BytesMut::new();
    method.encode(&mut out);
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_method_of_the_specification_is_read_and_written_as_the_same_bytes((schema, payload) in payload()) {
        let method = Method::decode(&payload).unwrap();
        prop_assert_eq!(method.name(), schema.name);
        prop_assert_eq!(method.ids(), (schema.class_id, schema.method_id));
        prop_assert_eq!(&written(&method)[..], &payload[..]);
    }

    #[test]
    fn a_method_that_is_cut_or_too_long_is_refused_with_its_numbers((schema, payload) in payload()) {
        for end in 4..payload.len() {
            let error = Method::decode(&payload[..end]).unwrap_err();
            prop_assert!(matches!(error, MethodError::Malformed { .. }), "{}", error);
            prop_assert_eq!(error.ids(), (schema.class_id, schema.method_id));
        }
        let overlong = [&payload[..], &[0]].concat();
        let error = Method::decode(&overlong).unwrap_err();
        prop_assert!(matches!(error, MethodError::Overlong { bytes: 1, .. }), "{}", error);
        prop_assert_eq!(error.reply_code(), ReplyCode::SyntaxError);
    }

    #[test]
    fn random_fields_never_panic(at in 0..METHODS.len(), fields in proptest::collection::vec(any::<u8>(), 0..64)) {
        let schema = &METHODS[at];
        let payload = [&schema.class_id.to_be_bytes()[..], &schema.method_id.to_be_bytes(), &fields].concat();
        if let Ok(method) = Method::decode(&payload) {
            let bytes = written(&method);
            prop_assert_eq!(Method::decode(&bytes), Ok(method));
        }
    }
}

#[test]
fn every_golden_method_cut_anywhere_is_refused() {
    for golden in golden::methods() {
        let payload = golden::only_frame(&golden.bytes).payload;
        for end in 0..payload.len() {
            let error = Method::decode(&payload[..end]).unwrap_err();
            assert_eq!(error.reply_code(), ReplyCode::SyntaxError, "{} cut at {end}", golden.name);
        }
    }
}

#[test]
fn unknown_classes_and_methods_are_named_by_their_numbers() {
    for (class_id, method_id) in [(0, 0), (30, 10), (60, 41), (60, 0), (90, 40), (65535, 65535)] {
        let payload = [u16::to_be_bytes(class_id), u16::to_be_bytes(method_id)].concat();
        let error = Method::decode(&payload).unwrap_err();
        assert_eq!(error, MethodError::Unknown { class_id, method_id });
        assert_eq!((error.ids(), error.reply_code()), ((class_id, method_id), ReplyCode::NotImplemented));
    }
}

#[test]
fn names_that_are_not_utf8_are_refused_in_fields_and_passed_over_in_reserved_ones() {
    let get = [&[0, 60, 0, 70, 0, 0, 2, 0xff, 0xfe, 0][..]].concat();
    let Err(MethodError::Malformed { error, method, .. }) = Method::decode(&get) else { panic!() };
    assert_eq!((method, error.field, error.problem), ("basic.get", "queue", FieldProblem::NotUtf8));
    // basic.get-empty has nothing but a reserved string, and queue.get a reserved number.
    assert!(Method::decode(&[0, 60, 0, 72, 1, 0xff]).is_ok());
    assert!(Method::decode(&[0, 60, 0, 70, 0xab, 0xcd, 0, 0]).is_ok());
}

#[test]
fn hot_methods_borrow_from_the_payload() {
    let golden = golden::bytes_of("basic.hex", "basic.publish");
    let payload = golden::only_frame(&golden).payload;
    let Method::Basic(basic::Basic::Publish(publish)) = Method::decode(&payload).unwrap() else { panic!() };
    assert!(payload.as_ptr_range().contains(&publish.exchange.as_ptr()));
    assert!(payload.as_ptr_range().contains(&publish.routing_key.as_ptr()));
}

#[test]
fn names_that_are_too_long_are_cut_between_characters() {
    let key = "ä".repeat(200);
    let bytes = written(&basic::Publish { routing_key: &key, ..basic::Publish::default() }.into());
    let Method::Basic(basic::Basic::Publish(publish)) = Method::decode(&bytes).unwrap() else { panic!() };
    assert_eq!(publish.routing_key, "ä".repeat(127));
}

#[test]
fn four_methods_have_content() {
    let with: Vec<_> = golden::methods()
        .into_iter()
        .filter(|golden| Method::decode(&golden::only_frame(&golden.bytes).payload).unwrap().has_content())
        .map(|golden| golden.name)
        .collect();
    assert_eq!(with, ["basic.publish", "basic.return", "basic.deliver", "basic.get-ok"]);
}
