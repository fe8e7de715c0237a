//! What tests do most, in fewer words.

use std::collections::BTreeSet;

use super::content::{Message, Post, header_payload, read_header};
use super::peer::{BODY, HEADER, Peer, frame_bytes, method_bytes};
use super::{Field, Table};
use crate::{fields, within};

impl Peer {
    /// Declares a durable queue.
    pub async fn queue(&mut self, queue: &str, arguments: Table) {
        let asked = fields![queue, false, true, false, false, false, arguments];
        let answer = self.call("queue.declare", asked).await;
        assert_eq!(answer, fields![queue, 0, 0], "a queue of this name was there");
    }

    /// Declares a durable exchange.
    pub async fn exchange(&mut self, exchange: &str, kind: &str, arguments: Table) {
        let asked = fields![exchange, kind, false, true, false, false, false, arguments];
        self.call("exchange.declare", asked).await;
    }

    /// Binds a queue to an exchange.
    pub async fn bind(&mut self, queue: &str, exchange: &str, key: &str) {
        self.call("queue.bind", fields![queue, exchange, key, false, Table::default()]).await;
    }

    /// How many messages and consumers a queue has.
    pub async fn counts(&mut self, queue: &str) -> (u64, u64) {
        let asked = fields![queue, true, false, false, false, false, Table::default()];
        let answer = self.call("queue.declare", asked).await;
        (answer[1].number(), answer[2].number())
    }

    /// Waits until a queue has so many ready messages and consumers: what a confirm does not wait for.
    pub async fn until_counts(&mut self, queue: &str, expected: (u64, u64)) {
        let reached = async {
            while self.counts(queue).await != expected {
                tokio::task::yield_now().await;
            }
        };
        within(&format!("{expected:?} messages and consumers in {queue}"), reached).await;
    }

    /// Publishes a plain message.
    pub async fn publish(&mut self, exchange: &str, key: &str, body: &str) {
        self.post(&Post { exchange, key, body, ..Post::default() }).await;
    }

    /// Publishes a message.
    pub async fn post(&mut self, post: &Post<'_>) {
        let bytes = post.encode(1, self.frame_max);
        self.write(&bytes).await;
    }

    /// Publishes plain messages to a queue, and waits until they are in it. The channel must not confirm.
    pub async fn fill(&mut self, queue: &str, bodies: &[&str]) {
        let (before, consumers) = self.counts(queue).await;
        for body in bodies {
            self.publish("", queue, body).await;
        }
        self.until_counts(queue, (before + bodies.len() as u64, consumers)).await;
    }

    /// Starts a consumer that acknowledges.
    pub async fn consume(&mut self, queue: &str, tag: &str) {
        self.consume_with(queue, tag, false, Table::default()).await;
    }

    /// Starts a consumer.
    pub async fn consume_with(&mut self, queue: &str, tag: &str, no_ack: bool, arguments: Table) {
        let asked = fields![queue, tag, false, no_ack, false, false, arguments];
        assert_eq!(self.call("basic.consume", asked).await, fields![tag]);
    }

    /// Sets the limit of consumers that start from now on.
    pub async fn prefetch(&mut self, count: u16) {
        self.call("basic.qos", fields![0, count, false]).await;
    }

    /// The next delivery on channel 1.
    pub async fn delivery(&mut self) -> Message {
        self.message_on(1, "basic.deliver").await
    }

    /// The next message on a channel, which this method must bring.
    pub async fn message_on(&mut self, channel: u16, method: &str) -> Message {
        let fields = self.expect_on(channel, method).await;
        self.content_on(channel, method, fields).await
    }

    /// The header and the body behind a method.
    pub async fn content_on(&mut self, channel: u16, method: &str, fields: Vec<Field>) -> Message {
        let header = self.frame_on(channel).await;
        assert_eq!(header.kind, HEADER);
        let (length, properties) = read_header(&header.payload);
        let mut body = Vec::new();
        while (body.len() as u64) < length {
            let frame = self.frame_on(channel).await;
            assert_eq!(frame.kind, BODY);
            body.extend(frame.payload);
        }
        assert_eq!(body.len() as u64, length);
        Message::new(method, fields, properties, body)
    }

    /// Gets a message and leaves it unsettled; `None` if the queue is empty.
    pub async fn get(&mut self, queue: &str) -> Option<Message> {
        self.get_with(queue, false).await
    }

    /// Gets a message.
    pub async fn get_with(&mut self, queue: &str, no_ack: bool) -> Option<Message> {
        self.send("basic.get", fields![queue, no_ack]).await;
        match self.method_on(1).await {
            ("basic.get-ok", fields) => Some(self.content_on(1, "basic.get-ok", fields).await),
            ("basic.get-empty", _) => None,
            other => panic!("no answer to basic.get: {other:?}"),
        }
    }

    /// Gets a message that is on its way.
    pub async fn get_soon(&mut self, queue: &str) -> Message {
        let came = async {
            loop {
                if let Some(message) = self.get_with(queue, true).await {
                    return message;
                }
            }
        };
        within(&format!("a message in {queue}"), came).await
    }

    /// The bodies that are ready, in order; none is left.
    pub async fn drain(&mut self, queue: &str) -> Vec<String> {
        let mut bodies = Vec::new();
        while let Some(message) = self.get_with(queue, true).await {
            bodies.push(message.body);
        }
        bodies
    }

    /// Acknowledges.
    pub async fn ack(&mut self, tag: u64, multiple: bool) {
        self.send("basic.ack", fields![tag, multiple]).await;
    }

    /// Gives back or dead-letters.
    pub async fn nack(&mut self, tag: u64, multiple: bool, requeue: bool) {
        self.send("basic.nack", fields![tag, multiple, requeue]).await;
    }

    /// Gives back or dead-letters one.
    pub async fn reject(&mut self, tag: u64, requeue: bool) {
        self.send("basic.reject", fields![tag, requeue]).await;
    }

    /// From now on publishes are confirmed.
    pub async fn confirm(&mut self) {
        self.call("confirm.select", fields![false]).await;
    }

    /// The next confirm, which no other publish may share: its method and tag. (Where nothing before it is open, it is
    /// all the same whether it says that it stands for all before.)
    pub async fn confirmed(&mut self) -> (&'static str, u64) {
        let (name, tag, _) = self.confirm_frame().await;
        (name, tag)
    }

    async fn confirm_frame(&mut self) -> (&'static str, u64, bool) {
        let (name, fields) = self.method_on(1).await;
        assert!(matches!(name, "basic.ack" | "basic.nack"), "a confirm is {name} {fields:?}");
        (name, fields[0].number(), fields[1].bit())
    }

    /// Waits until all publishes from `first` to `last` are confirmed, each once; gives the tags that were refused.
    pub async fn all_confirmed(&mut self, first: u64, last: u64) -> Vec<u64> {
        let mut open: BTreeSet<u64> = (first..=last).collect();
        let mut refused = Vec::new();
        while !open.is_empty() {
            let (name, tag, multiple) = self.confirm_frame().await;
            let from = if multiple { first } else { tag };
            assert!(open.contains(&tag), "{tag} is confirmed twice, or was never published");
            let settled: Vec<u64> = open.range(from..=tag).copied().collect();
            open.retain(|tag| !settled.contains(tag));
            if name == "basic.nack" {
                refused.extend(settled);
            }
        }
        refused
    }

    /// An answer on channel 1: what the broker did before has come.
    pub async fn barrier(&mut self) {
        self.call("basic.qos", fields![0, 0, false]).await;
    }

    /// Nothing more came on channel 1 from what a queue was told: it was asked twice, so that what it had sent when it
    /// was asked first is behind us.
    pub async fn nothing_comes_from(&mut self, queue: &str) {
        self.counts(queue).await;
        self.counts(queue).await;
    }
}

impl Post<'_> {
    /// The frames of it.
    pub fn encode(&self, channel: u16, frame_max: usize) -> Vec<u8> {
        let asked = fields![self.exchange, self.key, self.mandatory, self.immediate];
        let mut bytes = method_bytes(channel, "basic.publish", &asked);
        let header = header_payload(self.body.len() as u64, &self.properties);
        bytes.extend(frame_bytes(HEADER, channel, &header));
        for part in self.body.as_bytes().chunks(frame_max.saturating_sub(8).max(1)) {
            bytes.extend(frame_bytes(BODY, channel, part));
        }
        bytes
    }
}
