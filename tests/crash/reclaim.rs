//! The journal does not grow because of a few messages that nobody settles.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use leveret_broker::Broker;
use leveret_client::{Client, Delivery, Message, Queue};
use leveret_tests::{config, within};
use tokio::sync::mpsc;
use tokio::time::Instant;

const QUEUE: &str = "q";
const MIB: usize = 1024 * 1024;

async fn start(data_dir: &Path, segment_bytes: usize) -> Broker {
    let mut config = config();
    config.journal.segment_bytes = segment_bytes;
    config.limits.message_bytes_max = 256 * 1024;
    let builder = Broker::builder().config(config).data_dir(data_dir).listen_amqp([]);
    builder.listen([SocketAddr::from(([127, 0, 0, 1], 0))]).start().await.unwrap()
}

fn segments(data_dir: &Path) -> usize {
    let is_segment = |entry: &std::fs::DirEntry| entry.path().extension().is_some_and(|end| end == "segment");
    std::fs::read_dir(data_dir.join("journal")).unwrap().flatten().filter(is_segment).count()
}

/// Publishes messages that begin with their numbers, as fast as they are confirmed, until told to stop.
async fn publish(url: String, size: usize, numbers: std::ops::Range<u64>) -> u64 {
    let client = Client::connect(&url).await.unwrap();
    let publisher = client.publisher("").in_flight_max(4096).open().await.unwrap();
    let mut receipts = std::collections::VecDeque::new();
    let end = numbers.end;
    for number in numbers {
        let mut body = vec![7; size];
        body[..8].copy_from_slice(&number.to_le_bytes());
        receipts.push_back(publisher.send(QUEUE, Message::new(body)).await.unwrap());
        if receipts.len() == 4096 {
            receipts.pop_front().unwrap().confirmed().await.unwrap();
        }
    }
    for receipt in receipts {
        receipt.confirmed().await.unwrap();
    }
    end
}

fn number(body: &[u8]) -> u64 {
    u64::from_le_bytes(*body.first_chunk().unwrap())
}

/// Settles all but one of each `nth` messages; keeps those.
async fn consume(url: String, nth: u64, kept: mpsc::Sender<Delivery>, count: u64) {
    let client = Client::connect(&url).await.unwrap();
    let mut consumer = client.consumer(QUEUE).prefetch_max(1_000_000).open().await.unwrap();
    for expected in 0..count {
        let delivery = consumer.next().await.unwrap().unwrap();
        assert_eq!(number(delivery.body()), expected);
        if expected.is_multiple_of(nth) {
            kept.send(delivery).await.unwrap();
        } else {
            delivery.ack();
        }
    }
    // The deliveries that were kept are this consumer's, until the test ends.
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn messages_that_nobody_settles_do_not_keep_the_journal_and_survive_once_each() {
    const COUNT: u64 = 20_000;
    const NTH: u64 = 500;
    let data = tempfile::tempdir().unwrap();
    let broker = start(data.path(), MIB).await;
    let url = broker.url();
    let client = Client::connect(&url).await.unwrap();
    client.declare(Queue::durable(QUEUE)).await.unwrap();
    let (keep, mut kept) = mpsc::channel(100_000);
    let consuming = tokio::spawn(consume(url.clone(), NTH, keep, COUNT));
    within("20 MiB", publish(url.clone(), 1024, 0..COUNT)).await;
    let mut stragglers = BTreeMap::new();
    while stragglers.len() < (COUNT / NTH) as usize {
        let delivery = within("a delivery", kept.recv()).await.unwrap();
        stragglers.insert(number(delivery.body()), delivery);
    }
    // The messages need less than a segment, and four may be there beside twice that.
    let short = async {
        while segments(data.path()) > 2 + 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("the front of the journal to go", short).await;
    // A moved message is settled as any other.
    for settled in [0, NTH] {
        stragglers.remove(&settled).unwrap().ack_durably().await.unwrap();
    }
    // As if it were killed: nothing is given back.
    consuming.abort();
    drop(stragglers);
    drop(client);
    drop(broker);
    let broker = within("the journal", restart(data.path())).await;
    let client = Client::connect(&broker.url()).await.unwrap();
    let mut consumer = client.consumer(QUEUE).open().await.unwrap();
    for expected in (2 * NTH..COUNT).step_by(NTH as usize) {
        let delivery = within("a delivery", consumer.next()).await.unwrap().unwrap();
        assert_eq!((number(delivery.body()), delivery.body().len()), (expected, 1024));
        assert!(delivery.is_redelivered());
        delivery.ack_durably().await.unwrap();
    }
    assert_eq!(client.check_queue(QUEUE).await.unwrap().messages(), 0);
    broker.stop().await.unwrap();
}

/// The tasks of the broker before let go of the journal a moment after they were told to.
async fn restart(data_dir: &Path) -> Broker {
    loop {
        let mut config = config();
        config.journal.segment_bytes = MIB;
        config.limits.message_bytes_max = 256 * 1024;
        let builder = Broker::builder().config(config).data_dir(data_dir).listen_amqp([]);
        match builder.listen([SocketAddr::from(([127, 0, 0, 1], 0))]).start().await {
            Ok(broker) => return broker,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// `LEVERET_SOAK_SECONDS=600 cargo test --release -p leveret-tests --test crash soak -- --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak_of_one_unsettled_message_in_ten_thousand_leaves_the_disk_bounded() {
    const SEGMENT: usize = 16 * MIB;
    const SIZE: usize = 1024;
    const NTH: u64 = 10_000;
    /// Four segments, the spares, and what is written between two looks a second apart.
    const WINDOW: usize = 768 * MIB;
    let Some(seconds) = std::env::var("LEVERET_SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok())
    else {
        println!("SKIPPED: LEVERET_SOAK_SECONDS is not set");
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let broker = start(data.path(), SEGMENT).await;
    let url = broker.url();
    let client = Client::connect(&url).await.unwrap();
    client.declare(Queue::durable(QUEUE)).await.unwrap();
    let (keep, mut kept) = mpsc::channel(100_000);
    let consuming = tokio::spawn(consume(url.clone(), NTH, keep, u64::MAX));
    let began = Instant::now();
    let (mut published, mut disk_max, mut waiting_max) = (0, 0, 0);
    let mut stragglers = Vec::new();
    while began.elapsed() < Duration::from_secs(seconds) {
        published = publish(url.clone(), SIZE, published..published + 100_000).await;
        while let Ok(straggler) = kept.try_recv() {
            stragglers.push(straggler);
        }
        let waiting = client.check_queue(QUEUE).await.unwrap().messages() as usize;
        let live = (stragglers.len() + waiting) * (SIZE + 128);
        let disk = segments(data.path()) * SEGMENT;
        (disk_max, waiting_max) = (disk_max.max(disk), waiting_max.max(waiting));
        assert!(disk <= 2 * live + WINDOW, "{} MiB of {live} bytes after {published} messages", disk / MIB);
    }
    let took = began.elapsed().as_secs();
    println!(
        "{published} messages of {SIZE} B in {took} s ({} a second, {} MiB), {} unsettled; disk at most {} MiB, in the \
         end {} MiB; at most {waiting_max} waiting",
        published / took.max(1),
        published as usize * SIZE / MIB,
        stragglers.len(),
        disk_max / MIB,
        segments(data.path()) * SEGMENT / MIB,
    );
    consuming.abort();
}
