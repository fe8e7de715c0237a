//! What the broker acts on in a publisher's properties.

use leveret_protocol::amqp::{
    BasicProperties, EncodedTable, InvalidMessage, PublishAttributes, parse_expiration, without_bcc,
};
use leveret_protocol::{COPIES_MAX, ReplyCode, RoutingKey, Table, Value};

use crate::content::header;

fn keys(keys: &[&str]) -> Vec<RoutingKey> {
    keys.iter().map(|key| RoutingKey::new(key).unwrap()).collect()
}

fn texts(texts: &[&str]) -> Value {
    Value::List(texts.iter().map(|text| Value::from(*text)).collect())
}

fn attributes(headers: &Table) -> Result<PublishAttributes, InvalidMessage> {
    let headers = EncodedTable::new(headers).unwrap();
    BasicProperties { headers: Some(headers.as_table()), ..BasicProperties::default() }.publish_attributes()
}

#[test]
fn what_the_broker_acts_on_is_found() {
    let every = header("every property");
    let properties = BasicProperties::decode(&every.properties).unwrap();
    let expected = PublishAttributes {
        persistent: true,
        priority: 9,
        ttl_ms: Some(60_000),
        ..PublishAttributes::default()
    };
    assert_eq!(properties.publish_attributes(), Ok(expected));
    let some = header("some properties");
    let properties = BasicProperties::decode(&some.properties).unwrap();
    let expected = PublishAttributes { cc: keys(&["a", "b"]), ..PublishAttributes::default() };
    assert_eq!(properties.publish_attributes(), Ok(expected));
    assert_eq!(BasicProperties::default().publish_attributes(), Ok(PublishAttributes::default()));
}

#[test]
fn only_delivery_mode_2_is_persistent() {
    for mode in 0..=u8::MAX {
        let properties = BasicProperties { delivery_mode: Some(mode), ..BasicProperties::default() };
        assert_eq!(properties.publish_attributes().unwrap().persistent, mode == 2);
    }
}

#[test]
fn an_expiration_is_decimal_digits() {
    for (text, ms) in [("0", 0), ("60000", 60_000), ("007", 7), ("18446744073709551615", u64::MAX)] {
        assert_eq!(parse_expiration(text.as_bytes()), Ok(ms));
    }
    for text in ["", "-1", "+1", "1.5", "1s", " 1", "0x10", "18446744073709551616", "\u{662}"] {
        let error = parse_expiration(text.as_bytes()).unwrap_err();
        assert_eq!(error, InvalidMessage::Expiration(text.into()));
        assert_eq!(error.reply_code(), ReplyCode::PreconditionFailed);
    }
    let properties = BasicProperties { expiration: Some(b"\n"), ..BasicProperties::default() };
    let error = properties.publish_attributes().unwrap_err().to_string();
    assert!(error.contains(r"'\n'"), "{error}");
}

#[test]
fn copies_are_arrays_of_long_strings_and_nothing_else() {
    for header in ["CC", "BCC"] {
        let with = |value: Value| attributes(&[(header.to_owned(), value)].into());
        let wrong = [
            Value::from("a"),
            Value::Null,
            Value::Int(1),
            Value::Table(Table::new()),
            Value::List(vec![Value::from("a"), Value::Int(1)]),
            Value::List(vec![Value::List(vec![])]),
        ];
        for value in wrong {
            assert_eq!(with(value), Err(InvalidMessage::Copies { header }));
        }
        let many = |count: usize| with(Value::List(vec![Value::from("k"); count]));
        assert!(many(COPIES_MAX).is_ok());
        assert_eq!(many(COPIES_MAX + 1), Err(InvalidMessage::TooManyCopies { header }));
        let long = with(texts(&[&"k".repeat(256)]));
        assert!(matches!(long, Err(InvalidMessage::Key { .. })), "{long:?}");
    }
    let both = attributes(&[("CC".to_owned(), texts(&["a"])), ("BCC".to_owned(), texts(&["b", ""]))].into());
    let both = both.unwrap();
    assert_eq!((both.cc, both.bcc), (keys(&["a"]), keys(&["b", ""])));
    let lower = attributes(&[("cc".to_owned(), Value::Int(1))].into());
    assert_eq!(lower, Ok(PublishAttributes::default()), "the names are case-sensitive");
}

#[test]
fn bcc_goes_and_everything_else_stays() {
    let headers = EncodedTable::new(
        &[
            ("CC".to_owned(), texts(&["a"])),
            ("BCC".to_owned(), texts(&["secret"])),
            ("n".to_owned(), Value::Null),
        ]
        .into(),
    )
    .unwrap();
    let properties = BasicProperties {
        headers: Some(headers.as_table()),
        expiration: Some(b"5"),
        ..BasicProperties::default()
    };
    let before = properties.to_bytes();
    let after = without_bcc(before.clone()).unwrap();
    assert!(!after.windows(6).any(|window| window == b"secret"));
    let left =
        EncodedTable::new(&[("CC".to_owned(), texts(&["a"])), ("n".to_owned(), Value::Null)].into()).unwrap();
    assert_eq!(
        BasicProperties::decode(&after),
        Ok(BasicProperties { headers: Some(left.as_table()), ..properties })
    );
    let again = without_bcc(after.clone()).unwrap();
    assert_eq!(again.as_ptr(), after.as_ptr(), "what has none is not copied");
}
