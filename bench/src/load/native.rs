//! Leveret's own protocol, over its codec.

use std::io::Write;

use anyhow::{Context, bail, ensure};
use bytes::BytesMut;
use leveret_protocol::sasl::{Mechanism, Secret, encode_plain};
use leveret_protocol::{
    Authenticate, Bind, Confirm, Consume, Control, DeclareExchange, DeclareQueue, DeleteExchange,
    DeleteQueue, Deliver, Destination, ExchangeName, HEADER_BYTES, OPENING_BYTES, Open, OpenChannel, Outcome,
    PublishParts, QueueName, RegisterRoute, Route, RoutingKey, SettleParts, Table, Verb, VhostName,
    check_opening, kind, opening,
};

use super::{Confirms, Deliveries, Delivery, Lane, Link, Protocol, Template};
use crate::url::Url;
use crate::workload::{Ack, Plan};

/// The whole load goes over one channel of each connection.
const CHANNEL: u16 = 1;
/// More keys than this go by name, though fewer registrations would be allowed, too: they would take long.
const ALIASES_MAX: usize = 64;
/// How many requests are on their way at a time.
const PIPELINE: usize = 1000;
/// Where the body begins in a publish by alias without properties.
pub(super) const DELIVERED_BODY_AT: usize = HEADER_BYTES + 8;

/// A broker that speaks it.
#[derive(Debug, Clone)]
pub(crate) struct Native {
    pub(crate) url: Url,
}

/// The publish of a plan to a registered route.
pub(super) fn template(plan: &Plan, alias: u32) -> Template {
    publish(plan, Route::Alias(alias))
}

fn publish(plan: &Plan, route: Route<'_>) -> Template {
    let body = vec![b'x'; plan.workload.size];
    let parts = PublishParts {
        route,
        mandatory: false,
        persistent: !plan.workload.transient,
        priority: None,
        ttl_ms: None,
        cc: &[],
        bcc: &[],
        properties: &[],
        body: &body,
    };
    let mut out = BytesMut::new();
    parts.encode(CHANNEL, &mut out);
    Template { body_at: out.len() - body.len(), bytes: out.to_vec() }
}

impl Protocol for Native {
    type Confirms = Runs;
    type Deliveries = Tags;

    fn prepare(&self, plan: &Plan) -> anyhow::Result<()> {
        self.clean(plan)?;
        let mut session = Session::open(&self.url, false)?;
        let durable = !plan.workload.transient;
        let queues = plan.queues.iter().map(|queue| Ok(declare(QueueName::new(&queue.name)?, durable)));
        session.requests(queues)?;
        let Some(exchange) = &plan.exchange else { return Ok(()) };
        let source = ExchangeName::new(&exchange.name)?;
        session.requests(std::iter::once(Ok(Control::from(DeclareExchange {
            request: 0,
            exchange: source.clone(),
            kind: exchange.kind.to_owned(),
            passive: false,
            durable,
            auto_delete: false,
            internal: false,
            arguments: Table::default(),
        }))))?;
        session.requests(exchange.bindings.iter().map(|(queue, key)| {
            let queue = plan.queues.get(*queue).context("a binding to no queue")?;
            Ok(Control::from(Bind {
                request: 0,
                source: source.clone(),
                destination: Destination::Queue(QueueName::new(&queue.name)?),
                routing_key: RoutingKey::new(key)?,
                arguments: Table::default(),
            }))
        }))
    }

    fn consumer(&self, plan: &Plan, consumer: usize) -> anyhow::Result<(Link, Tags)> {
        let mut session = Session::open(&self.url, false)?;
        let queues = plan.consumers.get(consumer).map(Vec::as_slice).unwrap_or_default();
        let mut inbound = Vec::new();
        for (number, queue) in queues.iter().enumerate() {
            let queue = plan.queues.get(*queue).context("a consumer of no queue")?;
            let consume = Consume {
                request: 0,
                queue: QueueName::new(&queue.name)?,
                consumer: number as u32,
                tag: String::new(),
                no_ack: plan.workload.ack() == Ack::None,
                exclusive: false,
                prefetch: plan.workload.prefetch(),
                priority: 0,
            };
            session.requests(std::iter::once(Ok(Control::from(consume))))?;
            inbound.push((1, 0));
        }
        Ok((session.link, Tags { unsettled: inbound }))
    }

    fn producer(&self, plan: &Plan, producer: usize) -> anyhow::Result<(Link, Runs, Vec<Lane>)> {
        let mut session = Session::open(&self.url, plan.workload.window() > 0)?;
        let exchange = plan.exchange.as_ref().map(|exchange| exchange.name.as_str()).unwrap_or_default();
        let streams = plan.producers.get(producer).map(Vec::as_slice).unwrap_or_default();
        let keys: Vec<(u16, &String)> = streams
            .iter()
            .filter_map(|stream| plan.streams.get(*stream).map(|keys| (*stream as u16, keys)))
            .flat_map(|(stream, keys)| keys.keys.iter().map(move |key| (stream, key)))
            .collect();
        let by_alias = keys.len() <= ALIASES_MAX;
        let mut lanes = Vec::new();
        for (alias, (stream, key)) in keys.iter().enumerate() {
            let route = if by_alias {
                let register = RegisterRoute {
                    request: 0,
                    alias: alias as u32,
                    exchange: ExchangeName::new(exchange)?,
                    routing_key: RoutingKey::new(key)?,
                };
                session.requests(std::iter::once(Ok(Control::from(register))))?;
                Route::Alias(alias as u32)
            } else {
                Route::Named { exchange, routing_key: key }
            };
            lanes.push(Lane { stream: *stream, template: publish(plan, route) });
        }
        Ok((session.link, Runs, lanes))
    }

    fn clean(&self, plan: &Plan) -> anyhow::Result<()> {
        let mut session = Session::open(&self.url, false)?;
        let exchange = plan.exchange.iter().map(|exchange| {
            let exchange = ExchangeName::new(&exchange.name)?;
            Ok(Control::from(DeleteExchange { request: 0, exchange, if_unused: false }))
        });
        session.requests(exchange)?;
        session.requests(plan.queues.iter().map(|queue| {
            let queue = QueueName::new(&queue.name)?;
            Ok(Control::from(DeleteQueue { request: 0, queue, if_unused: false, if_empty: false }))
        }))
    }
}

/// The declaration of a queue.
pub(crate) fn declare(queue: QueueName, durable: bool) -> Control {
    Control::from(DeclareQueue {
        request: 0,
        queue,
        passive: false,
        durable,
        exclusive: false,
        auto_delete: false,
        arguments: Table::default(),
    })
}

/// A connection with one channel, for requests.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) link: Link,
}

impl Session {
    pub(crate) fn open(url: &Url, confirms: bool) -> anyhow::Result<Self> {
        let mut link = Link::connect(&url.address)?;
        link.stream.write_all(&opening())?;
        let theirs = loop {
            match link.inbound.filled().first_chunk::<OPENING_BYTES>() {
                Some(theirs) => break *theirs,
                None => link.inbound.fill(&mut link.stream)?,
            }
        };
        check_opening(theirs)?;
        link.inbound.consume(OPENING_BYTES);
        let mut session = Self { link };
        let Control::Hello(hello) = session.control()? else { bail!("the broker does not begin with Hello") };
        let initial = encode_plain(&url.user, &Secret::from(url.password.as_str()))?.to_vec();
        session.send(
            0,
            &Control::from(Authenticate { mechanism: Mechanism::Plain.name().to_owned(), initial }),
        )?;
        session.control()?;
        let open = Open {
            vhost: VhostName::new(&url.vhost)?,
            frame_bytes_max: hello.frame_bytes_max,
            channels_max: 1,
            // A generator that only waits sends nothing. A broker that insists on heartbeats, as one at --url may, cuts it off
            // if the run is longer than two of them.
            heartbeat_ms: 0,
            client_name: "leveret-bench".to_owned(),
            client_product: format!("leveret-bench {}", env!("CARGO_PKG_VERSION")),
        };
        session.send(0, &Control::from(open))?;
        match session.control()? {
            Control::Opened(_) => {}
            other => bail!("Opened was expected, and {} came", other.name()),
        }
        session.requests(std::iter::once(Ok(Control::from(OpenChannel { request: 0, confirms }))))?;
        Ok(session)
    }

    /// Sends requests, many at a time, and waits for all answers. Their numbers are given here.
    pub(crate) fn requests(
        &mut self,
        requests: impl Iterator<Item = anyhow::Result<Control>>,
    ) -> anyhow::Result<()> {
        let mut requests = requests.peekable();
        let mut number = 0;
        while requests.peek().is_some() {
            let mut out = BytesMut::new();
            let first = number;
            for request in requests.by_ref().take(PIPELINE) {
                numbered(request?, number).encode(CHANNEL, &mut out)?;
                number += 1;
            }
            self.link.stream.write_all(&out)?;
            for _ in first..number {
                match self.control()? {
                    Control::Done(_) => {}
                    other => bail!("Done was expected, and {} came", other.name()),
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, channel: u16, control: &Control) -> anyhow::Result<()> {
        let mut out = BytesMut::new();
        control.encode(channel, &mut out)?;
        Ok(self.link.stream.write_all(&out)?)
    }

    /// The next control frame; refusals are errors.
    fn control(&mut self) -> anyhow::Result<Control> {
        loop {
            if let Some(frame) = Frame::first(self.link.inbound.filled()) {
                let control = control(frame.kind, frame.payload)?;
                let whole = frame.whole;
                self.link.inbound.consume(whole);
                return Ok(control);
            }
            self.link.inbound.fill(&mut self.link.stream)?;
        }
    }
}

fn numbered(mut request: Control, number: u32) -> Control {
    match &mut request {
        Control::OpenChannel(OpenChannel { request, .. })
        | Control::DeclareExchange(DeclareExchange { request, .. })
        | Control::DeleteExchange(DeleteExchange { request, .. })
        | Control::DeclareQueue(DeclareQueue { request, .. })
        | Control::DeleteQueue(DeleteQueue { request, .. })
        | Control::Bind(Bind { request, .. })
        | Control::Consume(Consume { request, .. })
        | Control::RegisterRoute(RegisterRoute { request, .. }) => *request = number,
        _ => {}
    }
    request
}

/// A frame where it is.
struct Frame<'a> {
    kind: u8,
    flags: u8,
    payload: &'a [u8],
    /// With its header.
    whole: usize,
}

impl<'a> Frame<'a> {
    /// The first frame of these bytes; nothing if it is not there as a whole.
    #[inline]
    fn first(bytes: &'a [u8]) -> Option<Self> {
        let (&[l0, l1, l2, l3, kind, flags, _, _], rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        Some(Self { kind, flags, payload: rest.get(..length)?, whole: HEADER_BYTES + length })
    }
}

/// A control frame that ends nothing.
fn control(kind: u8, payload: &[u8]) -> anyhow::Result<Control> {
    match Control::decode(kind, payload)? {
        Control::Close(close) => bail!("the broker closed the connection: {}", close.text),
        Control::ChannelClosed(closed) => bail!("the broker closed the channel: {}", closed.text),
        Control::ConsumerCancelled(cancelled) => bail!("the broker cancelled a consumer: {}", cancelled.text),
        Control::Failed(failed) => bail!("{} failed: {}", failed.operation, failed.text),
        Control::PublishingPaused(paused) => bail!("the broker takes no publishes: {}", paused.reason),
        control => Ok(control),
    }
}

/// Confirms, as runs of publishes.
#[derive(Debug)]
pub(crate) struct Runs;

impl Confirms for Runs {
    fn read(
        &mut self,
        bytes: &[u8],
        at: &mut usize,
        confirmed: &mut dyn FnMut(u64, u64),
    ) -> anyhow::Result<()> {
        while let Some(frame) = Frame::first(bytes.get(*at..).unwrap_or_default()) {
            *at += frame.whole;
            match frame.kind {
                kind::CONFIRM => {
                    for Confirm { first, count, outcome } in Confirm::decode(frame.payload)? {
                        ensure!(
                            matches!(outcome, Outcome::Routed(1..)),
                            "{count} publishes from {first} on were not taken: {outcome:?}"
                        );
                        confirmed(first, count.into());
                    }
                }
                kind::HEARTBEAT => {}
                kind => drop(control(kind, frame.payload)?),
            }
        }
        Ok(())
    }
}

/// Deliveries, and their tags: by consumer number, the first and the last that is not settled.
#[derive(Debug)]
pub(crate) struct Tags {
    unsettled: Vec<(u64, u64)>,
}

impl Deliveries for Tags {
    #[inline]
    fn next(&mut self, bytes: &[u8], at: &mut usize) -> anyhow::Result<Option<Delivery>> {
        loop {
            let Some(frame) = Frame::first(bytes.get(*at..).unwrap_or_default()) else { return Ok(None) };
            *at += frame.whole;
            if frame.kind != kind::DELIVER {
                if frame.kind != kind::HEARTBEAT {
                    control(frame.kind, frame.payload)?;
                }
                continue;
            }
            let deliver = Deliver::decode(frame.flags, frame.payload)?;
            let queue = deliver.consumer as usize;
            let (_, last) = self.unsettled.get_mut(queue).context("a delivery for no consumer")?;
            ensure!(deliver.tag == *last + 1, "delivery {} came behind {last}", deliver.tag);
            *last = deliver.tag;
            let head = deliver.body.first_chunk().copied().context("a body that is too short")?;
            return Ok(Some(Delivery { queue, redelivered: deliver.redelivered.is_some(), head }));
        }
    }

    fn settle(&mut self, one_by_one: bool, out: &mut BytesMut) {
        for (consumer, (first, last)) in self.unsettled.iter_mut().enumerate() {
            let mut ack = |range: (u64, u64)| {
                let parts = SettleParts {
                    consumer: consumer as u32,
                    verb: Verb::Ack,
                    confirm: false,
                    note: None,
                    ranges: &[range],
                };
                parts.encode(kind::SETTLE, CHANNEL, out);
            };
            if one_by_one {
                (*first..=*last).for_each(|tag| ack((tag, tag)));
            } else if first <= last {
                ack((*first, *last));
            }
            *first = *last + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Head;
    use crate::workload::Workload;

    #[test]
    fn the_body_is_where_the_template_says() {
        let plan = Plan::new(&Workload { size: 40, ..Workload::default() }).unwrap();
        let by_alias = template(&plan, 3);
        assert_eq!(by_alias.body_at, DELIVERED_BODY_AT);
        let named = publish(&plan, Route::Named { exchange: "e", routing_key: "key" });
        for template in [by_alias, named] {
            let frame = Frame::first(&template.bytes).unwrap();
            assert_eq!(frame.whole, template.bytes.len());
            let decoded = leveret_protocol::Publish::decode(frame.flags, frame.payload).unwrap();
            assert!(decoded.persistent);
            assert_eq!(decoded.body(), &template.bytes[template.body_at..]);
        }
    }

    #[test]
    fn deliveries_are_read_in_place_and_settled_as_one_range() {
        let head = Head { stream: 0, number: 0, sent_at: 5 };
        let body = head.encode();
        let mut bytes = BytesMut::new();
        for tag in 1..=3 {
            let deliver = Deliver {
                consumer: 0,
                tag,
                published_at_ms: 0,
                exchange: "",
                routing_key: "q",
                redelivered: None,
                persistent: true,
                priority: None,
                ttl_ms: None,
                cc: leveret_protocol::Keys::default(),
                deaths: &[],
                properties: &[],
                body: &body,
            };
            leveret_protocol::DeliverParts { deliver, cc: std::iter::empty() }.encode(CHANNEL, &mut bytes);
        }
        let mut tags = Tags { unsettled: vec![(1, 0)] };
        let mut at = 0;
        let cut = bytes.len() - 1;
        let mut count = 0;
        while let Some(delivery) = tags.next(&bytes[..cut], &mut at).unwrap() {
            assert_eq!(Head::decode(delivery.head), head);
            count += 1;
        }
        assert_eq!(count, 2, "the third is cut");
        assert!(tags.next(&bytes, &mut at).unwrap().is_some());
        let mut out = BytesMut::new();
        tags.settle(false, &mut out);
        let frame = Frame::first(&out).unwrap();
        let settle = leveret_protocol::Settle::decode(frame.flags, frame.payload).unwrap();
        assert_eq!(settle.ranges.iter().collect::<Vec<_>>(), [(1, 3)]);
        out.clear();
        tags.settle(false, &mut out);
        assert!(out.is_empty(), "nothing is settled twice");
    }
}
