//! Ends other than a kill: SIGTERM, a second broker, a disk that fails.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use leveret_client::{
    Client, ConnectionLost, Interruption, Message, PublishError, Queue, Recovery, ReplyCode,
};
use tokio::time::timeout;

use crate::server::{Ended, Server, url};
use leveret_tests::free_address;

const QUEUE: &str = "stops";

/// No promise of this file takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

async fn connect(address: std::net::SocketAddr) -> Client {
    Client::builder(&url(address)).recovery(Recovery::off()).connect().await.unwrap()
}

/// Publishes numbers until the connection is lost. Gives those that were confirmed, and the first error.
async fn publish_until_lost(client: Client, in_flight: usize) -> (Vec<u64>, PublishError) {
    let publisher = client.publisher("").open().await.unwrap();
    let mut confirmed = Vec::new();
    let mut lost = None;
    for first in (0..).step_by(in_flight) {
        let mut receipts = Vec::new();
        for number in first..first + in_flight as u64 {
            match publisher.send(QUEUE, Message::new(number.to_string())).await {
                Ok(receipt) => receipts.push((number, receipt)),
                Err(error) => lost = lost.or(Some(error)),
            }
        }
        for (number, receipt) in receipts {
            match receipt.confirmed().await {
                Ok(_) => confirmed.push(number),
                Err(error) => lost = lost.or(Some(error)),
            }
        }
        if lost.is_some() {
            break;
        }
    }
    (confirmed, lost.unwrap())
}

/// Empties the queue; gives the numbers in the order in which they came, and whether they were flagged as redelivered.
async fn take_all(address: std::net::SocketAddr) -> Vec<(u64, bool)> {
    let client = connect(address).await;
    let ready = client.check_queue(QUEUE).await.unwrap().messages();
    let mut consumer = client.consumer(QUEUE).open().await.unwrap();
    let mut taken = Vec::new();
    for _ in 0..ready {
        let delivery = timeout(PATIENCE, consumer.next()).await.unwrap().unwrap().unwrap();
        let number = std::str::from_utf8(delivery.body()).unwrap().parse().unwrap();
        taken.push((number, delivery.is_redelivered()));
        delivery.ack();
    }
    client.close().await.unwrap();
    taken
}

#[tokio::test]
async fn sigterm_under_load_ends_with_0_keeps_what_was_confirmed_and_tells_clients_why() {
    let data_dir = tempfile::tempdir().unwrap();
    let address = free_address();
    let server = Server::start(data_dir.path(), address).await;
    let client = connect(address).await;
    client.declare(Queue::durable(QUEUE)).await.unwrap();
    let publishing = tokio::spawn(publish_until_lost(client, 100));
    let watcher = connect(address).await;
    while watcher.check_queue(QUEUE).await.unwrap().messages() < 1000 {}
    let ended = server.terminate().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let (confirmed, lost) = timeout(PATIENCE, publishing).await.unwrap().unwrap();
    let cause = match lost {
        PublishError::OutcomeUnknown { cause, .. } | PublishError::NotSent { cause, .. } => cause,
        other => panic!("{other}"),
    };
    let Interruption::Connection(ConnectionLost::Ended(reason)) = cause else { panic!("{cause}") };
    assert_eq!(reason.code, ReplyCode::ConnectionForced, "{reason}");
    let server = Server::start(data_dir.path(), address).await;
    let taken: Vec<u64> = take_all(address).await.into_iter().map(|(number, _)| number).collect();
    assert!(taken.is_sorted());
    let missing: Vec<_> = confirmed.iter().filter(|number| taken.binary_search(number).is_err()).collect();
    assert!(missing.is_empty(), "{missing:?} of {}", confirmed.len());
    println!("SIGTERM: {} confirmed, {} stored; clients were told {reason}", confirmed.len(), taken.len());
    server.terminate().await;
}

#[tokio::test]
async fn an_orderly_stop_does_not_forget_what_was_seen_before_a_kill() {
    let data_dir = tempfile::tempdir().unwrap();
    let address = free_address();
    let server = Server::start(data_dir.path(), address).await;
    let client = connect(address).await;
    client.declare(Queue::durable(QUEUE)).await.unwrap();
    let publisher = client.publisher("").open().await.unwrap();
    publisher.publish(QUEUE, "1").await.unwrap();
    let held = client.get(QUEUE).await.unwrap().unwrap();
    assert!(!held.is_redelivered());
    server.kill().await;
    drop(held);
    for _ in 0..2 {
        let ended = Server::start(data_dir.path(), address).await.terminate().await;
        assert_eq!(ended.code, Some(0), "{}", ended.log);
    }
    let server = Server::start(data_dir.path(), address).await;
    assert_eq!(take_all(address).await, [(1, true)]);
    server.terminate().await;
}

#[tokio::test]
async fn a_kill_soon_after_an_orderly_stop_does_not_forget_what_was_seen_between_them() {
    let data_dir = tempfile::tempdir().unwrap();
    let address = free_address();
    let server = Server::start(data_dir.path(), address).await;
    let client = connect(address).await;
    client.declare(Queue::durable(QUEUE)).await.unwrap();
    client.publisher("").open().await.unwrap().publish(QUEUE, "1").await.unwrap();
    client.close().await.unwrap();
    assert_eq!(server.terminate().await.code, Some(0));
    let server = Server::start(data_dir.path(), address).await;
    let client = connect(address).await;
    let held = client.get(QUEUE).await.unwrap().unwrap();
    assert!(!held.is_redelivered());
    server.kill().await;
    drop(held);
    let server = Server::start(data_dir.path(), address).await;
    assert_eq!(take_all(address).await, [(1, true)]);
    server.terminate().await;
}

#[tokio::test]
async fn an_orderly_stop_does_not_pass_held_messages_from_one_closing_connection_to_the_next() {
    let data_dir = tempfile::tempdir().unwrap();
    let address = free_address();
    let server = Server::start(data_dir.path(), address).await;
    let client = connect(address).await;
    client.declare(Queue::durable(QUEUE)).await.unwrap();
    let publisher = client.publisher("").open().await.unwrap();
    for number in 0..100 {
        publisher.publish(QUEUE, number.to_string()).await.unwrap();
    }
    let mut consumers = Vec::new();
    for _ in 0..10 {
        let client = connect(address).await;
        let mut consumer = client.consumer(QUEUE).prefetch_max(20).open().await.unwrap();
        if consumers.len() < 5 {
            let held = consumer.next().await.unwrap().unwrap();
            consumers.push((client, consumer, Some(held)));
        } else {
            consumers.push((client, consumer, None));
        }
    }
    let ended = server.terminate().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    drop(consumers);
    let server = Server::start(data_dir.path(), address).await;
    let client = connect(address).await;
    for number in 0..100 {
        let delivery = client.get(QUEUE).await.unwrap().unwrap();
        assert_eq!(delivery.body(), number.to_string().as_bytes());
        assert!(delivery.failures() <= 1, "one stop made {} failures", delivery.failures());
        delivery.ack();
    }
    client.close().await.unwrap();
    server.terminate().await;
}

#[tokio::test]
async fn a_broker_that_never_lives_long_still_gives_its_journal_back() {
    let data_dir = tempfile::tempdir().unwrap();
    let journal = data_dir.path().join("journal");
    // And not the spare files, of which there are as many as may be needed at once.
    let is_segment = |entry: &std::fs::DirEntry| entry.path().extension().is_some_and(|end| end == "segment");
    let segments = || std::fs::read_dir(&journal).unwrap().flatten().filter(is_segment).count();
    let address = free_address();
    let server = Server::start(data_dir.path(), address).await;
    let client = connect(address).await;
    client.declare(Queue::durable(QUEUE)).await.unwrap();
    let publisher = client.publisher("").open().await.unwrap();
    for _ in 0..80 {
        publisher.publish(QUEUE, vec![0; 200 * 1024]).await.unwrap();
        client.get(QUEUE).await.unwrap().unwrap().ack_durably().await.unwrap();
    }
    server.kill().await;
    let mut left = Vec::new();
    for _ in 0..20 {
        let server = Server::start(data_dir.path(), address).await;
        let looks = async {
            while segments() > 5 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let given_back = timeout(Duration::from_millis(300), looks).await.is_ok();
        server.kill().await;
        if given_back {
            return;
        }
        left.push(segments());
    }
    panic!("nothing waits in any queue, and the lives left this many segments: {left:?}");
}

#[tokio::test]
async fn a_second_broker_on_a_data_directory_is_refused_and_the_first_goes_on() {
    let data_dir = tempfile::tempdir().unwrap();
    let address = free_address();
    let server = Server::start(data_dir.path(), address).await;
    let client = connect(address).await;
    client.declare(Queue::durable(QUEUE)).await.unwrap();
    let publisher = client.publisher("").open().await.unwrap();
    publisher.publish(QUEUE, "1").await.unwrap();
    let Ended { code, log } = Server::spawn(data_dir.path(), free_address()).ended().await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("is open elsewhere: only one may have it"), "it does not say why:\n{log}");
    publisher.publish(QUEUE, "2").await.unwrap();
    server.kill().await;
    let server = Server::start(data_dir.path(), address).await;
    let taken: Vec<u64> = take_all(address).await.into_iter().map(|(number, _)| number).collect();
    assert_eq!(taken, [1, 2]);
    server.terminate().await;
}

#[tokio::test]
async fn a_disk_that_fails_ends_the_broker_and_nothing_is_confirmed_that_is_not_there() {
    if std::process::Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        println!("SKIPPED: there is no strace on this machine, so no disk can be made to fail");
        return;
    }
    for nth in [3, 4, 5, 9, 20] {
        let data_dir = tempfile::tempdir().unwrap();
        let stored = fail_sync(data_dir.path(), nth).await;
        println!("EIO at fdatasync {nth}: {stored}");
    }
}

/// Lets a broker publish until the `nth` sync of its data fails; says what was there afterwards.
async fn fail_sync(data_dir: &Path, nth: u32) -> String {
    let address = free_address();
    // The queue is there before, so that all that fails is messages.
    let server = Server::start(data_dir, address).await;
    let setup = connect(address).await;
    setup.declare(Queue::durable(QUEUE)).await.unwrap();
    setup.close().await.unwrap();
    server.terminate().await;
    // Once only: a broker that tried again would succeed, and confirm what the disk has dropped.
    let inject = format!("inject=fdatasync:error=EIO:when={nth}");
    let trace = data_dir.join("strace");
    let strace = ["strace", "-f", "-qq", "-e", "trace=fdatasync", "-e", &inject, "-o"].map(OsStr::new);
    let runner: Vec<&OsStr> = strace.into_iter().chain([trace.as_os_str()]).collect();
    let mut server = Server::spawn_under(&runner, data_dir, address);
    server.ready().await;
    let publishing = publish_until_lost(connect(address).await, 10);
    let (confirmed, lost) = timeout(PATIENCE, publishing).await.unwrap();
    let ended = server.ended().await;
    assert_eq!(ended.code, Some(1), "{}", ended.log);
    let says_why = ended.log.contains("leveret stops") && ended.log.contains("os error 5");
    assert!(says_why, "it does not say why:\n{}", ended.log);
    let server = Server::start(data_dir, address).await;
    let taken: Vec<u64> = take_all(address).await.into_iter().map(|(number, _)| number).collect();
    server.terminate().await;
    assert!(taken.is_sorted());
    let missing: Vec<_> = confirmed.iter().filter(|number| taken.binary_search(number).is_err()).collect();
    assert!(missing.is_empty(), "{missing:?} of {}", confirmed.len());
    format!("{} confirmed, {} stored; the publisher was told: {lost}", confirmed.len(), taken.len())
}
