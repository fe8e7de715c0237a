//! A client that does nothing by itself: every byte it sends is one that a test wanted to be sent.
//!
//! Answers and deliveries of a connection come in order, so a request is a barrier: what had to come before its
//! answer has come. That is how tests show that something does *not* happen, without waiting for it.

use std::collections::{HashMap, VecDeque};

use bytes::BytesMut;
use leveret_broker::Broker;
use leveret_protocol::{
    Authenticate, Bind, Cancel, ChannelClosed, Close, Closed, Confirm, Consume, Control, DeclareExchange,
    DeclareQueue, DeleteQueue, Destination, Done, ExchangeName, Failed, Frame, Get, OPENING_BYTES, Open,
    OpenChannel, Opened, Outcome, PurgeQueue, QueueName, ReplyCode, Response, RoutingKey, SettleParts, Table,
    Verb, VhostName, kind, opening,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{Post, Received, within};

/// Larger than any frame of a test.
const FRAME_BYTES_MAX: usize = 32 << 20;

/// How a peer opens its connection.
#[derive(Debug, Clone)]
pub struct Login<'a> {
    /// Who it is.
    pub user: &'a str,
    /// Its password.
    pub password: &'a str,
    /// Where it goes.
    pub vhost: &'a str,
    /// The largest payload that it takes, in bytes.
    pub frame_bytes_max: u32,
    /// How many channels it wants.
    pub channels_max: u16,
    /// Its heartbeat in milliseconds.
    pub heartbeat_ms: u32,
}

impl Default for Login<'_> {
    fn default() -> Self {
        Self {
            user: "guest",
            password: "guest",
            vhost: "/",
            frame_bytes_max: 16 << 20,
            channels_max: 16,
            heartbeat_ms: 0,
        }
    }
}

/// One connection. Methods without a channel use channel 1, which confirms publishes.
#[derive(Debug)]
pub struct Peer {
    socket: TcpStream,
    buffer: BytesMut,
    inbox: VecDeque<Frame>,
    confirms: HashMap<(u16, u64), Outcome>,
    last_request: u32,
    last_publish: u64,
    /// Under which numbers messages of queues are got, from 1,000 on.
    got_as: HashMap<String, u32>,
}

impl Peer {
    /// Only the socket: not a byte is sent.
    pub async fn socket(broker: &Broker) -> Self {
        let address = broker.native_addresses()[0];
        let socket = within("the connection", TcpStream::connect(address)).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self {
            socket,
            buffer: BytesMut::new(),
            inbox: VecDeque::new(),
            confirms: HashMap::new(),
            last_request: 0,
            last_publish: 0,
            got_as: HashMap::new(),
        }
    }

    /// An open connection of guest to vhost `/`, with channel 1 open.
    pub async fn connect(broker: &Broker) -> Self {
        Self::login(broker, &Login::default()).await
    }

    /// As [`Peer::connect`], as `login` says.
    pub async fn login(broker: &Broker, login: &Login<'_>) -> Self {
        let mut peer = Self::socket(broker).await;
        peer.enter(login).await.unwrap_or_else(|close| panic!("not let in: {close:?}"));
        peer.open_channel(1, true).await;
        peer
    }

    /// The whole handshake.
    pub async fn enter(&mut self, login: &Login<'_>) -> Result<Opened, Close> {
        self.authenticate(login.user, login.password).await?;
        self.open(login).await
    }

    /// The whole handshake but the opening, which the test has sent.
    pub async fn rest_of_the_handshake(&mut self, login: &Login<'_>) -> Result<Opened, Close> {
        self.be_greeted().await;
        self.say_who(login.user, login.password).await?;
        self.open(login).await
    }

    /// Openings and `Hello`.
    pub async fn greet(&mut self) {
        self.write(&opening()).await;
        self.be_greeted().await;
    }

    async fn be_greeted(&mut self) {
        let mut theirs = [0; OPENING_BYTES];
        within("the broker's opening", self.socket.read_exact(&mut theirs)).await.unwrap();
        assert_eq!(theirs, opening());
        assert!(matches!(self.control().await, Control::Hello(_)));
    }

    /// The handshake up to `Authenticated`.
    pub async fn authenticate(&mut self, user: &str, password: &str) -> Result<(), Close> {
        self.greet().await;
        self.say_who(user, password).await
    }

    async fn say_who(&mut self, user: &str, password: &str) -> Result<(), Close> {
        let initial = format!("\0{user}\0{password}").into_bytes();
        self.say(0, Authenticate { mechanism: "PLAIN".to_owned(), initial }).await;
        match self.control().await {
            Control::Authenticated(_) => Ok(()),
            Control::Close(close) => Err(close),
            other => panic!("an answer to Authenticate: {other:?}"),
        }
    }

    /// The rest of the handshake.
    pub async fn open(&mut self, login: &Login<'_>) -> Result<Opened, Close> {
        let open = Open {
            vhost: VhostName::new(login.vhost).unwrap(),
            frame_bytes_max: login.frame_bytes_max,
            channels_max: login.channels_max,
            heartbeat_ms: login.heartbeat_ms,
            client_name: String::new(),
            client_product: String::new(),
        };
        self.say(0, open).await;
        match self.control().await {
            Control::Opened(opened) => Ok(opened),
            Control::Close(close) => Err(close),
            other => panic!("an answer to Open: {other:?}"),
        }
    }

    /// Sends bytes as they are.
    pub async fn write(&mut self, bytes: &[u8]) {
        within("a write", self.socket.write_all(bytes)).await.unwrap();
    }

    /// As [`Peer::write`] to a broker that may have hung up on what came before.
    pub async fn try_write(&mut self, bytes: &[u8]) {
        let _ = within("a write", self.socket.write_all(bytes)).await;
    }

    /// Sends a frame with a payload that the protocol may not know.
    pub async fn write_frame(&mut self, frame_kind: u8, flags: u8, channel: u16, payload: &[u8]) {
        let mut bytes = BytesMut::new();
        let payload = payload.to_vec().into();
        Frame { kind: frame_kind, flags, channel, payload }.encode(&mut bytes);
        self.write(&bytes).await;
    }

    /// Sends a control frame.
    pub async fn say(&mut self, channel: u16, control: impl Into<Control>) {
        let mut bytes = BytesMut::new();
        control.into().encode(channel, &mut bytes).unwrap();
        self.write(&bytes).await;
    }

    /// The next frame but heartbeats, whatever it is; `None` at the end of the connection.
    pub async fn frame(&mut self) -> Option<Frame> {
        if let Some(frame) = self.inbox.pop_front() {
            return Some(frame);
        }
        self.read_frame().await
    }

    async fn read_frame(&mut self) -> Option<Frame> {
        loop {
            match Frame::decode(&mut self.buffer, FRAME_BYTES_MAX).unwrap() {
                Some(frame) if frame.kind == kind::HEARTBEAT => {}
                Some(frame) => return Some(frame),
                None => {
                    let read = within("a frame", self.socket.read_buf(&mut self.buffer)).await;
                    // A broker that hangs up on unread bytes resets the connection, which is an end, too.
                    if read.unwrap_or(0) == 0 {
                        return None;
                    }
                }
            }
        }
    }

    /// The next frame, which is a control frame.
    pub async fn control(&mut self) -> Control {
        let frame = self.frame().await.expect("the connection is open");
        Control::decode(frame.kind, &frame.payload).unwrap()
    }

    /// All that comes until the end of the connection, as bytes.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = self.buffer.to_vec();
        // A reset after the last byte is an end, too.
        let _ = within("the end of the connection", self.socket.read_to_end(&mut bytes)).await;
        bytes
    }

    /// The first frame, of those that came and those to come, that `pick` picks.
    pub async fn take<T>(&mut self, what: &str, mut pick: impl FnMut(&Frame) -> Option<T>) -> T {
        for at in 0..self.inbox.len() {
            if let Some(picked) = pick(&self.inbox[at]) {
                self.inbox.remove(at);
                return picked;
            }
        }
        loop {
            let Some(frame) = within(what, self.read_frame()).await else {
                panic!("no {what}: the broker hung up")
            };
            if let Some(picked) = pick(&frame) {
                return picked;
            }
            match Control::decode(frame.kind, &frame.payload) {
                Ok(Control::Close(close)) => panic!("no {what}: the broker closed the connection: {close:?}"),
                Ok(Control::ChannelClosed(closed)) => {
                    panic!("no {what}: the broker closed a channel: {closed:?}")
                }
                _ => self.inbox.push_back(frame),
            }
        }
    }

    /// The first control frame on this channel that `pick` picks.
    pub async fn take_control<T>(
        &mut self,
        what: &str,
        channel: u16,
        mut pick: impl FnMut(Control) -> Option<T>,
    ) -> T {
        self.take(what, |frame| {
            let here = frame.channel == channel && frame.kind < kind::PUBLISH;
            pick(here.then(|| Control::decode(frame.kind, &frame.payload).unwrap())?)
        })
        .await
    }

    /// Waits for the broker's close, answers it, and waits for the end.
    pub async fn closed(&mut self) -> Close {
        let close = self
            .take_control("Close", 0, |control| match control {
                Control::Close(close) => Some(close),
                _ => None,
            })
            .await;
        let mut bytes = BytesMut::new();
        Control::from(Closed {}).encode(0, &mut bytes).unwrap();
        self.try_write(&bytes).await;
        while let Some(frame) = within("the end after Closed", self.read_frame()).await {
            let control = Control::decode(frame.kind, &frame.payload);
            assert_eq!(control, Ok(Control::Closed(Closed {})), "nothing else follows Close");
        }
        close
    }

    /// Waits for a heartbeat, which must be the next frame.
    pub async fn heartbeat(&mut self) {
        loop {
            if let Some(frame) = Frame::decode(&mut self.buffer, FRAME_BYTES_MAX).unwrap() {
                assert_eq!(frame.kind, kind::HEARTBEAT);
                return;
            }
            let read = within("a heartbeat", self.socket.read_buf(&mut self.buffer)).await.unwrap();
            assert_ne!(read, 0, "the broker hung up");
        }
    }

    /// Waits until the broker closes the channel.
    pub async fn channel_closed(&mut self, channel: u16) -> ChannelClosed {
        self.take_control("ChannelClosed", channel, |control| match control {
            Control::ChannelClosed(closed) => Some(closed),
            _ => None,
        })
        .await
    }

    /// A number for a request that nobody has used.
    pub fn next_request(&mut self) -> u32 {
        self.last_request += 1;
        self.last_request
    }

    /// Sends a request on a channel and waits for its answer.
    pub async fn ask_on(
        &mut self,
        channel: u16,
        request: impl FnOnce(u32) -> Control,
    ) -> Result<Done, Failed> {
        let number = self.next_request();
        self.say(channel, request(number)).await;
        self.answer(channel, number).await
    }

    /// Waits for the answer to a request.
    pub async fn answer(&mut self, channel: u16, number: u32) -> Result<Done, Failed> {
        self.take_control("an answer", channel, |control| match control {
            Control::Done(done) if done.request == number => Some(Ok(done)),
            Control::Failed(failed) if failed.request == number => Some(Err(failed)),
            _ => None,
        })
        .await
    }

    /// Sends a request on channel 1 and waits for its answer.
    pub async fn ask(&mut self, request: impl FnOnce(u32) -> Control) -> Result<Done, Failed> {
        self.ask_on(1, request).await
    }

    /// As [`Peer::ask`], for what must succeed.
    pub async fn must(&mut self, request: impl FnOnce(u32) -> Control) -> Done {
        self.ask(request).await.unwrap_or_else(|failed| panic!("refused: {failed:?}"))
    }

    /// As [`Peer::ask`], for what must fail: the code and the text.
    pub async fn refused(&mut self, request: impl FnOnce(u32) -> Control) -> (ReplyCode, String) {
        let failed = self.ask(request).await.expect_err("this must be refused");
        (failed.code, failed.text)
    }

    /// Opens a channel.
    pub async fn open_channel(&mut self, channel: u16, confirms: bool) {
        if channel == 1 {
            // A new channel counts its publishes from 1.
            self.last_publish = 0;
        }
        self.ask_on(channel, |request| OpenChannel { request, confirms }.into()).await.unwrap();
    }

    /// Declares a transient queue.
    pub async fn queue(&mut self, name: &str, arguments: Table) -> Done {
        self.must(|request| declare_queue(request, name, false, arguments).into()).await
    }

    /// Declares a durable queue.
    pub async fn durable_queue(&mut self, name: &str, arguments: Table) -> Done {
        self.must(|request| declare_queue(request, name, true, arguments).into()).await
    }

    /// What a queue has: ready messages and consumers.
    pub async fn counts(&mut self, name: &str) -> Result<(u64, u32), Failed> {
        let done = self.ask(|request| passive(request, name).into()).await?;
        Ok((done.messages.unwrap(), done.consumers.unwrap()))
    }

    /// How many messages are ready in a queue.
    pub async fn ready(&mut self, name: &str) -> u64 {
        self.counts(name).await.unwrap().0
    }

    /// Declares a transient exchange.
    pub async fn exchange(&mut self, name: &str, exchange_type: &str, arguments: Table) {
        self.must(|request| declare_exchange(request, name, exchange_type, false, arguments).into()).await;
    }

    /// Binds a queue to an exchange.
    pub async fn bind(&mut self, source: &str, queue: &str, key: &str, arguments: Table) {
        let destination = Destination::Queue(QueueName::new(queue).unwrap());
        self.must(|request| binding(request, source, destination, key, arguments).into()).await;
    }

    /// Binds an exchange to an exchange.
    pub async fn bind_exchange(&mut self, source: &str, exchange: &str, key: &str) {
        let destination = Destination::Exchange(ExchangeName::new(exchange).unwrap());
        self.must(|request| binding(request, source, destination, key, Table::new()).into()).await;
    }

    /// Deletes a queue.
    pub async fn delete_queue(&mut self, name: &str) -> Done {
        let queue = QueueName::new(name).unwrap();
        self.must(|request| DeleteQueue { request, queue, if_unused: false, if_empty: false }.into()).await
    }

    /// Removes the ready messages of a queue; gives how many.
    pub async fn purge(&mut self, name: &str) -> u64 {
        let queue = QueueName::new(name).unwrap();
        self.must(|request| PurgeQueue { request, queue }.into()).await.messages.unwrap()
    }

    /// Publishes on channel 1 and waits for the confirm.
    pub async fn publish(&mut self, post: Post<'_>) -> Outcome {
        let number = self.send(&post).await;
        self.confirm(1, number).await
    }

    /// Publishes messages to one queue by its name, and waits for their confirms.
    pub async fn fill(&mut self, queue: &str, bodies: &[&str]) {
        for body in bodies {
            assert_eq!(self.publish(crate::post("", queue, body)).await, Outcome::Routed(1));
        }
    }

    /// Publishes on channel 1; gives the publish's number.
    pub async fn send(&mut self, post: &Post<'_>) -> u64 {
        self.last_publish += 1;
        self.send_on(1, post).await;
        self.last_publish
    }

    /// Publishes on any channel.
    pub async fn send_on(&mut self, channel: u16, post: &Post<'_>) {
        let mut bytes = BytesMut::new();
        post.encode(channel, &mut bytes);
        self.write(&bytes).await;
    }

    /// Waits for the confirm of a publish.
    pub async fn confirm(&mut self, channel: u16, number: u64) -> Outcome {
        loop {
            if let Some(outcome) = self.confirms.remove(&(channel, number)) {
                return outcome;
            }
            let take = |frame: &Frame| (frame.kind == kind::CONFIRM).then(|| frame.clone());
            let frame = self.take("a confirm", take).await;
            for Confirm { first, count, outcome } in Confirm::decode(&frame.payload).unwrap() {
                for number in first..first + u64::from(count) {
                    let before = self.confirms.insert((frame.channel, number), outcome);
                    assert_eq!(before, None, "every publish is confirmed once");
                }
            }
        }
    }

    /// Starts a consumer with acknowledgements and without a limit.
    pub async fn consume(&mut self, queue: &str, consumer: u32) {
        self.must(|request| consume(request, queue, consumer).into()).await;
    }

    /// Starts a consumer that may hold so many unsettled deliveries.
    pub async fn consume_some(&mut self, queue: &str, consumer: u32, prefetch: u32) {
        self.must(|request| Consume { prefetch, ..consume(request, queue, consumer) }.into()).await;
    }

    /// Stops a consumer.
    pub async fn cancel(&mut self, consumer: u32) {
        self.must(|request| Cancel { request, consumer }.into()).await;
    }

    /// Takes one message off a queue, to be settled.
    pub async fn get(&mut self, queue: &str) -> Option<Received> {
        let free = 1_000 + u32::try_from(self.got_as.len()).unwrap();
        let number = *self.got_as.entry(queue.to_owned()).or_insert(free);
        self.get_as(queue, number).await.unwrap()
    }

    /// Takes one message off a queue, to be settled under a consumer number.
    pub async fn get_as(&mut self, queue: &str, consumer: u32) -> Result<Option<Received>, Failed> {
        let queue = QueueName::new(queue).unwrap();
        let done = self.ask(|request| Get { request, queue, consumer, no_ack: false }.into()).await?;
        if done.found == Some(true) { Ok(Some(self.delivery(consumer).await)) } else { Ok(None) }
    }

    /// Takes one message off a queue for good.
    pub async fn pop(&mut self, queue: &str) -> Option<Received> {
        let received = self.get(queue).await?;
        self.settle(&received, Verb::Ack).await;
        Some(received)
    }

    /// Takes all messages off a queue for good: their bodies.
    pub async fn drain(&mut self, queue: &str) -> Vec<String> {
        let mut bodies = Vec::new();
        while let Some(received) = self.pop(queue).await {
            bodies.push(received.body);
        }
        bodies
    }

    /// The next delivery for a consumer of channel 1.
    pub async fn delivery(&mut self, consumer: u32) -> Received {
        self.take("a delivery", |frame| {
            let deliver = frame.kind == kind::DELIVER && frame.channel == 1;
            deliver.then(|| Received::read(frame)).filter(|received| received.consumer == consumer)
        })
        .await
    }

    /// The bodies of the next deliveries for a consumer.
    pub async fn deliveries<const COUNT: usize>(&mut self, consumer: u32) -> [String; COUNT] {
        let mut bodies = std::array::from_fn(|_| String::new());
        for body in &mut bodies {
            *body = self.delivery(consumer).await.body;
        }
        bodies
    }

    /// Asserts that nothing came for a consumer that [`Peer::delivery`] has not given. A request is the barrier.
    pub async fn nothing_for(&mut self, consumer: u32) {
        let _ = self.counts("no such queue").await;
        let extra = self.inbox.iter().filter(|frame| frame.kind == kind::DELIVER).map(Received::read);
        let extra: Vec<_> = extra.filter(|received| received.consumer == consumer).collect();
        assert!(extra.is_empty(), "consumer {consumer} got {extra:?}");
    }

    /// Settles one delivery.
    pub async fn settle(&mut self, received: &Received, verb: Verb) {
        self.settle_range(received.consumer, verb, None, (received.tag, received.tag)).await;
    }

    /// Settles deliveries of a consumer by a range of tags.
    pub async fn settle_range(&mut self, consumer: u32, verb: Verb, note: Option<&str>, range: (u64, u64)) {
        self.settle_parts(&SettleParts { consumer, verb, confirm: false, note, ranges: &[range] }).await;
    }

    /// Sends a settle frame on channel 1.
    pub async fn settle_parts(&mut self, parts: &SettleParts<'_>) {
        let mut bytes = BytesMut::new();
        parts.encode(kind::SETTLE, 1, &mut bytes);
        self.write(&bytes).await;
    }

    /// Answers a challenge.
    pub async fn respond(&mut self, data: Vec<u8>) {
        self.say(0, Response { data }).await;
    }

    /// Ends the connection without a word, as a crash does.
    pub fn vanish(self) {
        drop(self);
    }
}

/// A declaration of a queue.
pub fn declare_queue(request: u32, name: &str, durable: bool, arguments: Table) -> DeclareQueue {
    let queue = QueueName::new(name).unwrap();
    DeclareQueue { request, queue, passive: false, durable, exclusive: false, auto_delete: false, arguments }
}

/// A question whether a queue exists.
pub fn passive(request: u32, name: &str) -> DeclareQueue {
    DeclareQueue { passive: true, ..declare_queue(request, name, false, Table::new()) }
}

/// A declaration of an exchange.
pub fn declare_exchange(
    request: u32,
    name: &str,
    exchange_type: &str,
    durable: bool,
    arguments: Table,
) -> DeclareExchange {
    DeclareExchange {
        request,
        exchange: ExchangeName::new(name).unwrap(),
        kind: exchange_type.to_owned(),
        passive: false,
        durable,
        auto_delete: false,
        internal: false,
        arguments,
    }
}

/// A binding.
pub fn binding(request: u32, source: &str, destination: Destination, key: &str, arguments: Table) -> Bind {
    let (source, routing_key) = (ExchangeName::new(source).unwrap(), RoutingKey::new(key).unwrap());
    Bind { request, source, destination, routing_key, arguments }
}

/// A consumer with acknowledgements and without a limit.
pub fn consume(request: u32, queue: &str, consumer: u32) -> Consume {
    Consume {
        request,
        queue: QueueName::new(queue).unwrap(),
        consumer,
        tag: String::new(),
        no_ack: false,
        exclusive: false,
        prefetch: 0,
        priority: 0,
    }
}
