//! From the first byte to an open connection.

use leveret_protocol::{Authenticate, Close, Control, OpenChannel, ReplyCode, opening};
use leveret_tests::{Login, Peer, broker, broker_with, config, table};

#[tokio::test]
async fn the_smaller_limit_counts_and_a_heartbeat_of_zero_is_the_longest() {
    let mut config = config();
    config.limits.channels_max = 7;
    let broker = broker_with(config).await;
    // (frame, channels, heartbeat) that the client asks for, and what is agreed.
    let cases = [
        ((8192, 1, 1_000), (8192, 1, 1_000)),
        ((u32::MAX, u16::MAX, u32::MAX), (16_842_752, 7, 30_000)),
        ((20_000, 3, 0), (20_000, 3, 30_000)),
    ];
    for ((frame_bytes_max, channels_max, heartbeat_ms), agreed) in cases {
        let login = Login { frame_bytes_max, channels_max, heartbeat_ms, ..Login::default() };
        let opened = Peer::socket(&broker).await.enter(&login).await.unwrap();
        assert_eq!((opened.frame_bytes_max, opened.channels_max, opened.heartbeat_ms), agreed);
    }
}

#[tokio::test]
async fn limits_below_the_least_are_refused() {
    let broker = broker().await;
    for login in
        [Login { frame_bytes_max: 8191, ..Login::default() }, Login { channels_max: 0, ..Login::default() }]
    {
        let close = Peer::socket(&broker).await.enter(&login).await.unwrap_err();
        assert_eq!(close.code, ReplyCode::SyntaxError, "{}", close.text);
    }
}

#[tokio::test]
async fn another_protocol_is_answered_with_one_line_that_says_what_is_spoken_here() {
    let broker = broker().await;
    let cases: [(&[u8], &str); 5] = [
        (b"AMQP\0\0\x09\x01", "AMQP 0-9-1 has a listener of its own"),
        (b"\x16\x03\x01\x02\0\x01\0\x01", "this looks like TLS"),
        (b"LVRT\x02\0\0\0", "speaks version 1.1"),
        (b"12345678", "got \"12345678\""),
        (&[0; 8], "which opens with"),
    ];
    for (bytes, expected) in cases {
        let mut peer = Peer::socket(&broker).await;
        peer.write(bytes).await;
        let answer = String::from_utf8(peer.read_to_end().await).unwrap();
        assert!(answer.contains(expected), "{answer}");
        assert!(
            answer.ends_with('\n') && answer.lines().count() == 1 && !answer.starts_with("LVRT"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn an_http_request_gets_an_http_answer() {
    let broker = broker().await;
    for method in ["GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH"] {
        let mut peer = Peer::socket(&broker).await;
        peer.write(format!("{method} / HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await;
        let answer = String::from_utf8(peer.read_to_end().await).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
        for field in ["Content-Type: text/plain; charset=utf-8", "Connection: close"] {
            assert!(head.contains(field), "{head}");
        }
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        assert!(body.contains("HTTP is not spoken here") && body.ends_with('\n'), "{body}");
    }
}

#[tokio::test]
async fn a_newer_minor_version_is_welcome() {
    let broker = broker().await;
    let mut peer = Peer::socket(&broker).await;
    peer.write(b"LVRT\x01\x63\x01\x02").await;
    let login = Login::default();
    assert!(peer.rest_of_the_handshake(&login).await.is_ok());
}

#[tokio::test]
async fn a_frame_out_of_order_ends_the_handshake() {
    let broker = broker().await;
    let authenticate =
        || Control::from(Authenticate { mechanism: "PLAIN".to_owned(), initial: b"\0guest\0guest".to_vec() });
    let channel = || Control::from(OpenChannel { request: 1, confirms: false });
    let close = || Control::from(Close { code: ReplyCode::Ok, text: String::new() });
    for (first, second) in [(None, channel()), (None, close()), (Some(authenticate()), authenticate())] {
        let mut peer = Peer::socket(&broker).await;
        peer.greet().await;
        if let Some(first) = first {
            peer.say(0, first).await;
            peer.control().await;
        }
        peer.say(0, second).await;
        let Control::Close(close) = peer.control().await else { panic!("it is refused") };
        assert_eq!(close.code, ReplyCode::CommandInvalid, "{}", close.text);
        assert_eq!(peer.frame().await, None, "the broker does not wait for Closed");
    }
}

#[tokio::test]
async fn a_handshake_that_takes_too_long_is_cut() {
    let mut config = config();
    config.limits.handshake_timeout = std::time::Duration::from_millis(500);
    let broker = broker_with(config).await;
    let mut silent = Peer::socket(&broker).await;
    assert!(silent.read_to_end().await.is_empty());
    let mut half = Peer::socket(&broker).await;
    half.write(&opening()).await;
    assert!(half.read_to_end().await.starts_with(&opening()));
}

#[tokio::test]
async fn what_comes_right_behind_the_handshake_counts() {
    let broker = broker().await;
    let mut peer = Peer::socket(&broker).await;
    peer.authenticate("guest", "guest").await.unwrap();
    let mut bytes = bytes::BytesMut::new();
    let open = leveret_protocol::Open {
        vhost: "/".try_into().unwrap(),
        frame_bytes_max: 8192,
        channels_max: 1,
        heartbeat_ms: 0,
        client_name: String::new(),
        client_product: String::new(),
    };
    Control::from(open).encode(0, &mut bytes).unwrap();
    Control::from(OpenChannel { request: 1, confirms: false }).encode(1, &mut bytes).unwrap();
    Control::from(leveret_tests::declare_queue(2, "q", false, table! {})).encode(1, &mut bytes).unwrap();
    peer.write(&bytes).await;
    assert!(matches!(peer.control().await, Control::Opened(_)));
    peer.answer(1, 1).await.unwrap();
    peer.answer(1, 2).await.unwrap();
}
