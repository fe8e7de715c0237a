//! How long definitions take over real connections: each is in the journal, and its answer waits for the sync.
//!
//! `cargo bench -p leveret-tests --bench definitions`
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench, which ends with what fails")]
#![allow(clippy::disallowed_methods, reason = "time is what it measures")]

use std::time::{Duration, Instant};

use bytes::BytesMut;
use leveret_broker::Broker;
use leveret_broker::config::Config;
use leveret_client::{Binding, Client, DeleteIf, Exchange, Queue};
use leveret_protocol::{Bind, Control, Destination, ExchangeName, QueueName, RoutingKey, Table};
use leveret_tests::Peer;

const BINDINGS: usize = 100_000;
const QUEUES: usize = 10_000;
const CONNECTIONS: usize = 10;
/// So many requests are sent before the first answer is read.
const PIPELINED: usize = 1000;
/// What is asked while the queue with all bindings goes.
const OTHERS_EVERY: Duration = Duration::from_millis(1);

#[tokio::main]
async fn main() {
    let broker = Broker::builder().config(Config::default()).temporary().start().await.unwrap();
    let client = Client::connect(&broker.url()).await.unwrap();
    client.declare(Exchange::topic("logs").durable()).await.unwrap();

    let begun = Instant::now();
    for number in 0..QUEUES {
        client.declare(Queue::durable(format!("one-{number}"))).await.unwrap();
    }
    say("queues declared by one connection, one after the other", QUEUES, begun.elapsed());

    let begun = Instant::now();
    let declaring: Vec<_> =
        (0..CONNECTIONS).map(|connection| tokio::spawn(declare_some(broker.url(), connection))).collect();
    for declaring in declaring {
        declaring.await.unwrap();
    }
    say("queues declared by ten connections", QUEUES, begun.elapsed());

    client.declare(Queue::durable("all")).await.unwrap();
    let begun = Instant::now();
    bind_pipelined(&broker, "all", BINDINGS).await;
    say("bindings made by one connection, pipelined", BINDINGS, begun.elapsed());

    let begun = Instant::now();
    for number in 0..BINDINGS / 10 {
        client.bind(Binding::queue("one-0").to("logs").key(format!("c.{number}"))).await.unwrap();
    }
    say("bindings made by one connection, one after the other", BINDINGS / 10, begun.elapsed());

    let others = tokio::spawn(slowest_check(broker.url()));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let begun = Instant::now();
    client.delete_queue("all", DeleteIf::default()).await.unwrap();
    say("bindings gone with their queue", BINDINGS, begun.elapsed());
    client.delete_queue("one-0", DeleteIf::default()).await.unwrap();
    println!(
        "{:?} is the longest that another connection waited for an answer meanwhile",
        others.await.unwrap()
    );
    client.close().await.unwrap();
    broker.stop().await.unwrap();
}

fn say(what: &str, number: usize, took: Duration) {
    let each = took / u32::try_from(number).unwrap();
    println!("{number:7} {what}: {:.3} s, {each:?} each", took.as_secs_f64());
}

async fn declare_some(url: String, connection: usize) {
    let client = Client::connect(&url).await.unwrap();
    for number in 0..QUEUES / CONNECTIONS {
        client.declare(Queue::durable(format!("ten-{connection}-{number}"))).await.unwrap();
    }
    client.close().await.unwrap();
}

async fn bind_pipelined(broker: &Broker, queue: &str, bindings: usize) {
    let mut peer = Peer::connect(broker).await;
    let mut request = 1000;
    for numbers in (0..bindings).collect::<Vec<_>>().chunks(PIPELINED) {
        let mut bytes = BytesMut::new();
        for number in numbers {
            request += 1;
            let bind = Bind {
                request,
                source: ExchangeName::new("logs").unwrap(),
                destination: Destination::Queue(QueueName::new(queue).unwrap()),
                routing_key: RoutingKey::new(format!("a.*.{number}")).unwrap(),
                arguments: Table::new(),
            };
            Control::from(bind).encode(1, &mut bytes).unwrap();
        }
        peer.write(&bytes).await;
        for _ in numbers {
            assert!(matches!(peer.control().await, Control::Done(_)));
        }
    }
}

/// Asks for a queue again and again until the last of them is gone; gives the longest wait.
async fn slowest_check(url: String) -> Duration {
    let client = Client::connect(&url).await.unwrap();
    let mut longest = Duration::ZERO;
    loop {
        let begun = Instant::now();
        let found = client.check_queue("one-0").await;
        longest = longest.max(begun.elapsed());
        if found.is_err() {
            return longest;
        }
        tokio::time::sleep(OTHERS_EVERY).await;
    }
}
