//! Messages that cross between the protocols, and dead letters.

use leveret_protocol::amqp::{
    BasicProperties, EncodedTable, Envelope, FieldTable, reply_text, to_amqp, to_native,
};
use leveret_protocol::{
    Death, DeathHistory, DeathReason, ExchangeName, Properties, PropertiesFormat, QueueName, ReplyCode,
    RoutingKey, Table, Value,
};

use crate::content::header;
use crate::golden::bytes_of;

fn key(key: &str) -> RoutingKey {
    RoutingKey::new(key).unwrap()
}

fn native() -> Properties {
    Properties {
        content_type: Some("text/plain".to_owned()),
        content_encoding: Some("gzip".to_owned()),
        correlation_id: Some("c-1".to_owned()),
        reply_to: Some("r".to_owned()),
        message_id: Some("m-1".to_owned()),
        timestamp: Some(1_700_000_000),
        kind: Some("t".to_owned()),
        user_id: Some("guest".to_owned()),
        app_id: Some("app".to_owned()),
        headers: [("a".to_owned(), Value::Int(1))].into(),
    }
}

/// Died in `work` by a rejection, then in `wait` twice by expiry.
fn history() -> DeathHistory {
    let death = |queue, reason, exchange: &str, keys: &[&str], ttl, first_at_ms| Death {
        queue: QueueName::new(queue).unwrap(),
        reason,
        count: 1,
        first_at_ms,
        exchange: ExchangeName::new(exchange).unwrap(),
        routing_keys: keys.iter().map(|text| key(text)).collect(),
        original_ttl_ms: ttl,
        note: None,
    };
    let work = death("work", DeathReason::Rejected, "ex", &["key", "cc"], Some(60_000), 1_700_000_000_999);
    let wait = |at| death("wait", DeathReason::Expired, "", &["wait"], None, at);
    let history = DeathHistory::record(None, work);
    let history = DeathHistory::record(Some(&history), wait(1_700_000_001_000));
    DeathHistory::record(Some(&history), wait(1_700_000_009_000))
}

#[test]
fn an_amqp_message_has_all_its_properties_over_the_native_protocol() {
    let every = header("every property").properties;
    let blob = to_native(PropertiesFormat::Amqp, &every).unwrap();
    assert_eq!(Properties::decode(&blob).unwrap(), native());
    let none = to_native(PropertiesFormat::Amqp, &[0, 0]).unwrap();
    assert!(none.is_empty(), "no properties are an empty blob");
}

#[test]
fn a_native_message_has_all_its_properties_over_amqp() {
    let blob = native().encode().unwrap();
    let envelope = Envelope { persistent: true, priority: 9, ttl_ms: Some(60_000), ..Envelope::default() };
    let amqp = to_amqp(PropertiesFormat::Native, &blob, &envelope).unwrap();
    let headers = EncodedTable::new(&native().headers).unwrap();
    let every = header("every property").properties;
    let expected = BasicProperties {
        headers: Some(headers.as_table()),
        cluster_id: None,
        ..BasicProperties::decode(&every).unwrap()
    };
    assert_eq!(BasicProperties::decode(&amqp), Ok(expected));
    let back = to_native(PropertiesFormat::Amqp, &amqp).unwrap();
    assert_eq!(Properties::decode(&back).unwrap(), native());
}

#[test]
fn a_native_message_without_anything_is_transient_and_no_more() {
    let amqp = to_amqp(PropertiesFormat::Native, &[], &Envelope::default()).unwrap();
    let expected = BasicProperties { delivery_mode: Some(1), ..BasicProperties::default() };
    assert_eq!(BasicProperties::decode(&amqp), Ok(expected));
}

#[test]
fn what_stays_in_its_protocol_stays_as_it_came() {
    let every = header("every property").properties;
    let envelope = Envelope { persistent: false, priority: 1, ttl_ms: None, ..Envelope::default() };
    let amqp = to_amqp(PropertiesFormat::Amqp, &every, &envelope).unwrap();
    assert_eq!(amqp.as_ptr(), every.as_ptr());
    let blob = native().encode().unwrap();
    assert_eq!(to_native(PropertiesFormat::Native, &blob).unwrap().as_ptr(), blob.as_ptr());
}

#[test]
fn both_formats_say_the_same_headers() {
    let some = header("some properties").properties;
    let headers = PropertiesFormat::Amqp.headers(&some).unwrap();
    let blob = to_native(PropertiesFormat::Amqp, &some).unwrap();
    assert_eq!(PropertiesFormat::Native.headers(&blob).unwrap(), headers);
    assert_eq!(headers["CC"], Value::List(vec![Value::from("a"), Value::from("b")]));
}

#[test]
fn cc_keys_of_a_native_message_are_the_header_cc() {
    let envelope = Envelope { cc: &[key("a"), key("b")], ..Envelope::default() };
    let amqp = to_amqp(PropertiesFormat::Native, &[], &envelope).unwrap();
    let cc = BasicProperties::decode(&amqp).unwrap().publish_attributes().unwrap().cc;
    assert_eq!(cc, [key("a"), key("b")]);
}

#[test]
fn bcc_is_never_shown() {
    let bcc = [("BCC".to_owned(), Value::List(vec![Value::from("secret")]))].into();
    let table = EncodedTable::new(&bcc).unwrap();
    let properties =
        BasicProperties { headers: Some(table.as_table()), ..BasicProperties::default() }.to_bytes();
    assert_eq!(PropertiesFormat::Amqp.headers(&properties).unwrap(), Table::new());
    assert!(to_native(PropertiesFormat::Amqp, &properties).unwrap().is_empty());
}

#[test]
fn a_dead_letter_has_rabbitmqs_headers_byte_for_byte() {
    let headers = [&b"\x01as\x00\x07"[..], b"\x07x-deathS\0\0\0\x04fake"].concat();
    let published = BasicProperties {
        headers: Some(FieldTable::parse(&headers).unwrap()),
        delivery_mode: Some(2),
        expiration: Some(b"60000"),
        ..BasicProperties::default()
    };
    let history = history();
    let envelope = Envelope { deaths: Some(&history), ttl_ms: None, ..Envelope::default() };
    let published = published.to_bytes();
    let amqp = to_amqp(PropertiesFormat::Amqp, &published, &envelope).unwrap();
    assert_eq!(amqp, bytes_of("table.hex", "the properties of a dead letter"));
}

#[test]
fn a_native_dead_letter_has_the_same_headers() {
    let blob = Properties { headers: [("a".to_owned(), Value::Int(7))].into(), ..Properties::default() };
    let history = history();
    let envelope = Envelope { persistent: true, deaths: Some(&history), ..Envelope::default() };
    let blob = blob.encode().unwrap();
    let amqp = to_amqp(PropertiesFormat::Native, &blob, &envelope).unwrap();
    let golden = bytes_of("table.hex", "the properties of a dead letter");
    assert_eq!(
        PropertiesFormat::Amqp.headers(&amqp).unwrap(),
        PropertiesFormat::Amqp.headers(&golden).unwrap()
    );
    assert_eq!(BasicProperties::decode(&amqp).unwrap().expiration, None);
}

#[test]
fn a_dead_letter_keeps_cc_unless_another_key_took_its_place() {
    let some = header("some properties").properties;
    let history = history();
    for (cc, kept) in [(vec![key("a"), key("b")], true), (vec![], false)] {
        let envelope = Envelope { cc: &cc, deaths: Some(&history), ..Envelope::default() };
        let amqp = to_amqp(PropertiesFormat::Amqp, &some, &envelope).unwrap();
        assert_eq!(PropertiesFormat::Amqp.headers(&amqp).unwrap().contains_key("CC"), kept);
    }
}

#[test]
fn what_the_consumer_said_last_is_a_header_of_ours() {
    let mut history = history();
    history.deaths[0].note = Some("too old".to_owned());
    let headers = [("x-delivery-count", Value::Int(2))];
    let envelope = Envelope { deaths: Some(&history), headers: &headers, ..Envelope::default() };
    let amqp = to_amqp(PropertiesFormat::Amqp, &[0, 0], &envelope).unwrap();
    let headers = PropertiesFormat::Amqp.headers(&amqp).unwrap();
    assert_eq!(headers["x-last-death-note"], Value::from("too old"));
    assert_eq!(headers["x-delivery-count"], Value::Int(2));
}

#[test]
fn native_texts_that_do_not_fit_become_headers() {
    let long = "ä".repeat(128);
    let blob = Properties {
        correlation_id: Some(long.clone()),
        kind: Some(long.clone()),
        app_id: Some("a".repeat(255)),
        ..Properties::default()
    };
    let blob = blob.encode().unwrap();
    let amqp = to_amqp(PropertiesFormat::Native, &blob, &Envelope::default()).unwrap();
    let properties = BasicProperties::decode(&amqp).unwrap();
    assert_eq!((properties.correlation_id, properties.kind), (None, None));
    assert_eq!(properties.app_id.map(<[u8]>::len), Some(255));
    let headers = PropertiesFormat::Amqp.headers(&amqp).unwrap();
    let expected: Table = [
        ("x-correlation-id".to_owned(), Value::from(long.clone())),
        ("x-type".to_owned(), Value::from(long)),
    ]
    .into();
    assert_eq!(headers, expected);
}

#[test]
fn properties_that_the_native_limit_cannot_hold_are_refused() {
    // A timestamp has 11 bytes in AMQP and 23 in MessagePack.
    let headers: Table = (0..15_000).map(|at| (format!("{at:05}"), Value::Timestamp(i64::MAX))).collect();
    let table = EncodedTable::new(&headers).unwrap();
    let properties =
        BasicProperties { headers: Some(table.as_table()), ..BasicProperties::default() }.to_bytes();
    assert!(to_native(PropertiesFormat::Amqp, &properties).is_err());
}

#[test]
fn formats_have_numbers_for_records() {
    for format in [PropertiesFormat::Native, PropertiesFormat::Amqp] {
        assert_eq!(PropertiesFormat::from_byte(format as u8), Some(format));
    }
    assert_eq!(PropertiesFormat::from_byte(2), None);
}

#[test]
fn reply_texts_are_rabbitmqs_and_fit_a_short_string() {
    let text = reply_text(ReplyCode::NotFound, "no queue 'q' in vhost '/'");
    assert_eq!(text, "NOT_FOUND - no queue 'q' in vhost '/'");
    let long = reply_text(ReplyCode::PreconditionFailed, &"ä".repeat(200));
    assert!(long.len() <= 255 && long.ends_with("ä..."), "{long}");
    assert_eq!(reply_text(ReplyCode::FrameError, &"a".repeat(241)).len(), 255);
    assert!(!reply_text(ReplyCode::FrameError, &"a".repeat(241)).ends_with("..."));
}
