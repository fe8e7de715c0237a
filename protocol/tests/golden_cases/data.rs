//! Data frames and the heartbeat for the golden files.

use bytes::{Bytes, BytesMut};
use leveret_protocol::{
    Confirm, Credit, Death, DeathHistory, DeathReason, DeathSummary, Deliver, DeliverParts, ExchangeName,
    Frame, Keys, Outcome, Properties, Publish, PublishParts, QueueName, ReplyCode, Return, Route, RoutingKey,
    Settle, SettleParts, Value, Verb, kind,
};

/// A data frame: how it is written, what reading it must give, and the names and sizes of its fields.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) comment: &'static str,
    pub(crate) fields: Vec<(usize, &'static str)>,
    pub(crate) encode: fn(&mut BytesMut),
    pub(crate) check: fn(&Frame),
}

/// Every kind of data frame.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = publishes();
    cases.extend(deliveries());
    cases.extend(settles());
    cases.extend(others());
    cases
}

pub(crate) fn properties() -> Bytes {
    let headers = [("attempt".to_owned(), Value::Int(2))].into();
    Properties { content_type: Some("text/plain".to_owned()), headers, ..Properties::default() }
        .encode()
        .unwrap()
}

pub(crate) fn deaths() -> Bytes {
    let summary = DeathSummary {
        queue: QueueName::new("orders").unwrap(),
        reason: DeathReason::Rejected,
        exchange: ExchangeName::default(),
    };
    let death = Death {
        queue: summary.queue.clone(),
        reason: summary.reason,
        count: 1,
        first_at_ms: 1_700_000_000_000,
        exchange: summary.exchange.clone(),
        routing_keys: vec![RoutingKey::new("orders").unwrap()],
        original_ttl_ms: None,
        note: Some("no such customer".to_owned()),
    };
    DeathHistory { deaths: vec![death], first: summary.clone(), last: summary }.encode().unwrap()
}

fn publishes() -> Vec<Case> {
    const MIN: PublishParts<'_> = PublishParts {
        route: Route::Named { exchange: "", routing_key: "orders" },
        mandatory: false,
        persistent: false,
        priority: None,
        ttl_ms: None,
        cc: &[],
        bcc: &[],
        properties: &[],
        body: b"hello",
    };
    fn all(properties: &[u8]) -> PublishParts<'_> {
        PublishParts {
            route: Route::Named { exchange: "events", routing_key: "order.paid" },
            mandatory: true,
            persistent: true,
            priority: Some(5),
            ttl_ms: Some(60_000),
            cc: &["a", "bc"],
            bcc: &["d"],
            properties,
            body: b"hello",
        }
    }
    const ALIAS: PublishParts<'_> = PublishParts { route: Route::Alias(3), persistent: true, ..MIN };
    fn check(frame: &Frame, parts: &PublishParts<'_>) {
        let publish = Publish::decode(frame.flags, &frame.payload).unwrap();
        assert_eq!((frame.kind, frame.channel), (kind::PUBLISH, 1));
        assert_eq!(
            (publish.route, publish.mandatory, publish.persistent),
            (parts.route, parts.mandatory, parts.persistent)
        );
        assert_eq!((publish.priority, publish.ttl_ms), (parts.priority, parts.ttl_ms));
        assert_eq!(keys(publish.cc), parts.cc);
        assert_eq!(keys(publish.bcc), parts.bcc);
        assert_eq!((publish.properties(), publish.body()), (parts.properties, parts.body));
    }
    vec![
        Case {
            name: "publish-min",
            comment: "publish: \"hello\" to the default exchange",
            fields: vec![(1, "exchange: \"\""), (7, "routing key: \"orders\""), (4, "properties: none")],
            encode: |out| _ = MIN.encode(1, out),
            check: |frame| check(frame, &MIN),
        },
        Case {
            name: "publish-alias",
            comment: "publish: persistent, to the route that was registered as 3",
            fields: vec![(4, "alias: 3"), (4, "properties: none")],
            encode: |out| _ = ALIAS.encode(1, out),
            check: |frame| check(frame, &ALIAS),
        },
        Case {
            name: "publish-all",
            comment: "publish: mandatory and persistent, with every optional field",
            fields: vec![
                (7, "exchange: \"events\""),
                (11, "routing key: \"order.paid\""),
                (1, "priority: 5"),
                (8, "time to live: 60000 ms"),
                (6, "CC: 2 keys, \"a\" and \"bc\""),
                (3, "BCC: 1 key, \"d\""),
                (4 + properties().len(), "properties: content_type \"text/plain\", headers {\"attempt\": 2}"),
            ],
            encode: |out| _ = all(&properties()).encode(1, out),
            check: |frame| check(frame, &all(&properties())),
        },
    ]
}

fn keys(keys: Keys<'_>) -> Vec<&str> {
    keys.iter().collect()
}

fn min_delivery() -> Deliver<'static> {
    Deliver {
        consumer: 2,
        tag: 1,
        redelivered: None,
        persistent: false,
        priority: None,
        ttl_ms: None,
        published_at_ms: 1_700_000_000_000,
        exchange: "",
        routing_key: "orders",
        cc: Keys::default(),
        deaths: &[],
        properties: &[],
        body: b"hello",
    }
}

fn full_delivery<'a>(deaths: &'a [u8], properties: &'a [u8]) -> Deliver<'a> {
    Deliver {
        tag: 9,
        redelivered: Some(1),
        persistent: true,
        priority: Some(5),
        ttl_ms: Some(60_000),
        exchange: "events",
        routing_key: "order.paid",
        deaths,
        properties,
        ..min_delivery()
    }
}

fn deliveries() -> Vec<Case> {
    const CC: [&str; 2] = ["a", "bc"];
    fn check(frame: &Frame, expected: Deliver<'_>, cc: &[&str]) {
        assert_eq!((frame.kind, frame.channel), (kind::DELIVER, 1));
        let deliver = Deliver::decode(frame.flags, &frame.payload).unwrap();
        assert_eq!(keys(deliver.cc), cc);
        assert_eq!(deliver, Deliver { cc: deliver.cc, ..expected });
    }
    vec![
        Case {
            name: "deliver-min",
            comment: "deliver: \"hello\" to consumer 2",
            fields: vec![
                (4, "consumer: 2"),
                (8, "delivery tag: 1"),
                (8, "time: 1700000000000"),
                (1, "exchange: \"\""),
                (7, "routing key: \"orders\""),
                (4, "properties: none"),
            ],
            encode: |out| _ = DeliverParts { deliver: min_delivery(), cc: [].into_iter() }.encode(1, out),
            check: |frame| check(frame, min_delivery(), &[]),
        },
        Case {
            name: "deliver-all",
            comment: "deliver: redelivered and persistent, with every optional field",
            fields: vec![
                (4, "consumer: 2"),
                (8, "delivery tag: 9"),
                (8, "time: 1700000000000"),
                (7, "exchange: \"events\""),
                (11, "routing key: \"order.paid\""),
                (4, "delivery count: 1"),
                (1, "priority: 5"),
                (8, "time to live: 60000 ms"),
                (6, "CC: 2 keys, \"a\" and \"bc\""),
                (4 + deaths().len(), "death history: rejected once by \"orders\""),
                (4 + properties().len(), "properties: content_type \"text/plain\", headers {\"attempt\": 2}"),
            ],
            encode: |out| {
                let (deaths, properties) = (deaths(), properties());
                DeliverParts { deliver: full_delivery(&deaths, &properties), cc: CC.into_iter() }
                    .encode(1, out);
            },
            check: |frame| check(frame, full_delivery(&deaths(), &properties()), &CC),
        },
    ]
}

fn settles() -> Vec<Case> {
    const ACK: SettleParts<'_> =
        SettleParts { consumer: 2, verb: Verb::Ack, confirm: false, note: None, ranges: &[(0, 9)] };
    const REJECT: SettleParts<'_> = SettleParts {
        consumer: 2,
        verb: Verb::Reject,
        confirm: true,
        note: Some("too old"),
        ranges: &[(1, 1), (4, 9)],
    };
    const SETTLED: SettleParts<'_> = SettleParts { note: None, ..REJECT };
    fn check(frame: &Frame, frame_kind: u8, parts: &SettleParts<'_>) {
        assert_eq!((frame.kind, frame.channel), (frame_kind, 1));
        let settle = Settle::decode(frame.flags, &frame.payload).unwrap();
        assert_eq!((settle.consumer, settle.verb), (parts.consumer, parts.verb));
        assert_eq!((settle.confirm, settle.note), (parts.confirm, parts.note));
        assert_eq!(settle.ranges.iter().collect::<Vec<_>>(), parts.ranges);
    }
    vec![
        Case {
            name: "settle-min",
            comment: "settle: ack everything up to delivery 9",
            fields: vec![(4, "consumer: 2"), (16, "range: 0 (all unsettled) to 9")],
            encode: |out| ACK.encode(kind::SETTLE, 1, out),
            check: |frame| check(frame, kind::SETTLE, &ACK),
        },
        Case {
            name: "settle-all",
            comment: "settle: reject deliveries 1 and 4 to 9 with a note, and say when that is on disk",
            fields: vec![
                (4, "consumer: 2"),
                (8, "note: \"too old\""),
                (16, "range: 1 to 1"),
                (16, "range: 4 to 9"),
            ],
            encode: |out| REJECT.encode(kind::SETTLE, 1, out),
            check: |frame| check(frame, kind::SETTLE, &REJECT),
        },
        Case {
            name: "settled",
            comment: "settled: the rejections are on disk",
            fields: vec![(4, "consumer: 2"), (16, "range: 1 to 1"), (16, "range: 4 to 9")],
            encode: |out| SETTLED.encode(kind::SETTLED, 1, out),
            check: |frame| check(frame, kind::SETTLED, &SETTLED),
        },
    ]
}

fn others() -> Vec<Case> {
    const CONFIRMS: [Confirm; 3] = [
        Confirm { first: 1, count: 100, outcome: Outcome::Routed(2) },
        Confirm { first: 101, count: 1, outcome: Outcome::Unroutable },
        Confirm { first: 103, count: 2, outcome: Outcome::Refused(ReplyCode::NotFound) },
    ];
    fn returned(properties: &[u8]) -> Return<'_> {
        Return {
            number: 101,
            code: ReplyCode::NoRoute,
            exchange: "events",
            routing_key: "order.lost",
            properties,
            body: b"hello",
        }
    }
    const CREDIT: Credit = Credit { consumer: 2, messages: 500 };
    vec![
        Case {
            name: "confirm",
            comment: "confirm: 1 to 100 are in two queues each, 101 found none, 103 and 104 were refused",
            fields: vec![
                (16, "first 1, count 100, outcome 0, zero, 2 queues"),
                (16, "first 101, count 1, outcome 1, zero, 0"),
                (16, "first 103, count 2, outcome 2, zero, code 404"),
            ],
            encode: |out| Confirm::encode(&CONFIRMS, 1, out),
            check: |frame| assert!(Confirm::decode(&frame.payload).unwrap().eq(CONFIRMS)),
        },
        Case {
            name: "return",
            comment: "return: publish 101 was mandatory and found no queue",
            fields: vec![
                (8, "number: 101"),
                (2, "code: 312"),
                (7, "exchange: \"events\""),
                (11, "routing key: \"order.lost\""),
                (4 + properties().len(), "properties: content_type \"text/plain\", headers {\"attempt\": 2}"),
            ],
            encode: |out| returned(&properties()).encode(1, out),
            check: |frame| assert_eq!(Return::decode(&frame.payload).unwrap(), returned(&properties())),
        },
        Case {
            name: "credit",
            comment: "credit: 500 more deliveries for consumer 2",
            fields: vec![(4, "consumer: 2"), (4, "deliveries: 500")],
            encode: |out| CREDIT.encode(1, out),
            check: |frame| assert_eq!(Credit::decode(&frame.payload).unwrap(), CREDIT),
        },
        Case {
            name: "heartbeat",
            comment: "heartbeat",
            fields: vec![],
            encode: |out| {
                Frame { kind: kind::HEARTBEAT, flags: 0, channel: 0, payload: Bytes::new() }.encode(out);
            },
            check: |frame| {
                assert_eq!((frame.kind, frame.channel, frame.payload.len()), (kind::HEARTBEAT, 0, 0));
            },
        },
    ]
}
