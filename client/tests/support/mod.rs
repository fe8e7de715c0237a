//! A scripted peer that speaks the wire over loopback, so that a test says frame by frame what a broker does.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is all test code")]

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use leveret_client::{Client, ClientBuilder, Recovery};
use leveret_protocol::{
    Authenticated, Confirm, Control, Deliver, DeliverParts, Done, FRAME_BYTES_MIN, Failed, Frame, Hello,
    Keys, OPENING_BYTES, Opened, Outcome, Publish, ReplyCode, Settle, Verb, check_opening, kind, opening,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The control channel, a client's first one, and its next ones.
pub(crate) const CONTROL: u16 = 1;
pub(crate) const FIRST: u16 = 2;

/// No test waits longer for anything: a promise that is not kept fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test with a limit of time.
pub(crate) async fn in_time<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, test).await.expect("the test is over in time")
}

pub(crate) struct Peer {
    listener: TcpListener,
}

impl Peer {
    pub(crate) async fn listen() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub(crate) fn uri(&self) -> String {
        format!("leveret://app:secret@127.0.0.1:{}/shop", self.listener.local_addr().unwrap().port())
    }

    /// Recovers after a millisecond and not after more.
    pub(crate) fn builder(&self) -> ClientBuilder {
        let millisecond = Duration::from_millis(1);
        let recovery = Recovery::default().delay_min(millisecond).delay_max(millisecond);
        Client::builder(&self.uri()).recovery(recovery)
    }

    /// A client with the peer's end of its connection.
    pub(crate) async fn connected(&self) -> (Client, Conversation) {
        self.connected_as(self.builder()).await
    }

    pub(crate) async fn connected_as(&self, builder: ClientBuilder) -> (Client, Conversation) {
        let (client, conversation) = tokio::join!(builder.connect(), self.accept());
        (client.unwrap(), conversation)
    }

    /// Takes a connection through the handshake and opens its control channel.
    pub(crate) async fn accept(&self) -> Conversation {
        let mut conversation = self.accept_opening().await;
        conversation.shake_hands(Limits::default()).await;
        conversation.answer(CONTROL, "OpenChannel").await;
        conversation
    }

    /// Takes a connection and exchanges the first eight bytes.
    pub(crate) async fn accept_opening(&self) -> Conversation {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut got = [0; OPENING_BYTES];
        stream.read_exact(&mut got).await.unwrap();
        check_opening(got).unwrap();
        stream.write_all(&opening()).await.unwrap();
        Conversation { stream, inbound: BytesMut::new() }
    }
}

pub(crate) struct Limits {
    pub(crate) frame_bytes_max: u32,
    pub(crate) channels_max: u16,
    pub(crate) heartbeat_ms: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { frame_bytes_max: 1 << 20, channels_max: 64, heartbeat_ms: 0 }
    }
}

pub(crate) struct Conversation {
    stream: TcpStream,
    inbound: BytesMut,
}

/// A message that the peer got.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) exchange: String,
    pub(crate) routing_key: String,
    pub(crate) persistent: bool,
    pub(crate) body: Vec<u8>,
}

/// A settle that the peer got.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) channel: u16,
    pub(crate) verb: Verb,
    pub(crate) confirm: bool,
    pub(crate) note: Option<String>,
    pub(crate) ranges: Vec<(u64, u64)>,
}

impl Conversation {
    pub(crate) async fn hello(&mut self, mechanisms: &[&str]) {
        self.send(
            0,
            Hello {
                product: "Peer".to_owned(),
                version: "1".to_owned(),
                mechanisms: mechanisms.iter().map(|name| (*name).to_owned()).collect(),
                frame_bytes_max: 1 << 20,
                channels_max: 64,
                heartbeat_ms: 0,
            },
        )
        .await;
    }

    pub(crate) async fn shake_hands(&mut self, limits: Limits) {
        self.hello(&["PLAIN"]).await;
        let (_, control) = self.control().await;
        let Control::Authenticate(authenticate) = control else { panic!("{control:?}") };
        assert_eq!(
            (authenticate.mechanism.as_str(), &authenticate.initial[..]),
            ("PLAIN", &b"\0app\0secret"[..])
        );
        self.send(0, Authenticated { data: Vec::new() }).await;
        self.enter(limits).await;
    }

    /// Lets an authenticated client into its vhost.
    pub(crate) async fn enter(&mut self, limits: Limits) {
        let (_, control) = self.control().await;
        let Control::Open(open) = control else { panic!("{control:?}") };
        assert_eq!(open.vhost.as_str(), "shop");
        assert!(open.frame_bytes_max as usize >= FRAME_BYTES_MIN);
        let Limits { frame_bytes_max, channels_max, heartbeat_ms } = limits;
        self.send(0, Opened { connection: 7, frame_bytes_max, channels_max, heartbeat_ms }).await;
    }

    pub(crate) async fn send(&mut self, channel: u16, control: impl Into<Control>) {
        let mut out = BytesMut::new();
        control.into().encode(channel, &mut out).unwrap();
        self.write(&out).await;
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next frame that is not a heartbeat; `None` when the client has hung up.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        in_time(async {
            loop {
                match Frame::decode(&mut self.inbound, 1 << 24).unwrap() {
                    Some(frame) if frame.kind == kind::HEARTBEAT => {}
                    Some(frame) => return Some(frame),
                    None if self.stream.read_buf(&mut self.inbound).await.unwrap_or(0) == 0 => return None,
                    None => {}
                }
            }
        })
        .await
    }

    pub(crate) async fn control(&mut self) -> (u16, Control) {
        let frame = self.frame().await.expect("a control frame, and not the end");
        (frame.channel, Control::decode(frame.kind, &frame.payload).unwrap())
    }

    /// The next frame, which is a request of this name on this channel; it is not answered.
    pub(crate) async fn request(&mut self, channel: u16, name: &str) -> (u32, Control) {
        let (on, control) = self.control().await;
        assert_eq!((on, control.name()), (channel, name), "{control:?}");
        (request_number(&control), control)
    }

    /// Takes the next frame, which is a request of this name on this channel, and says yes.
    pub(crate) async fn answer(&mut self, channel: u16, name: &str) -> Control {
        let (request, control) = self.request(channel, name).await;
        self.send(channel, done(request)).await;
        control
    }

    /// Takes the next request and refuses it.
    pub(crate) async fn refuse(&mut self, channel: u16, name: &str, code: ReplyCode) {
        let (request, control) = self.request(channel, name).await;
        let failed = Failed {
            request,
            operation: control.name().to_owned(),
            code,
            text: "for a test".to_owned(),
            closes: leveret_protocol::Closes::Nothing,
        };
        self.send(channel, failed).await;
    }

    pub(crate) async fn published(&mut self, channel: u16) -> Published {
        let frame = self.frame().await.expect("a message, and not the end");
        assert_eq!((frame.kind, frame.channel), (kind::PUBLISH, channel));
        let publish = Publish::decode(frame.flags, &frame.payload).unwrap();
        let leveret_protocol::Route::Named { exchange, routing_key } = publish.route else {
            panic!("{publish:?}")
        };
        Published {
            exchange: exchange.to_owned(),
            routing_key: routing_key.to_owned(),
            persistent: publish.persistent,
            body: publish.body().to_vec(),
        }
    }

    pub(crate) async fn confirm(&mut self, channel: u16, confirms: &[(u64, u32, Outcome)]) {
        let confirms: Vec<Confirm> =
            confirms.iter().map(|&(first, count, outcome)| Confirm { first, count, outcome }).collect();
        let mut out = BytesMut::new();
        Confirm::encode(&confirms, channel, &mut out);
        self.write(&out).await;
    }

    /// Delivers messages with these tags in one write; the body is the tag as text.
    pub(crate) async fn deliver(&mut self, channel: u16, consumer: u32, tags: std::ops::RangeInclusive<u64>) {
        let mut out = BytesMut::new();
        for tag in tags {
            let body = tag.to_string();
            delivery(channel, consumer, tag, &[], body.as_bytes(), &mut out);
        }
        self.write(&out).await;
    }

    pub(crate) async fn settled(&mut self) -> Settled {
        let frame = self.frame().await.expect("a settle, and not the end");
        assert_eq!(frame.kind, kind::SETTLE, "{frame:?}");
        let settle = Settle::decode(frame.flags, &frame.payload).unwrap();
        Settled {
            channel: frame.channel,
            verb: settle.verb,
            confirm: settle.confirm,
            note: settle.note.map(str::to_owned),
            ranges: settle.ranges.iter().collect(),
        }
    }

    /// Takes settles until this many deliveries are settled: how they are split is the client's affair.
    pub(crate) async fn settled_in_all(&mut self, verb: Verb, count: u64) -> Vec<(u64, u64)> {
        let mut ranges = Vec::new();
        let mut tags = 0;
        while tags < count {
            let settled = self.settled().await;
            assert_eq!(settled.verb, verb);
            tags += settled.ranges.iter().map(|(first, last)| last - first + 1).sum::<u64>();
            ranges.extend(settled.ranges);
        }
        assert_eq!(tags, count);
        ranges
    }

    /// Opens the channel that comes next, for a publisher.
    pub(crate) async fn open_publisher(&mut self, channel: u16) {
        self.answer(channel, "OpenChannel").await;
    }

    /// Opens the channel that comes next, for a consumer of this queue.
    pub(crate) async fn open_consumer(&mut self, channel: u16, queue: &str) {
        self.answer(channel, "OpenChannel").await;
        let control = self.answer(channel, "Consume").await;
        let Control::Consume(consume) = control else { unreachable!() };
        assert_eq!((consume.queue.as_str(), consume.consumer), (queue, 1));
    }
}

pub(crate) fn done(request: u32) -> Done {
    Done { request, queue: None, messages: None, consumers: None, found: None }
}

pub(crate) fn delivery(
    channel: u16,
    consumer: u32,
    tag: u64,
    properties: &[u8],
    body: &[u8],
    out: &mut BytesMut,
) {
    let deliver = Deliver {
        consumer,
        tag,
        redelivered: None,
        persistent: true,
        priority: None,
        ttl_ms: None,
        published_at_ms: 1_000,
        exchange: "orders",
        routing_key: "order.paid",
        cc: Keys::default(),
        deaths: &[],
        properties,
        body,
    };
    DeliverParts { deliver, cc: std::iter::empty() }.encode(channel, out);
}

pub(crate) fn settled_frame(channel: u16, ranges: &[(u64, u64)]) -> BytesMut {
    let mut out = BytesMut::new();
    let parts =
        leveret_protocol::SettleParts { consumer: 1, verb: Verb::Ack, confirm: false, note: None, ranges };
    parts.encode(kind::SETTLED, channel, &mut out);
    out
}

pub(crate) fn heartbeat() -> BytesMut {
    let mut out = BytesMut::new();
    out.put_slice(&[0, 0, 0, 0, kind::HEARTBEAT, 0, 0, 0]);
    out
}

fn request_number(control: &Control) -> u32 {
    match control {
        Control::OpenChannel(frame) => frame.request,
        Control::CloseChannel(frame) => frame.request,
        Control::DeclareExchange(frame) => frame.request,
        Control::DeclareQueue(frame) => frame.request,
        Control::DeleteExchange(frame) => frame.request,
        Control::DeleteQueue(frame) => frame.request,
        Control::PurgeQueue(frame) => frame.request,
        Control::Bind(frame) => frame.request,
        Control::Unbind(frame) => frame.request,
        Control::Consume(frame) => frame.request,
        Control::Cancel(frame) => frame.request,
        Control::Get(frame) => frame.request,
        other => panic!("not a request: {other:?}"),
    }
}
