//! The same load through the client crate, as services have it: a task for each publisher and consumer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, ensure};
use bytes::Bytes;
use leveret_client::{
    Binding, Client, Consumer, DeleteIf, Exchange, Message, Publisher, Queue, Receipt, UnconfirmedPublisher,
};
use tokio::sync::watch;

use crate::load::{Checker, Head, Outcome, verdict};
use crate::measure::clock::Clock;
use crate::measure::disk::DiskUsage;
use crate::measure::float;
use crate::measure::latency::Latencies;
use crate::measure::process::Usage;
use crate::server::Server;
use crate::workload::{Ack, Plan, Workload};

/// Runs a plan; it has a number of messages, no fixed rate and no slow consumer.
pub(crate) fn run(plan: &Plan, server: &Server) -> anyhow::Result<Outcome> {
    let Workload { seconds, rate, slow, .. } = &plan.workload;
    ensure!(
        seconds.is_none() && rate.is_none() && slow.is_none(),
        "--seconds, --rate and --slow are for --raw: the client crate costs more than the broker, and would be measured"
    );
    crate::runtime()?.block_on(run_async(plan, server))
}

async fn run_async(plan: &Plan, server: &Server) -> anyhow::Result<Outcome> {
    let admin = Client::connect(&server.url).await?;
    prepare(&admin, plan).await?;
    let clock = Clock::start();
    let subject = server.subject();
    let disk = || subject.data.and_then(DiskUsage::of);
    let before = (server.usage(), Usage::own(), disk());
    let missing = AtomicU64::new(plan.workload.messages * plan.workload.copies());
    let missing = Arc::new(Missing { count: missing, none: watch::Sender::new(plan.workload.messages == 0) });
    let mut consuming = Vec::new();
    for consumer in 0..plan.consumers.len() {
        let client = Client::connect(&server.url).await?;
        consuming.push(tokio::spawn(consume(client, plan.clone(), consumer, missing.clone(), clock)));
    }
    let mut publishing = Vec::new();
    for producer in 0..plan.producers.len() {
        let client = Client::connect(&server.url).await?;
        publishing.push(tokio::spawn(publish(client, plan.clone(), producer, clock)));
    }
    let mut streams = vec![0; plan.streams.len()];
    for publishing in publishing {
        let sent = publishing.await??;
        streams.iter_mut().zip(sent).for_each(|(sum, count)| *sum += count);
    }
    let mut checkers = Vec::new();
    let mut latencies = Latencies::new()?;
    for consuming in consuming {
        let (checked, after) = consuming.await??;
        checkers.extend(checked);
        latencies.add(&after);
    }
    let seconds = clock.elapsed().as_secs_f64();
    let after = (server.usage(), Usage::own(), disk());
    for queue in &plan.queues {
        admin.delete_queue(queue.name.as_str(), DeleteIf::default()).await?;
    }
    admin.close().await?;
    let verdict = verdict(plan, &checkers, &streams)?;
    let published: u64 = streams.iter().sum();
    let cost = |(begin, end): (Usage, Usage)| begin.cost_until(end, float(published));
    let confirmed = if plan.workload.window() > 0 { published } else { 0 };
    Ok(Outcome {
        published,
        confirmed,
        delivered: verdict.deliveries,
        seconds,
        rate: float(verdict.deliveries) / seconds,
        published_rate: float(published) / seconds,
        confirmed_rate: float(confirmed) / seconds,
        delivered_after: latencies.percentiles(),
        confirmed_after: None,
        broker: before.0.zip(after.0).map(cost),
        generator: before.1.zip(after.1).map(cost),
        disk: before.2.zip(after.2).map(|(begin, end)| begin.until(end)),
        redelivered: verdict.redelivered,
        first_delivery: None,
    })
}

async fn prepare(admin: &Client, plan: &Plan) -> anyhow::Result<()> {
    let durable = !plan.workload.transient;
    for queue in &plan.queues {
        let name = queue.name.as_str();
        admin.declare(if durable { Queue::durable(name) } else { Queue::transient(name) }).await?;
    }
    let Some(exchange) = &plan.exchange else { return Ok(()) };
    let name = exchange.name.as_str();
    admin.declare(Exchange::of_type(name, exchange.kind).auto_delete()).await?;
    for (queue, key) in &exchange.bindings {
        let queue = plan.queues.get(*queue).context("a binding to no queue")?;
        admin.bind(Binding::queue(&queue.name).to(name).key(key)).await?;
    }
    Ok(())
}

/// How often publishers read the clock: what the other generator puts into one write.
const CLOCK_EVERY: u64 = 64;

/// Publishes a producer's share; gives how many there were of each stream.
async fn publish(client: Client, plan: Plan, producer: usize, clock: Clock) -> anyhow::Result<Vec<u64>> {
    let streams = plan.producers.get(producer).context("a producer of no stream")?;
    let lanes: Vec<(usize, String)> = streams
        .iter()
        .filter_map(|stream| Some((*stream, plan.streams.get(*stream)?)))
        .flat_map(|(stream, keys)| keys.keys.iter().map(move |key| (stream, key.clone())))
        .collect();
    let mut sender = Sender::open(&client, &plan).await?;
    let mut next = vec![0; plan.streams.len()];
    let mut now = 0;
    for (number, (stream, key)) in (0..plan.limit(producer)).zip(lanes.iter().cycle()) {
        if number % CLOCK_EVERY == 0 {
            now = clock.nanos();
        }
        let next = next.get_mut(*stream).context("an unknown stream")?;
        let head = Head { stream: *stream as u16, number: *next, sent_at: now };
        *next += 1;
        sender.send(key, body(head, plan.workload.size)).await?;
    }
    sender.end().await?;
    client.close().await?;
    Ok(next)
}

enum Sender {
    Unconfirmed(UnconfirmedPublisher),
    Confirmed(Publisher, VecDeque<Receipt>, usize),
}

impl Sender {
    async fn open(client: &Client, plan: &Plan) -> anyhow::Result<Self> {
        let exchange = plan.exchange.as_ref().map(|exchange| exchange.name.as_str()).unwrap_or_default();
        let publisher = client.publisher(exchange).persistent(!plan.workload.transient);
        Ok(match plan.workload.window() as usize {
            0 => Self::Unconfirmed(publisher.unconfirmed().open().await?),
            window => {
                let receipts = VecDeque::with_capacity(window);
                Self::Confirmed(publisher.in_flight_max(window).open().await?, receipts, window)
            }
        })
    }

    async fn send(&mut self, key: &str, body: Bytes) -> anyhow::Result<()> {
        match self {
            Self::Unconfirmed(publisher) => Ok(publisher.send(key, Message::new(body)).await?),
            Self::Confirmed(publisher, receipts, window) => {
                if receipts.len() >= *window
                    && let Some(receipt) = receipts.pop_front()
                {
                    receipt.confirmed().await?;
                }
                receipts.push_back(publisher.send(key, Message::new(body)).await?);
                Ok(())
            }
        }
    }

    async fn end(self) -> anyhow::Result<()> {
        if let Self::Confirmed(_, receipts, _) = self {
            for receipt in receipts {
                receipt.confirmed().await?;
            }
        }
        Ok(())
    }
}

fn body(head: Head, size: usize) -> Bytes {
    let mut body = vec![b'x'; size];
    if let Some(place) = body.first_chunk_mut() {
        *place = head.encode();
    }
    body.into()
}

/// How many deliveries are still to come, of all consumers.
struct Missing {
    count: AtomicU64,
    none: watch::Sender<bool>,
}

async fn consume(
    client: Client,
    plan: Plan,
    consumer: usize,
    missing: Arc<Missing>,
    clock: Clock,
) -> anyhow::Result<(Vec<Checker>, Latencies)> {
    let queues = plan.consumers.get(consumer).context("a consumer of no queue")?;
    let mut consuming = Vec::new();
    for queue in queues {
        let checker = Checker::new(&plan, *queue);
        let queue = plan.queues.get(*queue).context("an unknown queue")?;
        let builder = client.consumer(&queue.name);
        let prefetch = plan.workload.prefetch();
        let builder = if prefetch > 0 { builder.prefetch_max(prefetch) } else { builder };
        let builder = if plan.workload.ack() == Ack::None { builder.without_acks() } else { builder };
        consuming.push(tokio::spawn(consume_one(builder.open().await?, checker, missing.clone(), clock)));
    }
    let mut latencies = Latencies::new()?;
    let mut checkers = Vec::new();
    for one in consuming {
        let (checker, after) = one.await??;
        checkers.push(checker);
        latencies.add(&after);
    }
    client.close().await?;
    Ok((checkers, latencies))
}

async fn consume_one(
    mut deliveries: Consumer,
    mut checker: Checker,
    missing: Arc<Missing>,
    clock: Clock,
) -> anyhow::Result<(Checker, Latencies)> {
    let mut latencies = Latencies::new()?;
    let mut over = missing.none.subscribe();
    for number in 0_u64.. {
        let delivery = tokio::select! {
            delivery = deliveries.try_next() => delivery?.context("the consumer ended early")?,
            _ = over.wait_for(|over| *over) => break,
        };
        let head = Head::decode(delivery.body().first_chunk().copied().context("a body that is too short")?);
        checker.check(head, delivery.is_redelivered())?;
        delivery.ack();
        if number % CLOCK_EVERY == 0 {
            latencies.record(clock.nanos().saturating_sub(head.sent_at), 1);
        }
        if missing.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            missing.none.send_replace(true);
        }
    }
    Ok((checker, latencies))
}
