//! AMQP 0-9-1, the same for Leveret and for other brokers.

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::{Context, bail, ensure};
use bytes::{BufMut, BytesMut};
use leveret_protocol::amqp::{
    BasicProperties, DELIVERY_MODE_PERSISTENT, EncodedTable, Method, PROTOCOL_HEADER, basic, channel,
    confirm, connection, exchange, put_body, put_header, put_method, queue,
};
use leveret_protocol::{Table, Value};

use super::{Confirms, Deliveries, Delivery, Lane, Link, Protocol, Template};
use crate::url::Url;
use crate::workload::{Ack, HEAD_BYTES, Plan};

/// The whole load goes over one channel of each connection.
const CHANNEL: u16 = 1;
/// The largest frame that is agreed on, in bytes: what RabbitMQ proposes.
const FRAME_MAX: u32 = 131_072;
/// How many requests are on their way at a time.
const PIPELINE: usize = 1000;
const HEAD: usize = 7;
const FRAME_END: u8 = 0xCE;
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
/// The methods of the hot path, as they begin: class and number.
const DELIVER: [u8; 4] = [0, 60, 0, 60];
const ACK: [u8; 4] = [0, 60, 0, 80];

/// A broker that speaks it.
#[derive(Debug, Clone)]
pub(crate) struct Amqp {
    pub(crate) url: Url,
    /// `x-queue-type` of the queues; none leaves it to the broker.
    pub(crate) queue_type: Option<String>,
}

fn template(plan: &Plan, exchange: &str, routing_key: &str, frame_max: u32) -> Template {
    let body = vec![b'x'; plan.workload.size];
    let delivery_mode = if plan.workload.transient { 1 } else { DELIVERY_MODE_PERSISTENT };
    let properties = BasicProperties { delivery_mode: Some(delivery_mode), ..BasicProperties::default() };
    let mut out = BytesMut::new();
    put_method(
        &mut out,
        CHANNEL,
        basic::Publish { exchange, routing_key, mandatory: false, immediate: false },
    );
    put_header(&mut out, CHANNEL, body.len() as u64, &properties.to_bytes());
    let body_at = out.len() + HEAD;
    put_body(&mut out, CHANNEL, frame_max as usize, &body);
    Template { bytes: out.to_vec(), body_at }
}

impl Protocol for Amqp {
    type Confirms = Acks;
    type Deliveries = Tags;

    fn prepare(&self, plan: &Plan) -> anyhow::Result<()> {
        self.clean(plan)?;
        let mut session = Session::open(&self.url)?;
        let mut arguments = Table::default();
        if let Some(queue_type) = &self.queue_type {
            arguments.insert("x-queue-type".to_owned(), Value::from(queue_type.as_str()));
        }
        let arguments = EncodedTable::new(&arguments)?;
        let durable = !plan.workload.transient;
        session.requests(plan.queues.iter().map(|queue| declare(&queue.name, durable, &arguments)))?;
        let Some(exchange) = &plan.exchange else { return Ok(()) };
        let declared = exchange::Declare {
            exchange: &exchange.name,
            kind: exchange.kind,
            durable,
            ..exchange::Declare::default()
        };
        session.requests(std::iter::once(declared.into()))?;
        session.requests(exchange.bindings.iter().filter_map(|(queue, routing_key)| {
            let queue = &plan.queues.get(*queue)?.name;
            Some(Method::from(queue::Bind {
                queue,
                exchange: &exchange.name,
                routing_key,
                ..queue::Bind::default()
            }))
        }))
    }

    fn consumer(&self, plan: &Plan, consumer: usize) -> anyhow::Result<(Link, Tags)> {
        let mut session = Session::open(&self.url)?;
        let prefetch_count = plan.workload.prefetch() as u16;
        let qos = basic::Qos { prefetch_size: 0, prefetch_count, global: false };
        session.requests(std::iter::once(qos.into()))?;
        let queues = plan.consumers.get(consumer).map(Vec::as_slice).unwrap_or_default();
        for (number, queue) in queues.iter().enumerate() {
            let queue = &plan.queues.get(*queue).context("a consumer of no queue")?.name;
            let consumer_tag = &number.to_string();
            let no_ack = plan.workload.ack() == Ack::None;
            let consume = basic::Consume { queue, consumer_tag, no_ack, ..basic::Consume::default() };
            session.requests(std::iter::once(consume.into()))?;
        }
        Ok((session.link, Tags { queues: queues.len(), first: 1, last: 0 }))
    }

    fn producer(&self, plan: &Plan, producer: usize) -> anyhow::Result<(Link, Acks, Vec<Lane>)> {
        let mut session = Session::open(&self.url)?;
        if plan.workload.window() > 0 {
            session.requests(std::iter::once(confirm::Select { nowait: false }.into()))?;
        }
        let exchange = plan.exchange.as_ref().map(|exchange| exchange.name.as_str()).unwrap_or_default();
        let streams = plan.producers.get(producer).map(Vec::as_slice).unwrap_or_default();
        let mut lanes = Vec::new();
        for stream in streams {
            for key in &plan.streams.get(*stream).context("an unknown stream")?.keys {
                let template = template(plan, exchange, key, session.frame_max);
                lanes.push(Lane { stream: *stream as u16, template });
            }
        }
        Ok((session.link, Acks::default(), lanes))
    }

    fn clean(&self, plan: &Plan) -> anyhow::Result<()> {
        let mut session = Session::open(&self.url)?;
        session.requests(plan.exchange.iter().map(|exchange| {
            Method::from(exchange::Delete { exchange: &exchange.name, if_unused: false, nowait: false })
        }))?;
        session.requests(plan.queues.iter().map(|queue| {
            Method::from(queue::Delete {
                queue: &queue.name,
                if_unused: false,
                if_empty: false,
                nowait: false,
            })
        }))
    }
}

/// The declaration of a queue.
pub(crate) fn declare<'a>(queue: &'a str, durable: bool, arguments: &'a EncodedTable) -> Method<'a> {
    let arguments = arguments.as_table();
    queue::Declare { queue, durable, arguments, ..queue::Declare::default() }.into()
}

/// A connection with one channel, for requests.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) link: Link,
    frame_max: u32,
}

impl Session {
    pub(crate) fn open(url: &Url) -> anyhow::Result<Self> {
        let mut session = Self { link: Link::connect(&url.address)?, frame_max: FRAME_MAX };
        session.link.stream.write_all(&PROTOCOL_HEADER)?;
        session.answer(|_| ())?;
        let mut response = vec![0];
        response.extend_from_slice(url.user.as_bytes());
        response.push(0);
        response.extend_from_slice(url.password.as_bytes());
        let start_ok = connection::StartOk {
            mechanism: "PLAIN",
            response: &response,
            locale: "en_US",
            ..connection::StartOk::default()
        };
        session.send(0, start_ok.into())?;
        let tune = session.answer(|method| match method {
            Method::Connection(connection::Connection::Tune(tune)) => Some(*tune),
            _ => None,
        })?;
        let tune = tune.context("the broker did not tune")?;
        session.frame_max = if tune.frame_max == 0 { FRAME_MAX } else { tune.frame_max.min(FRAME_MAX) };
        // Without heartbeats, since a generator that only waits sends none.
        let (channel_max, frame_max) = (tune.channel_max, session.frame_max);
        let tune_ok = connection::TuneOk { channel_max, frame_max, heartbeat: 0 };
        session.send(0, tune_ok.into())?;
        session.send(0, connection::Open { virtual_host: &url.vhost }.into())?;
        session.answer(|_| ())?;
        session.requests(std::iter::once(channel::Open {}.into()))?;
        Ok(session)
    }

    /// Sends requests, many at a time, and waits for all answers.
    pub(crate) fn requests<'a>(&mut self, requests: impl Iterator<Item = Method<'a>>) -> anyhow::Result<()> {
        let mut requests = requests.peekable();
        while requests.peek().is_some() {
            let mut out = BytesMut::new();
            let mut count = 0;
            for request in requests.by_ref().take(PIPELINE) {
                put_method(&mut out, CHANNEL, request);
                count += 1;
            }
            self.link.stream.write_all(&out)?;
            for _ in 0..count {
                self.answer(|_| ())?;
            }
        }
        Ok(())
    }

    fn send(&mut self, channel: u16, method: Method<'_>) -> anyhow::Result<()> {
        let mut out = BytesMut::new();
        put_method(&mut out, channel, method);
        Ok(self.link.stream.write_all(&out)?)
    }

    /// Waits for the next method, and takes what is needed of it. An end is an error.
    fn answer<T>(&mut self, take: impl Fn(&Method<'_>) -> T) -> anyhow::Result<T> {
        loop {
            if let Some(frame) = Frame::first(self.link.inbound.filled())? {
                let taken = if frame.kind == METHOD { Some(take(&method(frame.payload)?)) } else { None };
                let whole = frame.whole;
                self.link.inbound.consume(whole);
                if let Some(taken) = taken {
                    return Ok(taken);
                }
            } else {
                self.link.inbound.fill(&mut self.link.stream)?;
            }
        }
    }
}

/// A frame where it is.
struct Frame<'a> {
    kind: u8,
    payload: &'a [u8],
    /// With head and end.
    whole: usize,
}

impl<'a> Frame<'a> {
    /// The first frame of these bytes; nothing if it is not there as a whole.
    #[inline]
    fn first(bytes: &'a [u8]) -> anyhow::Result<Option<Self>> {
        let Some((&[kind, _, _, l0, l1, l2, l3], rest)) = bytes.split_first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        let (Some(payload), Some(end)) = (rest.get(..length), rest.get(length)) else { return Ok(None) };
        ensure!(*end == FRAME_END, "a frame ends with {end:#04x}");
        Ok(Some(Self { kind, payload, whole: HEAD + length + 1 }))
    }
}

/// A method that ends nothing.
fn method(payload: &[u8]) -> anyhow::Result<Method<'_>> {
    let method = Method::decode(payload)?;
    match method {
        Method::Connection(connection::Connection::Close(close)) => {
            bail!("the broker closed the connection: {}", close.reply_text)
        }
        Method::Channel(channel::Channel::Close(close)) => {
            bail!("the broker closed the channel: {}", close.reply_text)
        }
        Method::Basic(basic::Basic::Cancel(_)) => bail!("the broker cancelled a consumer"),
        Method::Basic(basic::Basic::Nack(_)) => bail!("the broker did not take a publish"),
        method => Ok(method),
    }
}

/// Confirms, which are acknowledgements of publishes: of one, or of all up to one.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    /// All up to this one are confirmed.
    up_to: u64,
    /// And these, each behind a gap.
    above: BTreeSet<u64>,
}

impl Acks {
    fn ack(&mut self, tag: u64, multiple: bool, confirmed: &mut dyn FnMut(u64, u64)) -> anyhow::Result<()> {
        if multiple {
            let mut from = self.up_to + 1;
            let above = self.above.split_off(&(tag + 1));
            for done in std::mem::replace(&mut self.above, above) {
                if done > from {
                    confirmed(from, done - from);
                }
                from = done + 1;
            }
            if tag >= from {
                confirmed(from, tag + 1 - from);
            }
            self.up_to = self.up_to.max(tag);
        } else {
            ensure!(tag > self.up_to && self.above.insert(tag), "publish {tag} was confirmed twice");
            confirmed(tag, 1);
        }
        while self.above.remove(&(self.up_to + 1)) {
            self.up_to += 1;
        }
        Ok(())
    }
}

impl Confirms for Acks {
    fn read(
        &mut self,
        bytes: &[u8],
        at: &mut usize,
        confirmed: &mut dyn FnMut(u64, u64),
    ) -> anyhow::Result<()> {
        while let Some(frame) = Frame::first(bytes.get(*at..).unwrap_or_default())? {
            *at += frame.whole;
            if frame.kind != METHOD {
                continue;
            }
            if let Some(fields) = frame.payload.strip_prefix(&ACK)
                && let Some((tag, rest)) = fields.split_first_chunk()
            {
                self.ack(u64::from_be_bytes(*tag), rest.first() == Some(&1), confirmed)?;
            } else {
                method(frame.payload)?;
            }
        }
        Ok(())
    }
}

/// Deliveries, and the tags of those that are not settled.
#[derive(Debug)]
pub(crate) struct Tags {
    queues: usize,
    first: u64,
    last: u64,
}

impl Tags {
    /// A delivery from its method's fields, without its body: which queue, and whether it was handed out before.
    #[inline]
    fn begin(&mut self, fields: &[u8]) -> anyhow::Result<(usize, bool)> {
        let cut = "a delivery that is cut";
        let (length, rest) = fields.split_first().context(cut)?;
        let (consumer, rest) = rest.split_at_checked(usize::from(*length)).context(cut)?;
        let (tag, rest) = rest.split_first_chunk().context(cut)?;
        let redelivered = *rest.first().context(cut)? & 1 == 1;
        let tag = u64::from_be_bytes(*tag);
        ensure!(tag == self.last + 1, "delivery {tag} came behind {}", self.last);
        // Consumers are called by their numbers.
        let queue =
            consumer.iter().fold(0, |number, digit| number * 10 + usize::from(digit.wrapping_sub(b'0')));
        ensure!(queue < self.queues, "a delivery for no consumer");
        self.last = tag;
        Ok((queue, redelivered))
    }

    /// The beginning of the body whose frames follow from `at` on, which moves behind them; nothing if they are not all
    /// there.
    #[inline]
    fn body(bytes: &[u8], at: &mut usize) -> anyhow::Result<Option<[u8; HEAD_BYTES]>> {
        let Some(header) = Frame::first(bytes.get(*at..).unwrap_or_default())? else { return Ok(None) };
        ensure!(
            header.kind == HEADER,
            "a content header was expected, and a frame of type {} came",
            header.kind
        );
        *at += header.whole;
        let size =
            header.payload.get(4..).and_then(|rest| rest.first_chunk()).context("a header that is cut")?;
        let mut missing = u64::from_be_bytes(*size);
        let mut head = None;
        while missing > 0 {
            let Some(body) = Frame::first(bytes.get(*at..).unwrap_or_default())? else { return Ok(None) };
            ensure!(body.kind == BODY, "a body was expected, and a frame of type {} came", body.kind);
            *at += body.whole;
            missing = missing.checked_sub(body.payload.len() as u64).context("a body that is too long")?;
            if head.is_none() {
                head = Some(body.payload.first_chunk().copied().context("a body that is too short")?);
            }
        }
        head.map(Some).context("an empty body")
    }
}

impl Deliveries for Tags {
    #[inline]
    fn next(&mut self, bytes: &[u8], at: &mut usize) -> anyhow::Result<Option<Delivery>> {
        loop {
            let Some(frame) = Frame::first(bytes.get(*at..).unwrap_or_default())? else { return Ok(None) };
            let mut end = *at + frame.whole;
            if frame.kind != METHOD {
                *at = end;
                continue;
            }
            let Some(fields) = frame.payload.strip_prefix(&DELIVER) else {
                method(frame.payload)?;
                *at = end;
                continue;
            };
            let Some(head) = Self::body(bytes, &mut end)? else { return Ok(None) };
            let (queue, redelivered) = self.begin(fields)?;
            *at = end;
            return Ok(Some(Delivery { queue, redelivered, head }));
        }
    }

    fn settle(&mut self, one_by_one: bool, out: &mut BytesMut) {
        let ack = |tag: u64, multiple: bool, out: &mut BytesMut| {
            out.put_slice(&[METHOD]);
            out.put_u16(CHANNEL);
            out.put_u32(13);
            out.put_slice(&ACK);
            out.put_u64(tag);
            out.put_slice(&[u8::from(multiple), FRAME_END]);
        };
        if one_by_one {
            (self.first..=self.last).for_each(|tag| ack(tag, false, out));
        } else if self.first <= self.last {
            ack(self.last, self.first < self.last, out);
        }
        self.first = self.last + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Head;
    use crate::workload::Workload;

    #[test]
    fn a_delivery_is_read_when_it_is_whole_and_acknowledged_as_the_codec_would() {
        for size in [16, 5000] {
            let mut body = Head { stream: 0, number: 3, sent_at: 4 }.encode().to_vec();
            body.resize(size, b'x');
            let mut bytes = BytesMut::new();
            let deliver = basic::Deliver { consumer_tag: "12", delivery_tag: 1, ..basic::Deliver::default() };
            put_method(&mut bytes, CHANNEL, deliver);
            put_header(&mut bytes, CHANNEL, size as u64, &[0, 0]);
            put_body(&mut bytes, CHANNEL, 4096, &body);
            let mut tags = Tags { queues: 13, first: 1, last: 0 };
            for cut in 0..bytes.len() {
                assert!(tags.next(&bytes[..cut], &mut 0).unwrap().is_none(), "cut at {cut}");
            }
            let mut at = 0;
            let delivery = tags.next(&bytes, &mut at).unwrap().unwrap();
            assert_eq!((at, delivery.queue), (bytes.len(), 12));
            assert_eq!(Head::decode(delivery.head).number, 3);
            let (mut out, mut expected) = (BytesMut::new(), BytesMut::new());
            tags.settle(false, &mut out);
            put_method(&mut expected, CHANNEL, basic::Ack { delivery_tag: 1, multiple: false });
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn the_body_is_where_the_template_says() {
        let plan = Plan::new(&Workload { size: 100, ..Workload::default() }).unwrap();
        let template = template(&plan, "e", "key", FRAME_MAX);
        assert_eq!(&template.bytes[template.body_at..template.body_at + 100], [b'x'; 100]);
        assert_eq!(template.bytes[template.body_at + 100..], [FRAME_END]);
    }

    /// What is confirmed by these acknowledgements, in order.
    fn confirmed(acks: &[(u64, bool)]) -> Vec<u64> {
        let mut state = Acks::default();
        let mut all = Vec::new();
        for (tag, multiple) in acks {
            state.ack(*tag, *multiple, &mut |first, count| all.extend(first..first + count)).unwrap();
        }
        all
    }

    #[test]
    fn every_publish_is_confirmed_once_in_whatever_order() {
        assert_eq!(confirmed(&[(1, false), (3, true)]), [1, 2, 3]);
        assert_eq!(confirmed(&[(3, false), (5, false), (6, true), (7, false)]), [3, 5, 1, 2, 4, 6, 7]);
        assert_eq!(confirmed(&[(2, false), (1, false), (4, true)]), [2, 1, 3, 4]);
        let mut state = Acks::default();
        state.ack(2, false, &mut |_, _| {}).unwrap();
        assert!(state.ack(2, false, &mut |_, _| {}).is_err());
    }
}
