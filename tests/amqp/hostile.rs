//! Peers that break the protocol, are slow, or stop: only their connection suffers, and memory stays bounded. These run
//! against Leveret only.

use std::time::Duration;

use leveret_broker::config::Config;
use leveret_tests::amqp::{
    BODY, Field, HEADER, HEARTBEAT, Login, METHOD, PROTOCOL_HEADER, Peer, Post, Properties, Target,
    frame_bytes, header_payload, method_bytes, method_payload,
};
use leveret_tests::{amqp_table, config, fields, within};
use proptest::collection::vec;
use proptest::prelude::any;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config as RunnerConfig, TestRunner};
use tokio::sync::Mutex;

/// Held by those who measure or use much memory: all of this process count.
static MEMORY: Mutex<()> = Mutex::const_new(());

/// More than what a test may need by itself, and less than what a hostile peer tries to make the broker hold.
const GROWTH_BYTES_MAX: u64 = 96 << 20;

/// A connection that does nothing wrong, and must not notice anything.
struct Honest {
    peer: Peer,
    queue: String,
    published: u64,
}

impl Honest {
    async fn connect(target: &Target) -> Self {
        let mut peer = target.peer().await;
        let queue = target.name("honest");
        peer.queue(&queue, amqp_table! {}).await;
        peer.confirm().await;
        Self { peer, queue, published: 0 }
    }

    /// A message goes in, is confirmed, and comes out.
    async fn works(&mut self) {
        self.peer.publish("", &self.queue, "honest").await;
        self.published += 1;
        assert_eq!(self.peer.confirmed().await, ("basic.ack", self.published));
        assert_eq!(self.peer.get_with(&self.queue, true).await.expect("the message").body, "honest");
    }
}

async fn broker_and_honest(config: Config) -> (Target, Honest) {
    let target = Target::ours(config).await;
    let mut honest = Honest::connect(&target).await;
    honest.works().await;
    (target, honest)
}

/// The resident memory of this process, in which the broker is, in bytes.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kilobytes * 1024
}

fn publish(queue: &str) -> Vec<u8> {
    method_bytes(1, "basic.publish", &fields!["", queue, false, false])
}

fn header(length: u64) -> Vec<u8> {
    frame_bytes(HEADER, 1, &header_payload(length, &Properties::default()))
}

fn declare(table: &[u8]) -> Vec<u8> {
    let mut payload = vec![0, 50, 0, 10, 0, 0, 1, b'q', 0];
    payload.extend((table.len() as u32).to_be_bytes());
    payload.extend(table);
    frame_bytes(METHOD, 1, &payload)
}

/// Tables in tables, or arrays in an array, so many levels deep; without the length of the outermost.
fn nested(levels: usize, arrays: bool) -> Vec<u8> {
    let mut inner = Vec::new();
    for level in (0..levels).rev() {
        let head: &[u8] = match (arrays, level) {
            (true, 1..) => b"A",
            (true, 0) => b"\x01aA",
            (false, _) => b"\x01aF",
        };
        // Written from the inside out, so backwards.
        inner.extend((inner.len() as u32).to_le_bytes());
        inner.extend(head.iter().rev());
    }
    inner.reverse();
    inner
}

/// What a client says to open a connection with one channel, without waiting for a single answer.
fn whole_handshake() -> Vec<u8> {
    let start_ok = fields![amqp_table! { "product" => "slow" }, "PLAIN", "\0guest\0guest", "en_US"];
    [
        PROTOCOL_HEADER.to_vec(),
        method_bytes(0, "connection.start-ok", &start_ok),
        method_bytes(0, "connection.tune-ok", &fields![10, 4096, 0]),
        method_bytes(0, "connection.open", &fields!["/"]),
        method_bytes(1, "channel.open", &[]),
    ]
    .concat()
}

#[tokio::test]
async fn bytes_may_come_one_at_a_time() {
    let (target, mut honest) = broker_and_honest(config()).await;
    let queue = target.name("slow");
    let mut bytes = whole_handshake();
    let no_arguments = amqp_table! {};
    bytes.extend(method_bytes(
        1,
        "queue.declare",
        &fields![&queue, false, true, false, false, false, no_arguments],
    ));
    bytes.extend(publish(&queue));
    bytes.extend(header(4));
    bytes.extend(
        [frame_bytes(BODY, 1, b"sl"), frame_bytes(HEARTBEAT, 0, b""), frame_bytes(BODY, 1, b"ow")].concat(),
    );
    bytes.extend(method_bytes(1, "basic.get", &fields![&queue, true]));
    let mut peer = target.socket().await;
    for byte in bytes {
        peer.write(&[byte]).await;
    }
    for answer in ["connection.start", "connection.tune", "connection.open-ok"] {
        peer.expect_on(0, answer).await;
    }
    peer.expect("channel.open-ok").await;
    peer.expect("queue.declare-ok").await;
    assert_eq!(peer.message_on(1, "basic.get-ok").await.body, "slow");
    honest.works().await;
}

#[tokio::test]
async fn a_frame_above_the_negotiated_limit_is_501_before_it_has_come() {
    let (target, mut honest) = broker_and_honest(config()).await;
    let login = Login { tune: Some((10, 4096, 0)), ..Login::default() };
    // The limit is one of whole frames: 8 bytes are not payload.
    for length in [4089_u32, 131_072, u32::MAX] {
        let mut peer = Peer::connect(target.address, &login).await;
        let head = [&[BODY, 0, 1], &length.to_be_bytes()[..]].concat();
        peer.write(&head).await;
        assert_eq!(peer.closed().await.code, 501, "{length}");
        honest.works().await;
    }
    let mut peer = Peer::connect(target.address, &login).await;
    peer.queue("fits", amqp_table! {}).await;
    peer.write(&[publish("fits"), header(4088), frame_bytes(BODY, 1, &[b'x'; 4088])].concat()).await;
    assert_eq!(peer.get_soon("fits").await.body.len(), 4088);
}

#[tokio::test]
async fn a_body_that_never_comes_is_no_message_and_takes_no_room() {
    let (target, mut honest) = broker_and_honest(config()).await;
    let _alone = MEMORY.lock().await;
    let before = resident_bytes();
    let mut peers = Vec::new();
    for _ in 0..200 {
        let mut peer = target.peer().await;
        // Within the limit of a message, and announced by each of them.
        peer.write(&[publish(&honest.queue), header(1 << 20), frame_bytes(BODY, 1, b"x")].concat()).await;
        peers.push(peer);
    }
    honest.works().await;
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "200 announced megabytes took {grown} bytes");
    drop(peers);
    honest.works().await;
}

#[tokio::test]
async fn messages_that_are_never_finished_are_bounded_on_all_channels_together() {
    let (target, mut honest) = broker_and_honest(config()).await;
    let mut peer = target.peer().await;
    let part = vec![b'x'; 100_000];
    let mut sent = 0;
    // Eight megabytes, where four times the largest message is four.
    for channel in 1..=8 {
        if channel > 1 {
            peer.try_write(&method_bytes(channel, "channel.open", &[])).await;
        }
        let asked = fields!["", &honest.queue, false, false];
        let head = frame_bytes(HEADER, channel, &header_payload(1 << 20, &Properties::default()));
        peer.try_write(&[method_bytes(channel, "basic.publish", &asked), head].concat()).await;
        for _ in 0..10 {
            peer.try_write(&frame_bytes(BODY, channel, &part)).await;
            sent += part.len();
        }
    }
    assert!(sent > 7 << 20);
    assert_eq!(peer.closed().await.code, 506);
    honest.works().await;
}

#[tokio::test]
async fn a_message_above_the_limit_is_refused_by_its_header() {
    let (target, mut honest) = broker_and_honest(config()).await;
    let mut peer = target.peer().await;
    for length in [(1 << 20) + 1, u64::MAX] {
        peer.write(&[publish("q"), header(length)].concat()).await;
        let closed = peer.channel_closed().await;
        assert_eq!((closed.code, closed.method.as_str()), (406, "basic.publish"), "{closed:?}");
        let text =
            format!("PRECONDITION_FAILED - message size {length} is larger than configured max size 1048576");
        assert_eq!(closed.text, text);
        peer.open_channel(1).await;
    }
    honest.works().await;
}

#[tokio::test]
async fn deep_tables_end_their_connection_only() {
    let (target, mut honest) = broker_and_honest(config()).await;
    for arrays in [false, true] {
        // As many levels as fit into a frame.
        let deep = nested(18_000, arrays);
        let mut in_properties = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0];
        in_properties.extend((deep.len() as u32).to_be_bytes());
        in_properties.extend(&deep);
        let cases = [declare(&deep), [publish("q"), frame_bytes(HEADER, 1, &in_properties)].concat()];
        for bytes in cases {
            let mut peer = target.peer().await;
            peer.write(&bytes).await;
            assert_eq!(peer.closed().await.code, 502);
            honest.works().await;
        }
        let mut stranger = target.socket().await;
        stranger.greet().await;
        let deep = nested(1_000, arrays);
        let mut start_ok = vec![0, 10, 0, 11];
        start_ok.extend((deep.len() as u32).to_be_bytes());
        start_ok.extend(&deep);
        start_ok.extend(b"\x05PLAIN\0\0\0\x0c\0guest\0guest\x05en_US");
        stranger.write(&frame_bytes(METHOD, 0, &start_ok)).await;
        assert_eq!(stranger.end().await.map(|closed| closed.code), Some(502));
        honest.works().await;
    }
}

#[tokio::test]
async fn a_thousand_channels_are_open_at_once_and_none_above_the_limit() {
    let mut config = config();
    config.limits.channels_max = 1_000;
    let (target, mut honest) = broker_and_honest(config).await;
    let mut peer = target.peer().await;
    let mut bytes = Vec::new();
    for channel in 2..=1_000 {
        bytes.extend(method_bytes(channel, "channel.open", &[]));
    }
    peer.write(&bytes).await;
    let no_arguments = amqp_table! {};
    for channel in 1..=1_000 {
        if channel > 1 {
            peer.expect_on(channel, "channel.open-ok").await;
        }
        let consume = fields![&honest.queue, "c", false, false, false, false, &no_arguments];
        peer.call_on(channel, "basic.consume", consume).await;
    }
    assert_eq!(honest.peer.counts(&honest.queue).await, (0, 1_000));
    peer.send_on(1_001, "channel.open", fields![]).await;
    let text = "NOT_ALLOWED - number of channels opened (1000) has reached the negotiated channel_max (1000)";
    let closed = peer.closed().await;
    assert_eq!((closed.code, closed.text.as_str()), (530, text));
    honest.peer.until_counts(&honest.queue.clone(), (0, 0)).await;
    honest.works().await;
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_given_up_after_two_heartbeats() {
    let (target, mut honest) = broker_and_honest(config()).await;
    let held = target.name("held");
    honest.peer.queue(&held, amqp_table! {}).await;
    let mut silent =
        Peer::connect(target.address, &Login { tune: Some((10, 4096, 1)), ..Login::default() }).await;
    silent.consume(&held, "c").await;
    silent.publish("", &held, "held").await;
    silent.delivery().await;
    // It reads, and says nothing more: the broker's heartbeats come, and then the end.
    within("the end of the silence", async { while silent.any_frame().await.is_some() {} }).await;
    honest.peer.until_counts(&held, (1, 0)).await;
    assert!(honest.peer.get(&held).await.unwrap().redelivered);
    honest.works().await;
}

#[tokio::test]
async fn a_consumer_that_does_not_read_takes_only_what_it_has_room_for() {
    let _alone = MEMORY.lock().await;
    let (target, mut honest) = broker_and_honest(config()).await;
    let queue = target.name("unread");
    honest.peer.queue(&queue, amqp_table! {}).await;
    let body = "x".repeat(64 << 10);
    let mut bytes = Vec::new();
    let messages = 1_000;
    for _ in 0..messages {
        bytes.extend(Post { key: &queue, body: &body, ..Post::default() }.encode(1, 131_072));
    }
    let mut publisher = target.peer().await;
    publisher.write(&bytes).await;
    publisher.until_counts(&queue, (messages, 0)).await;
    let mut deaf = target.peer().await;
    deaf.consume_with(&queue, "c", true, amqp_table! {}).await;
    for _ in 0..50 {
        honest.works().await;
    }
    let (left, _) = honest.peer.counts(&queue).await;
    assert!(
        left > messages / 2,
        "{left} of {messages} are left: the rest waits for somebody who does not read"
    );
    // Whoever does read gets the others meanwhile.
    honest.peer.prefetch(10).await;
    honest.peer.consume_with(&queue, "reader", true, amqp_table! {}).await;
    for _ in 0..left {
        assert_eq!(honest.peer.delivery().await.consumer, "reader");
    }
}

#[tokio::test]
async fn a_publisher_that_does_not_read_what_comes_back_is_not_read_any_more() {
    let (target, mut honest) = broker_and_honest(config()).await;
    let mut deaf = target.peer().await;
    deaf.confirm().await;
    let body = "x".repeat(64 << 10);
    let post = Post { key: "nowhere", mandatory: true, body: &body, ..Post::default() };
    let bytes = post.encode(1, 131_072);
    let flood = async {
        for _ in 0..4_000 {
            deaf.try_write(&bytes).await;
        }
    };
    let _alone = MEMORY.lock().await;
    let before = resident_bytes();
    let busy = async {
        for _ in 0..300 {
            honest.works().await;
        }
    };
    tokio::select! {
        () = flood => panic!("250 MiB of returned messages are held for a peer that does not read"),
        () = busy => {}
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes are held");
}

#[tokio::test]
async fn strangers_may_send_8_kib_at_a_time() {
    let (target, mut honest) = broker_and_honest(config()).await;
    let start_ok = |filler: usize| {
        let client = amqp_table! { "product" => "x".repeat(filler) };
        let fields: Vec<Field> = fields![client, "PLAIN", "\0guest\0guest", "en_US"];
        frame_bytes(METHOD, 0, &method_payload("connection.start-ok", &fields))
    };
    let mut stranger = target.socket().await;
    stranger.greet().await;
    stranger.write(&start_ok(8_000)).await;
    stranger.expect_on(0, "connection.tune").await;
    let mut stranger = target.socket().await;
    stranger.greet().await;
    stranger.write(&start_ok(9_000)[..7]).await;
    assert_eq!(stranger.end().await.map(|closed| closed.code), Some(501));
    honest.works().await;
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_cut() {
    let mut config = config();
    config.limits.handshake_timeout = Duration::from_millis(500);
    let (target, mut honest) = broker_and_honest(config).await;
    let whole = whole_handshake();
    let before_open = whole.len() - method_bytes(1, "channel.open", &[]).len() - 1;
    for length in [0, 4, 8, 100, before_open] {
        let mut stranger = target.socket().await;
        stranger.write(&whole[..length]).await;
        while stranger.any_frame().await.is_some() {}
        honest.works().await;
    }
    // Signs of life do not put the end off.
    let mut lively = target.socket().await;
    lively.greet().await;
    let cut = async {
        while !lively.has_hung_up().await {
            lively.try_write(&frame_bytes(HEARTBEAT, 0, b"")).await;
        }
    };
    within("the end of the handshake", cut).await;
    honest.works().await;
}

#[test]
fn no_bytes_trouble_anybody_else() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(RunnerConfig { failure_persistence: None, ..RunnerConfig::default() });
    let bytes = vec(any::<u8>(), 1..300);
    // Frames that fit, too, so that what is in them is looked at; and methods that exist.
    let kinds = proptest::sample::select(vec![METHOD, HEADER, BODY, HEARTBEAT, 0]);
    let classes = proptest::sample::select(vec![10_u8, 20, 40, 50, 60, 85, 90]);
    let ids = proptest::sample::select(vec![10_u8, 11, 20, 30, 31, 40, 50, 70, 80, 90, 100, 110, 120]);
    let method =
        (0..3_u16, classes, ids, vec(any::<u8>(), 0..60)).prop_map(|(channel, class, id, arguments)| {
            frame_bytes(METHOD, channel, &[&[0, class, 0, id], &arguments[..]].concat())
        });
    let frame = (kinds, 0..3_u16, vec(any::<u8>(), 0..100))
        .prop_map(|(kind, channel, payload)| frame_bytes(kind, channel, &payload));
    let content = vec(any::<u8>(), 0..60).prop_map(|properties| {
        [publish("q"), frame_bytes(HEADER, 1, &[&[0; 12], &properties[..]].concat())].concat()
    });
    runtime.block_on(async {
        let (target, mut honest) = broker_and_honest(config()).await;
        for round in 0..200 {
            let sent = match round % 4 {
                0 => bytes.new_tree(&mut runner).unwrap().current(),
                1 => vec(frame.clone(), 1..5).new_tree(&mut runner).unwrap().current().concat(),
                2 => vec(method.clone(), 1..5).new_tree(&mut runner).unwrap().current().concat(),
                _ => content.new_tree(&mut runner).unwrap().current(),
            };
            let mut peer = if round % 8 < 6 { target.peer().await } else { target.socket().await };
            peer.try_write(&sent).await;
            drop(peer);
            honest.works().await;
        }
    });
}
