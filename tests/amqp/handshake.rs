//! From the socket to the open connection, and its end.

use leveret_tests::amqp::{Close, Login, Peer, Target, Value, close};
use leveret_tests::{amqp_table, fields};

/// What the peer says of itself when it wants to be told why it may not log in: nothing.
fn without_capabilities() -> Login {
    Login { capabilities: amqp_table! {}, ..Login::default() }
}

/// How an error before the connection is open ends it.
fn told_why(target: &Target, closed: Close) -> Option<Close> {
    target.differs(None, Some(closed), "RabbitMQ ends a handshake that goes wrong without saying why")
}

#[tokio::test]
async fn the_start_says_what_clients_look_at() {
    let target = Target::start().await;
    let start = target.socket().await.greet().await;
    assert_eq!((start[0].number(), start[1].number()), (0, 9), "the version");
    let mechanisms: Vec<&str> = start[3].text().split(' ').collect();
    assert!(mechanisms.contains(&"PLAIN") && mechanisms.contains(&"AMQPLAIN"), "{mechanisms:?}");
    assert_eq!(start[4].text(), "en_US");
    let properties = start[2].table();
    for name in ["product", "version", "platform", "copyright", "information"] {
        assert!(matches!(properties.get(name), Some(Value::Text(text)) if !text.is_empty()), "{name}");
    }
    let capabilities = properties.table("capabilities");
    for name in [
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "consumer_priorities",
        "authentication_failure_close",
        "per_consumer_qos",
        "direct_reply_to",
    ] {
        assert_eq!(capabilities.get(name), Some(&Value::Bool(true)), "{name}");
    }
}

#[tokio::test]
async fn another_protocol_is_answered_with_the_header_of_ours_and_hung_up_on() {
    let target = Target::start().await;
    for header in [&b"HTTP/1.1"[..], b"AMQP\0\0\x09\0", b"AMQP\x01\x01\0\x0a", b"AMQP\0\x09\x09\x01"] {
        let mut peer = target.socket().await;
        peer.write(header).await;
        assert_eq!(peer.read_bytes(100).await, b"AMQP\0\0\x09\x01", "after {header:?}");
    }
}

#[tokio::test]
async fn amqplain_is_a_table_without_its_length() {
    let target = Target::start().await;
    let mut bytes = Vec::new();
    let table = amqp_table! { "LOGIN" => "guest", "PASSWORD" => "guest" };
    leveret_tests::amqp::put_table(&mut bytes, &table);
    let response = String::from_utf8(bytes.split_off(4)).unwrap();
    let login = Login { mechanism: "AMQPLAIN", response: Some(response), ..Login::default() };
    Peer::connect(target.address, &login).await.leave().await;
}

#[tokio::test]
async fn wrong_credentials_close_with_403_if_the_client_can_take_it() {
    let target = Target::start().await;
    let refused = |mechanism: &str| {
        let text = format!(
            "ACCESS_REFUSED - Login was refused using authentication mechanism {mechanism}. For details see the broker \
             logfile."
        );
        close(403, text, "")
    };
    let wrong_password = Login { password: "wrong", ..Login::default() };
    assert_eq!(target.socket().await.enter(&wrong_password).await, Err(Some(refused("PLAIN"))));
    let unknown_user = Login { user: "nobody", ..Login::default() };
    assert_eq!(target.socket().await.enter(&unknown_user).await, Err(Some(refused("PLAIN"))));
}

#[tokio::test]
async fn wrong_credentials_end_the_socket_without_a_word_if_the_client_cannot() {
    let target = Target::start().await;
    let mut peer = target.socket().await;
    peer.greet().await;
    peer.say_who(&Login { password: "wrong", ..without_capabilities() }).await;
    assert_eq!(peer.frame().await, None);
}

#[tokio::test]
async fn a_mechanism_that_is_not_offered_is_refused() {
    let target = Target::start().await;
    let login = Login { mechanism: "KERBEROS", ..Login::default() };
    let refused = target.socket().await.enter(&login).await;
    let text = "COMMAND_INVALID - unknown authentication mechanism 'KERBEROS'";
    assert_eq!(refused, Err(told_why(&target, close(503, text, "connection.start-ok"))));
}

#[tokio::test]
async fn a_vhost_that_does_not_exist_is_530() {
    let target = Target::start().await;
    let login = Login { vhost: "nowhere", ..Login::default() };
    let refused = target.socket().await.enter(&login).await.unwrap_err();
    let text = "NOT_ALLOWED - vhost nowhere not found";
    assert_eq!(refused, Some(close(530, text, "connection.open")));
}

/// What `connection.tune` offers: channels, bytes of a frame, seconds of the heartbeat.
async fn offered(target: &Target) -> (u16, u32, u16) {
    let mut peer = target.socket().await;
    peer.greet().await;
    peer.say_who(&Login::default()).await;
    let offered = peer.expect_on(0, "connection.tune").await;
    (offered[0].number() as u16, offered[1].number() as u32, offered[2].number() as u16)
}

#[tokio::test]
async fn the_tune_offers_limits_that_clients_know() {
    let target = Target::start().await;
    let heartbeat = target.differs(60, 30, "Leveret offers the heartbeat that it is configured with");
    assert_eq!(offered(&target).await, (2047, 131_072, heartbeat));
}

#[tokio::test]
async fn a_tune_outside_of_what_was_offered_is_530() {
    let target = Target::start().await;
    let (channels, bytes, _) = offered(&target).await;
    let (more_channels, more_bytes) = (channels + 1, bytes + 1);
    let high = |what: &str, value: String, maximum: u32| {
        format!("{what} = {value} is higher than the maximum allowed value ({maximum})")
    };
    let cases = [
        ((more_channels, bytes, 0), high("channel_max", more_channels.to_string(), channels.into())),
        ((0, bytes, 0), high("channel_max", "0 (no limit)".to_owned(), channels.into())),
        ((channels, more_bytes, 0), high("frame_max", more_bytes.to_string(), bytes)),
        ((channels, 0, 0), high("frame_max", "0".to_owned(), bytes)),
        ((channels, 4095, 0), "frame_max = 4095 is lower than the minimum allowed value (4096)".to_owned()),
    ];
    for (tune, text) in cases {
        let refused =
            target.socket().await.enter(&Login { tune: Some(tune), ..Login::default() }).await.unwrap_err();
        let text = format!("NOT_ALLOWED - negotiated {text}");
        assert_eq!(refused, told_why(&target, close(530, text, "connection.tune-ok")), "{tune:?}");
    }
}

#[tokio::test]
async fn the_smallest_limits_that_may_be_negotiated_hold() {
    let target = Target::start().await;
    let login = Login { tune: Some((1, 4096, 0)), ..Login::default() };
    let mut peer = Peer::connect(target.address, &login).await;
    let queue = target.name("small-frames");
    peer.queue(&queue, amqp_table! {}).await;
    let body = "x".repeat(10_000);
    peer.fill(&queue, &[&body]).await;
    // The peer checks that no frame is above its limit.
    assert_eq!(peer.get(&queue).await.unwrap().body, body);
    peer.send_on(2, "channel.open", fields![]).await;
    let closed = peer.closed().await;
    let text = "NOT_ALLOWED - number of channels opened (1) has reached the negotiated channel_max (1)";
    assert_eq!((closed.code, closed.text.as_str()), (530, text));
}

#[tokio::test]
async fn heartbeats_come_without_other_traffic() {
    let target = Target::start().await;
    let (channels, bytes, _) = offered(&target).await;
    let login = Login { tune: Some((channels, bytes, 1)), ..Login::default() };
    let mut peer = Peer::connect(target.address, &login).await;
    let beat = peer.any_frame().await.unwrap();
    assert_eq!((beat.kind, beat.channel, beat.payload.len()), (leveret_tests::amqp::HEARTBEAT, 0, 0));
}

#[tokio::test]
async fn a_method_out_of_turn_in_the_handshake_is_refused() {
    let target = Target::start().await;
    let mut peer = target.socket().await;
    peer.greet().await;
    peer.send_on(0, "connection.open", fields!["/"]).await;
    let text = "CHANNEL_ERROR - unexpected method in connection state starting";
    assert_eq!(peer.end().await, told_why(&target, close(504, text, "connection.open")));
}

#[tokio::test]
async fn a_channel_before_the_connection_is_open_is_505() {
    let target = Target::start().await;
    let mut peer = target.socket().await;
    peer.greet().await;
    peer.say_who(&Login::default()).await;
    peer.tune(&Login::default()).await.unwrap();
    peer.send_on(1, "channel.open", fields![]).await;
    let text = "UNEXPECTED_FRAME - type 1, all octets = <<0,20,0,10,0>>";
    assert_eq!(peer.end().await, Some(close(505, text, "")));
}

#[tokio::test]
async fn a_close_is_answered_and_what_comes_behind_it_is_ignored() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("behind-close");
    peer.send_on(0, "connection.close", fields![200, "bye", 0, 0]).await;
    peer.send("queue.declare", fields![&queue, false, true, false, false, false, amqp_table! {}]).await;
    assert_eq!(peer.expect_on(0, "connection.close-ok").await, fields![]);
    let mut other = target.peer().await;
    let refused =
        other.refused("queue.declare", fields![&queue, true, false, false, false, false, amqp_table! {}]);
    assert_eq!(refused.await.code, 404, "what came behind the close was not carried out");
}

#[tokio::test]
async fn a_new_secret_is_taken_note_of() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    assert_eq!(
        peer.call_on(0, "connection.update-secret", fields!["new", "the old one ends"]).await,
        fields![]
    );
    peer.barrier().await;
}
