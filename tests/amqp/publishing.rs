//! Publishing: what arrives, what comes back, what is confirmed, and transactions.

use leveret_tests::amqp::{
    BODY, HEADER, Peer, Post, Properties, Table, Target, Value, close, frame_bytes, header_payload,
    method_bytes,
};
use leveret_tests::{amqp_array, amqp_table, fields};

/// A value of each type that RabbitMQ knows.
fn all_types() -> Table {
    amqp_table! {
        "bool" => true,
        "i8" => -8_i8,
        "i16" => -16_i16,
        "i32" => -32,
        "i64" => -64_i64,
        "u8" => 8_u8,
        "u16" => 16_u16,
        "u32" => 32_u32,
        "f32" => 1.5_f32,
        "f64" => -2.5_f64,
        "decimal" => Value::Decimal(2, 314),
        "text" => "schön",
        "bytes" => Value::Bytes(vec![0, 255]),
        "time" => Value::Time(1_700_000_000),
        "void" => Value::Void,
        "array" => amqp_array![1, "two", amqp_array![]],
        "table" => amqp_table! { "inner" => amqp_table! { "deep" => 1_i64 } },
    }
}

/// All that a message can carry.
fn everything() -> Properties {
    let text = |text: &str| Some(text.to_owned());
    Properties {
        content_type: text("text/plain"),
        content_encoding: text("utf-8"),
        headers: Some(all_types()),
        delivery_mode: Some(2),
        priority: Some(7),
        correlation_id: text("correlation"),
        reply_to: text("reply"),
        expiration: text("600000"),
        message_id: text("id"),
        timestamp: Some(1_700_000_001),
        message_type: text("type"),
        user_id: text("guest"),
        app_id: text("application"),
        cluster_id: text("cluster"),
    }
}

/// A queue that holds one message and refuses the next.
async fn full_queue(target: &Target, peer: &mut Peer) -> String {
    let queue = target.name("full");
    peer.queue(&queue, amqp_table! { "x-max-length" => 1, "x-overflow" => "reject-publish" }).await;
    peer.fill(&queue, &["first"]).await;
    queue
}

#[tokio::test]
async fn a_message_arrives_with_all_that_it_was_published_with() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let (exchange, queue) = (target.name("everything"), target.name("everything"));
    peer.exchange(&exchange, "fanout", amqp_table! {}).await;
    peer.queue(&queue, amqp_table! {}).await;
    peer.bind(&queue, &exchange, "").await;
    for properties in [
        everything(),
        Properties::default(),
        Properties { headers: Some(amqp_table! {}), ..Default::default() },
    ] {
        let post = Post { exchange: &exchange, key: "a key", properties, body: "body", ..Post::default() };
        peer.post(&post).await;
        peer.until_counts(&queue, (1, 0)).await;
        let message = peer.get_with(&queue, true).await.unwrap();
        assert_eq!(message.properties, post.properties);
        assert_eq!(
            (message.exchange.as_str(), message.key.as_str(), message.body.as_str()),
            (exchange.as_str(), "a key", "body")
        );
    }
}

#[tokio::test]
async fn bodies_of_all_lengths_arrive_in_frames_that_fit() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("lengths");
    peer.queue(&queue, amqp_table! {}).await;
    peer.consume(&queue, "c").await;
    for length in [0, 1, 131_063, 131_064, 131_065, 262_128, 500_000] {
        let body = "x".repeat(length);
        peer.publish("", &queue, &body).await;
        let message = peer.delivery().await;
        assert!(message.body == body, "{length} bytes became {}", message.body.len());
    }
}

#[tokio::test]
async fn a_body_may_come_in_any_pieces() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("pieces");
    peer.queue(&queue, amqp_table! {}).await;
    peer.send("basic.publish", fields!["", &queue, false, false]).await;
    peer.write_frame(HEADER, &header_payload(6, &Properties::default())).await;
    for piece in ["", "abc", "", "d", "ef"] {
        peer.write_frame(BODY, piece.as_bytes()).await;
    }
    assert_eq!(peer.get_soon(&queue).await.body, "abcdef");
}

#[tokio::test]
async fn messages_on_several_channels_may_come_mixed() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("mixed");
    peer.queue(&queue, amqp_table! {}).await;
    peer.open_channel(2).await;
    let asked = fields!["", &queue, false, false];
    let head = header_payload(4, &Properties::default());
    let parts = [
        method_bytes(1, "basic.publish", &asked),
        method_bytes(2, "basic.publish", &asked),
        frame_bytes(HEADER, 2, &head),
        frame_bytes(HEADER, 1, &head),
        frame_bytes(BODY, 1, b"on"),
        frame_bytes(BODY, 2, b"tw"),
        frame_bytes(BODY, 2, b"o!"),
        frame_bytes(BODY, 1, b"e!"),
    ];
    peer.write(&parts.concat()).await;
    peer.until_counts(&queue, (2, 0)).await;
    let mut bodies = peer.drain(&queue).await;
    // Two channels are not in order with each other.
    bodies.sort_unstable();
    assert_eq!(bodies, ["one!", "two!"]);
}

#[tokio::test]
async fn what_is_mandatory_and_goes_nowhere_comes_back_before_its_confirm() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    peer.confirm().await;
    let key = target.name("nowhere");
    let post = Post {
        exchange: "amq.direct",
        key: &key,
        mandatory: true,
        properties: everything(),
        body: "back",
        ..Post::default()
    };
    peer.post(&post).await;
    let returned = peer.message_on(1, "basic.return").await;
    assert_eq!(returned.fields, fields![312, "NO_ROUTE", "amq.direct", &key]);
    assert_eq!((returned.properties, returned.body.as_str()), (everything(), "back"));
    assert_eq!(peer.confirmed().await, ("basic.ack", 1));
    peer.post(&Post { mandatory: false, ..post.clone() }).await;
    assert_eq!(peer.confirmed().await, ("basic.ack", 2), "dropped, which is no failure");
    // An empty body comes back, too.
    peer.post(&Post { body: "", ..post }).await;
    assert_eq!(peer.message_on(1, "basic.return").await.body, "");
    assert_eq!(peer.confirmed().await, ("basic.ack", 3));
}

#[tokio::test]
async fn immediate_is_540() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    peer.post(&Post { immediate: true, ..Post::default() }).await;
    let closed = peer.closed().await;
    assert_eq!(closed, close(540, "NOT_IMPLEMENTED - immediate=true", "basic.publish"));
}

#[tokio::test]
async fn each_publish_is_confirmed_once() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("confirms");
    peer.queue(&queue, amqp_table! {}).await;
    peer.confirm().await;
    // A second select changes nothing; one that wants no answer gets none.
    peer.confirm().await;
    peer.send("confirm.select", fields![true]).await;
    let persistent = Properties { delivery_mode: Some(2), ..Properties::default() };
    let mut bytes = Vec::new();
    for number in 0..200 {
        let properties = if number % 3 == 0 { persistent.clone() } else { Properties::default() };
        let key = if number % 5 == 0 { "nowhere" } else { &queue };
        bytes.extend(Post { key, properties, body: "x", ..Post::default() }.encode(1, 4096));
    }
    peer.write(&bytes).await;
    assert_eq!(peer.all_confirmed(1, 200).await, Vec::<u64>::new());
    assert_eq!(peer.counts(&queue).await, (160, 0));
}

#[tokio::test]
async fn a_full_queue_refuses_with_a_nack() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = full_queue(&target, &mut peer).await;
    peer.confirm().await;
    peer.publish("", &queue, "refused").await;
    assert_eq!(peer.confirmed().await, ("basic.nack", 1));
    assert_eq!(peer.drain(&queue).await, ["first"]);
    peer.publish("", &queue, "taken").await;
    assert_eq!(peer.confirmed().await, ("basic.ack", 2));
}

#[tokio::test]
async fn one_queue_of_two_that_refuses_is_one_nack_and_the_other_keeps_its_copy() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let (full, other, exchange) =
        (full_queue(&target, &mut peer).await, target.name("other"), target.name("both"));
    peer.queue(&other, amqp_table! {}).await;
    peer.exchange(&exchange, "fanout", amqp_table! {}).await;
    peer.bind(&full, &exchange, "").await;
    peer.bind(&other, &exchange, "").await;
    peer.confirm().await;
    peer.publish(&exchange, "", "both").await;
    assert_eq!(peer.confirmed().await, ("basic.nack", 1));
    assert_eq!(peer.get_soon(&other).await.body, "both");
    assert_eq!(peer.drain(&full).await, ["first"]);
}

#[tokio::test]
async fn what_cannot_be_is_406() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let text = |text: &str| Some(text.to_owned());
    let headers = |headers: Table| Properties { headers: Some(headers), ..Properties::default() };
    let cases = [
        (Properties { expiration: text("soon"), ..Properties::default() }, "invalid expiration 'soon': "),
        (Properties { expiration: text("-1"), ..Properties::default() }, "invalid expiration '-1': "),
        (Properties { expiration: text("1.5"), ..Properties::default() }, "invalid expiration '1.5': "),
        (Properties { expiration: text(""), ..Properties::default() }, "invalid expiration '': "),
        (
            Properties { user_id: text("somebody"), ..Properties::default() },
            "user_id property set to 'somebody' but authenticated user was 'guest'",
        ),
        (
            headers(amqp_table! { "CC" => "not an array" }),
            "invalid message: {unacceptable_type_in_header,\"CC\",longstr}",
        ),
        (headers(amqp_table! { "BCC" => 1 }), "invalid message: "),
    ];
    for (properties, text) in cases {
        peer.post(&Post { key: "q", properties, body: "x", ..Post::default() }).await;
        let closed = peer.channel_closed().await;
        assert_eq!((closed.code, closed.method.as_str()), (406, "basic.publish"), "{closed:?}");
        assert!(closed.text.starts_with(&format!("PRECONDITION_FAILED - {text}")), "{text}: {closed:?}");
        peer.open_channel(1).await;
    }
}
