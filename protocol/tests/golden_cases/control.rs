//! Control frames for the golden files.

use leveret_protocol::{
    Authenticate, Authenticated, Bind, Cancel, Challenge, ChannelClosed, Close, CloseChannel, Closed, Closes,
    Consume, ConsumerCancelled, Control, DeclareExchange, DeclareQueue, DeleteExchange, DeleteQueue,
    Destination, Done, ExchangeName, Failed, Get, Hello, Open, OpenChannel, Opened, PublishingPaused,
    PublishingResumed, PurgeQueue, QueueName, RegisterRoute, ReplyCode, Response, RoutingKey, Table, Unbind,
    Value, VhostName,
};

/// A control frame with all its fields, and, if any is optional, what it means without them.
pub(crate) struct Case {
    /// The file's name; `-min` follows for the frame without optional fields.
    pub(crate) name: &'static str,
    pub(crate) channel: u16,
    pub(crate) all: Control,
    /// The fields that must be there, and the frame that they make.
    pub(crate) min: Option<(Table, Control)>,
}

fn case(name: &'static str, channel: u16, all: impl Into<Control>) -> Case {
    Case { name, channel, all: all.into(), min: None }
}

impl Case {
    fn min<const N: usize>(mut self, required: [(&str, Value); N], min: impl Into<Control>) -> Self {
        let required = required.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        self.min = Some((required, min.into()));
        self
    }
}

fn exchange(name: &str) -> ExchangeName {
    ExchangeName::new(name).unwrap()
}

fn queue(name: &str) -> QueueName {
    QueueName::new(name).unwrap()
}

fn key(name: &str) -> RoutingKey {
    RoutingKey::new(name).unwrap()
}

fn table<const N: usize>(entries: [(&str, Value); N]) -> Table {
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Every kind of control frame.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = handshake();
    cases.extend(closing());
    cases.extend(requests_and_answers());
    cases.extend(definitions());
    cases.extend(bindings());
    cases.extend(consumers());
    cases
}

fn handshake() -> Vec<Case> {
    let open = |client_name: &str, client_product: &str| Open {
        vhost: VhostName::new("/").unwrap(),
        frame_bytes_max: 1_048_576,
        channels_max: 64,
        heartbeat_ms: 20_000,
        client_name: client_name.to_owned(),
        client_product: client_product.to_owned(),
    };
    vec![
        case(
            "hello",
            0,
            Hello {
                product: "Leveret".to_owned(),
                version: "0.1.0".to_owned(),
                mechanisms: vec!["SCRAM-SHA-256".to_owned(), "PLAIN".to_owned()],
                frame_bytes_max: 16_842_752,
                channels_max: 2047,
                heartbeat_ms: 30_000,
            },
        ),
        case(
            "authenticate",
            0,
            Authenticate { mechanism: "PLAIN".to_owned(), initial: b"\0guest\0guest".to_vec() },
        ),
        case("challenge", 0, Challenge { data: b"r=abc".to_vec() }),
        case("response", 0, Response { data: b"c=biws".to_vec() }),
        case("authenticated", 0, Authenticated { data: b"v=abc".to_vec() })
            .min([], Authenticated { data: Vec::new() }),
        case("open", 0, open("billing-1", "leveret-client 0.1.0")).min(
            [
                ("vhost", "/".into()),
                ("frame_bytes_max", 1_048_576.into()),
                ("channels_max", 64.into()),
                ("heartbeat_ms", 20_000.into()),
            ],
            open("", ""),
        ),
        case(
            "opened",
            0,
            Opened { connection: 17, frame_bytes_max: 1_048_576, channels_max: 64, heartbeat_ms: 20_000 },
        ),
    ]
}

fn closing() -> Vec<Case> {
    vec![
        case("close", 0, Close { code: ReplyCode::Ok, text: "done".to_owned() }),
        case("closed", 0, Closed {}),
        case("publishing-paused", 0, PublishingPaused { reason: "the disk is almost full".to_owned() }),
        case("publishing-resumed", 0, PublishingResumed {}),
        case(
            "channel-closed",
            1,
            ChannelClosed {
                code: ReplyCode::PreconditionFailed,
                text: "consumer 1 has no unsettled delivery 9".to_owned(),
                operation: "Settle".to_owned(),
            },
        ),
        case(
            "consumer-cancelled",
            1,
            ConsumerCancelled {
                consumer: 1,
                code: ReplyCode::NotFound,
                text: "the queue was deleted".to_owned(),
            },
        ),
    ]
}

fn requests_and_answers() -> Vec<Case> {
    let failed = |closes| Failed {
        request: 7,
        operation: "PurgeQueue".to_owned(),
        code: ReplyCode::NotFound,
        text: "there is no queue \"orders\"".to_owned(),
        closes,
    };
    vec![
        case("open-channel", 1, OpenChannel { request: 7, confirms: true })
            .min([("request", 7.into())], OpenChannel { request: 7, confirms: false }),
        case("close-channel", 1, CloseChannel { request: 7 }),
        case(
            "done",
            1,
            Done {
                request: 7,
                queue: Some(queue("orders")),
                messages: Some(1_000),
                consumers: Some(2),
                found: Some(true),
            },
        )
        .min(
            [("request", 7.into())],
            Done { request: 7, queue: None, messages: None, consumers: None, found: None },
        ),
        case("failed", 1, failed(Closes::Channel)).min(
            [
                ("request", 7.into()),
                ("operation", "PurgeQueue".into()),
                ("code", 404.into()),
                ("text", "there is no queue \"orders\"".into()),
            ],
            failed(Closes::Nothing),
        ),
    ]
}

fn definitions() -> Vec<Case> {
    let declare_exchange = |set: bool, arguments: Table| DeclareExchange {
        request: 7,
        exchange: exchange("events"),
        kind: "topic".to_owned(),
        passive: set,
        durable: set,
        auto_delete: set,
        internal: set,
        arguments,
    };
    let declare_queue = |set: bool, arguments: Table| DeclareQueue {
        request: 7,
        queue: queue("orders"),
        passive: set,
        durable: set,
        exclusive: set,
        auto_delete: set,
        arguments,
    };
    let named_queue = || [("request", 7.into()), ("queue", "orders".into())];
    vec![
        case(
            "declare-exchange",
            1,
            declare_exchange(true, table([("alternate-exchange", "unrouted".into())])),
        )
        .min(
            [("request", 7.into()), ("exchange", "events".into()), ("type", "topic".into())],
            declare_exchange(false, Table::new()),
        ),
        case(
            "delete-exchange",
            1,
            DeleteExchange { request: 7, exchange: exchange("events"), if_unused: true },
        )
        .min(
            [("request", 7.into()), ("exchange", "events".into())],
            DeleteExchange { request: 7, exchange: exchange("events"), if_unused: false },
        ),
        case("declare-queue", 1, declare_queue(true, every_value()))
            .min(named_queue(), declare_queue(false, Table::new())),
        case(
            "delete-queue",
            1,
            DeleteQueue { request: 7, queue: queue("orders"), if_unused: true, if_empty: true },
        )
        .min(
            named_queue(),
            DeleteQueue { request: 7, queue: queue("orders"), if_unused: false, if_empty: false },
        ),
        case("purge-queue", 1, PurgeQueue { request: 7, queue: queue("orders") }),
    ]
}

/// One of each kind of value.
fn every_value() -> Table {
    table([
        ("bool", true.into()),
        ("bytes", Value::Bytes(vec![0, 255])),
        ("float", 0.5.into()),
        ("int", (-70_000).into()),
        ("list", vec![Value::Null, 1.into()].into()),
        ("null", Value::Null),
        ("table", table([("in", "side".into())]).into()),
        ("text", "köln".into()),
        ("timestamp", Value::Timestamp(1_700_000_000)),
        ("uint", u64::MAX.into()),
    ])
}

fn bindings() -> Vec<Case> {
    let bind = |destination, routing_key: &str, arguments| Bind {
        request: 7,
        source: exchange("events"),
        destination,
        routing_key: key(routing_key),
        arguments,
    };
    let unbind = |destination, routing_key: &str, arguments| Unbind {
        request: 7,
        source: exchange("events"),
        destination,
        routing_key: key(routing_key),
        arguments,
    };
    let to_queue = || Destination::Queue(queue("orders"));
    let to_exchange = || Destination::Exchange(exchange("audit"));
    let arguments = || table([("x-match", "any".into())]);
    vec![
        case("bind", 1, bind(to_queue(), "order.*", arguments())).min(
            [("request", 7.into()), ("source", "events".into()), ("queue", "orders".into())],
            bind(to_queue(), "", Table::new()),
        ),
        case("bind-exchange", 1, bind(to_exchange(), "#", arguments())),
        case("unbind", 1, unbind(to_queue(), "order.*", arguments())).min(
            [("request", 7.into()), ("source", "events".into()), ("exchange", "audit".into())],
            unbind(to_exchange(), "", Table::new()),
        ),
        case(
            "register-route",
            1,
            RegisterRoute {
                request: 7,
                alias: 3,
                exchange: exchange("events"),
                routing_key: key("order.paid"),
            },
        ),
    ]
}

fn consumers() -> Vec<Case> {
    let get = |no_ack| Get { request: 7, queue: queue("orders"), consumer: 2, no_ack };
    let required = || [("request", 7.into()), ("queue", "orders".into()), ("consumer", 2.into())];
    let consume = |tag: &str, set: bool, prefetch, priority| Consume {
        request: 7,
        queue: queue("orders"),
        consumer: 2,
        tag: tag.to_owned(),
        no_ack: set,
        exclusive: set,
        prefetch,
        priority,
    };
    vec![
        case("consume", 1, consume("billing", true, 200, -1)).min(required(), consume("", false, 0, 0)),
        case("cancel", 1, Cancel { request: 7, consumer: 2 }),
        case("get", 1, get(true)).min(required(), get(false)),
    ]
}
