//! Random names, values and control frames.

use leveret_protocol::{
    Authenticate, Authenticated, Bind, Cancel, Challenge, ChannelClosed, Close, CloseChannel, Closed, Closes,
    Consume, ConsumerCancelled, Control, DeclareExchange, DeclareQueue, DeleteExchange, DeleteQueue,
    Destination, Done, ExchangeName, Failed, Get, Hello, Open, OpenChannel, Opened, PublishingPaused,
    PublishingResumed, PurgeQueue, QueueName, RegisterRoute, ReplyCode, Response, RoutingKey, Table, Unbind,
    VALUE_DEPTH_MAX, Value, VhostName,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

/// Any text that is a name, up to the longest.
pub(crate) fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "\\PC{0,20}",
        1 => "[a-z.]{250,255}",
        // Two bytes each: 254 bytes.
        1 => "[à-ÿ]{127}",
    ]
}

fn exchange() -> impl Strategy<Value = ExchangeName> {
    name().prop_map(|name| ExchangeName::new(name).unwrap())
}

fn queue() -> impl Strategy<Value = QueueName> {
    name().prop_map(|name| QueueName::new(name).unwrap())
}

fn key() -> impl Strategy<Value = RoutingKey> {
    name().prop_map(|name| RoutingKey::new(name).unwrap())
}

fn vhost() -> impl Strategy<Value = VhostName> {
    "\\PC{1,20}".prop_map(|name| VhostName::new(name).unwrap())
}

fn text() -> impl Strategy<Value = String> {
    any::<String>()
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..40)
}

/// Any value in the form that reading gives: an unsigned integer only where a signed one does not fit.
pub(crate) fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
        bytes().prop_map(Value::Bytes),
        any::<i64>().prop_map(Value::Timestamp),
    ];
    // One level less than allowed is left for the table around it, and one for a timestamp, which is a table.
    let depth = u32::try_from(VALUE_DEPTH_MAX).unwrap() - 2;
    leaf.prop_recursive(depth, 48, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::List),
            btree_map("[a-z]{0,6}", inner, 0..4).prop_map(Value::Table),
        ]
    })
}

/// Any table. A key that stands for a timestamp where it is alone does not occur.
pub(crate) fn table() -> impl Strategy<Value = Table> {
    btree_map("\\PC{0,8}", value(), 0..4)
}

fn code() -> impl Strategy<Value = ReplyCode> {
    any::<u16>().prop_map(ReplyCode::from)
}

fn destination() -> impl Strategy<Value = Destination> {
    prop_oneof![queue().prop_map(Destination::Queue), exchange().prop_map(Destination::Exchange)]
}

/// Frames whose fields each have a strategy.
macro_rules! frames {
    ($($name:ident { $($field:ident: $strategy:expr),* $(,)? }),* $(,)?) => {
        /// For every kind of control frame a strategy that makes it.
        pub(crate) fn controls() -> Vec<BoxedStrategy<Control>> {
            vec![$(
                (Just(()), $($strategy,)*).prop_map(|((), $($field,)*)| Control::from($name { $($field),* })).boxed()
            ),*]
        }
    };
}

frames! {
    Hello {
        product: text(), version: text(), mechanisms: vec(text(), 0..4), frame_bytes_max: any::<u32>(),
        channels_max: any::<u16>(), heartbeat_ms: any::<u32>(),
    },
    Authenticate { mechanism: text(), initial: bytes() },
    Challenge { data: bytes() },
    Response { data: bytes() },
    Authenticated { data: bytes() },
    Open {
        vhost: vhost(), frame_bytes_max: any::<u32>(), channels_max: any::<u16>(), heartbeat_ms: any::<u32>(),
        client_name: text(), client_product: text(),
    },
    Opened {
        connection: any::<u64>(), frame_bytes_max: any::<u32>(), channels_max: any::<u16>(),
        heartbeat_ms: any::<u32>(),
    },
    Close { code: code(), text: text() },
    Closed {},
    PublishingPaused { reason: text() },
    PublishingResumed {},
    OpenChannel { request: any::<u32>(), confirms: any::<bool>() },
    CloseChannel { request: any::<u32>() },
    ChannelClosed { code: code(), text: text(), operation: text() },
    Done {
        request: any::<u32>(), queue: option::of(queue()), messages: option::of(any::<u64>()),
        consumers: option::of(any::<u32>()), found: option::of(any::<bool>()),
    },
    Failed {
        request: any::<u32>(), operation: text(), code: code(), text: text(),
        closes: prop_oneof![Just(Closes::Nothing), Just(Closes::Channel), Just(Closes::Connection)],
    },
    DeclareExchange {
        request: any::<u32>(), exchange: exchange(), kind: text(), passive: any::<bool>(), durable: any::<bool>(),
        auto_delete: any::<bool>(), internal: any::<bool>(), arguments: table(),
    },
    DeleteExchange { request: any::<u32>(), exchange: exchange(), if_unused: any::<bool>() },
    DeclareQueue {
        request: any::<u32>(), queue: queue(), passive: any::<bool>(), durable: any::<bool>(),
        exclusive: any::<bool>(), auto_delete: any::<bool>(), arguments: table(),
    },
    DeleteQueue { request: any::<u32>(), queue: queue(), if_unused: any::<bool>(), if_empty: any::<bool>() },
    PurgeQueue { request: any::<u32>(), queue: queue() },
    Bind {
        request: any::<u32>(), source: exchange(), destination: destination(), routing_key: key(),
        arguments: table(),
    },
    Unbind {
        request: any::<u32>(), source: exchange(), destination: destination(), routing_key: key(),
        arguments: table(),
    },
    Consume {
        request: any::<u32>(), queue: queue(), consumer: any::<u32>(), tag: text(), no_ack: any::<bool>(),
        exclusive: any::<bool>(), prefetch: any::<u32>(), priority: any::<i32>(),
    },
    Cancel { request: any::<u32>(), consumer: any::<u32>() },
    Get { request: any::<u32>(), queue: queue(), consumer: any::<u32>(), no_ack: any::<bool>() },
    ConsumerCancelled { consumer: any::<u32>(), code: code(), text: text() },
    RegisterRoute { request: any::<u32>(), alias: any::<u32>(), exchange: exchange(), routing_key: key() },
}
