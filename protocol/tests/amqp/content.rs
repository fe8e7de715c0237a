//! Content headers and properties.

use bytes::{Bytes, BytesMut};
use leveret_protocol::ReplyCode;
use leveret_protocol::amqp::{
    BasicProperties, ContentError, ContentHeader, FieldTable, FieldValue, HeaderChanges, NO_PROPERTIES,
};
use leveret_protocol::{PropertiesFormat, Value};
use proptest::prelude::*;

use crate::golden::{bytes_of, only_frame};
use crate::schema::{long, short, table};

pub(crate) fn header(name: &str) -> ContentHeader {
    ContentHeader::decode(&only_frame(&bytes_of("content.hex", name)).payload).unwrap()
}

#[test]
fn pikas_properties_are_read_each_in_its_place() {
    let header = header("every property");
    assert_eq!((header.class_id, header.body_size), (60, 5));
    let headers = short(b"a").into_iter().chain(*b"I\0\0\0\x01").collect::<Vec<_>>();
    let expected = BasicProperties {
        content_type: Some(b"text/plain"),
        content_encoding: Some(b"gzip"),
        headers: Some(FieldTable::parse(&headers).unwrap()),
        delivery_mode: Some(2),
        priority: Some(9),
        correlation_id: Some(b"c-1"),
        reply_to: Some(b"r"),
        expiration: Some(b"60000"),
        message_id: Some(b"m-1"),
        timestamp: Some(1_700_000_000),
        kind: Some(b"t"),
        user_id: Some(b"guest"),
        app_id: Some(b"app"),
        cluster_id: Some(b"cl"),
    };
    assert_eq!(BasicProperties::decode(&header.properties), Ok(expected));
    assert_eq!(expected.to_bytes(), header.properties);
}

#[test]
fn no_properties_are_two_bytes() {
    assert_eq!(BasicProperties::default().to_bytes(), NO_PROPERTIES);
    assert_eq!(header("no properties").properties, NO_PROPERTIES);
    assert_eq!(BasicProperties::decode(NO_PROPERTIES), Ok(BasicProperties::default()));
}

#[test]
fn a_header_that_is_cut_anywhere_is_refused() {
    for name in ["every property", "some properties", "no properties"] {
        let payload = only_frame(&bytes_of("content.hex", name)).payload;
        for end in 0..payload.len() {
            let error = ContentHeader::decode(&payload.slice(..end)).unwrap_err();
            assert_eq!(error.reply_code(), ReplyCode::SyntaxError, "{name} cut at {end}");
        }
        let overlong = Bytes::from([&payload[..], &[0]].concat());
        assert_eq!(ContentHeader::decode(&overlong), Err(ContentError::Overlong(1)), "{name}");
    }
}

#[test]
fn a_weight_and_flags_that_mean_nothing_are_refused() {
    let mut payload = only_frame(&bytes_of("content.hex", "no properties")).payload.to_vec();
    payload[3] = 1;
    assert_eq!(ContentHeader::decode(&payload.into()), Err(ContentError::Weight(1)));
    for flags in [1_u16, 2, 3] {
        assert_eq!(BasicProperties::decode(&flags.to_be_bytes()), Err(ContentError::Flags(flags)));
    }
}

#[test]
fn properties_need_not_be_text() {
    let properties = BasicProperties { correlation_id: Some(b"\xff\x00\xfe"), ..BasicProperties::default() };
    let bytes = properties.to_bytes();
    assert_eq!(BasicProperties::decode(&bytes), Ok(properties));
}

#[test]
fn a_header_from_the_broker_goes_between_the_publishers_own_bytes() {
    let table: Vec<u8> = [
        short(b"z"),
        b"s\x00\x07".to_vec(),
        short(b"x-delivery-count"),
        b"S\0\0\0\x05liar!".to_vec(),
        short(b"a"),
        b"D\x02\x00\x00\x00\x01".to_vec(),
    ]
    .concat();
    let before = BasicProperties {
        headers: Some(FieldTable::parse(&table).unwrap()),
        app_id: Some(b"app"),
        ..BasicProperties::default()
    };
    let mut changes = HeaderChanges::default();
    assert!(changes.is_empty());
    changes.set("x-delivery-count", &Value::Int(3));
    let bytes = changes.apply(&before.to_bytes()).unwrap();
    let after = BasicProperties::decode(&bytes).unwrap();
    let entries: Vec<_> = after.headers.unwrap().iter().collect();
    let expected: [(&[u8], _); 3] = [
        (b"a", FieldValue::Decimal { scale: 2, unscaled: 1 }),
        (b"x-delivery-count", FieldValue::Int(3)),
        (b"z", FieldValue::Int(7)),
    ];
    assert_eq!(entries, expected);
    let raw = after.headers.unwrap().as_bytes();
    assert!(raw.ends_with(b"\x01zs\x00\x07"), "the publisher's short stays a short");
    assert_eq!(BasicProperties { headers: before.headers, ..after }, before);
}

#[test]
fn a_header_goes_into_properties_without_headers() {
    let mut changes = HeaderChanges::default();
    changes.set("x-delivery-count", &Value::Int(1));
    let bytes = changes.apply(NO_PROPERTIES).unwrap();
    let headers = PropertiesFormat::Amqp.headers(&bytes).unwrap();
    assert_eq!(headers, [("x-delivery-count".to_owned(), Value::Int(1))].into());
}

#[test]
fn nothing_is_changed_in_what_cannot_be_read() {
    let mut changes = HeaderChanges::default();
    changes.set("a", &Value::Null);
    assert_eq!(changes.apply(b"\x80\x00\x05abc").unwrap_err().reply_code(), ReplyCode::SyntaxError);
    assert!(PropertiesFormat::Amqp.headers(b"").is_err());
}

proptest! {
    #[test]
    fn any_properties_are_read_and_written_as_the_same_bytes(
        flags in any::<u16>(),
        texts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..=255), 14),
        headers in table(2),
        number in any::<u64>(),
    ) {
        let flags = flags & !0b11;
        let mut bytes = flags.to_be_bytes().to_vec();
        for (at, text) in texts.iter().enumerate() {
            if flags & (0x8000 >> at) != 0 {
                bytes.extend(match at {
                    2 => long(&headers),
                    3 | 4 => vec![number.to_le_bytes()[at]],
                    9 => number.to_be_bytes().to_vec(),
                    _ => short(text),
                });
            }
        }
        let properties = BasicProperties::decode(&bytes).unwrap();
        prop_assert_eq!(properties.to_bytes(), &bytes[..]);
        let mut payload = BytesMut::from(&[0, 60, 0, 0][..]);
        payload.extend_from_slice(&number.to_be_bytes());
        payload.extend_from_slice(&bytes);
        let header = ContentHeader::decode(&payload.freeze()).unwrap();
        prop_assert_eq!((header.body_size, &header.properties[..]), (number, &bytes[..]));
    }

    #[test]
    fn random_properties_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(properties) = BasicProperties::decode(&bytes) {
            prop_assert_eq!(properties.to_bytes(), &bytes[..]);
        }
    }
}
