//! `leveret inspect` and `leveret salvage`: what is on disk, what is damaged, and what giving that up costs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use leveret_broker::Broker;
use leveret_broker::inspect::{Command, InspectError, Inspection, inspect, salvage};
use leveret_tests::{Peer, Post, Server, broker_at, config, post, table};

/// A broker with ten messages each in two queues, of which one queue has two less by now.
async fn filled(data: &Path) -> Server {
    let server = Server::start(data);
    let mut peer = Peer::connect(server.broker()).await;
    for queue in ["orders", "mails"] {
        peer.durable_queue(queue, table! {}).await;
        for number in 0..10 {
            let body = format!("{queue} {number}");
            peer.publish(Post { persistent: true, ..post("", queue, &body) }).await;
        }
    }
    for _ in 0..2 {
        peer.pop("mails").await.unwrap();
    }
    peer.vanish();
    server
}

fn first_segment(data: &Path) -> PathBuf {
    data.join("journal/0000000000000001.segment")
}

/// Changes one byte of the only place where `text` is.
fn damage(data: &Path, text: &str) {
    let mut bytes = std::fs::read(first_segment(data)).unwrap();
    let places: Vec<_> =
        bytes.windows(text.len()).enumerate().filter(|(_, part)| *part == text.as_bytes()).collect();
    let [(at, _)] = places[..] else { panic!("{text:?} is there {} times", places.len()) };
    bytes[at] ^= 1;
    std::fs::write(first_segment(data), bytes).unwrap();
}

/// All files, with what is in them.
fn contents(data: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = [data.to_owned(), data.join("journal")].map(|folder| std::fs::read_dir(folder).unwrap());
    let paths = entries.into_iter().flatten().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

fn counts(inspection: &Inspection) -> Vec<(&str, &str, usize)> {
    let queues = inspection.queues.iter();
    queues.map(|queue| (queue.vhost.as_str(), queue.name.as_str(), queue.messages)).collect()
}

#[tokio::test]
async fn an_inspection_says_what_there_is_and_changes_nothing() {
    let data = tempfile::tempdir().unwrap();
    filled(data.path()).await.stop();
    let before = contents(data.path());
    let found = inspect(data.path(), true).unwrap();
    assert!(contents(data.path()) == before);
    assert!(!found.is_damaged() && found.journal.recovery.clean);
    assert_eq!(counts(&found), [("/", "mails", 8), ("/", "orders", 10)]);
    assert_eq!((found.definitions, found.queues[0].bytes >= 8 * 7), (3, true));
    assert!(found.live_bytes[&1] >= 18 * 7 && found.live_bytes[&1] < found.journal.segments[0].bytes);
    let text = found.to_string();
    assert!(text.contains("stopped in good order") && text.contains("no damage"), "{text}");
    assert!(text.contains("\"orders\" in vhost \"/\""), "{text}");
}

#[tokio::test]
async fn what_a_crash_left_is_no_damage() {
    let data = tempfile::tempdir().unwrap();
    filled(data.path()).await.kill();
    let found = inspect(data.path(), true).unwrap();
    assert!(!found.is_damaged() && !found.journal.recovery.clean);
    // The last commit, torn: nothing behind it says that it had been synced.
    damage(data.path(), "mails 9");
    let found = inspect(data.path(), true).unwrap();
    // The settles came later, so that the journal knows of the damage; without them it would be the end.
    assert!(found.is_damaged(), "{found}");
    let end = (found.journal.recovery.end.0 % (4 << 20)) as usize;
    let mut bytes = std::fs::read(first_segment(data.path())).unwrap();
    bytes[end - 8..end].fill(0xff);
    std::fs::write(first_segment(data.path()), bytes).unwrap();
    let torn = inspect(data.path(), true).unwrap();
    assert!(torn.journal.recovery.torn_bytes > 0 && torn.journal.recovery.end < found.journal.recovery.end);
    assert!(torn.to_string().contains("never confirmed"), "{torn}");
}

#[tokio::test]
async fn a_running_broker_is_not_inspected() {
    let data = tempfile::tempdir().unwrap();
    let broker = broker_at(data.path()).await;
    let error = inspect(data.path(), false).unwrap_err();
    assert!(error.to_string().contains("is open elsewhere"), "{error}");
    broker.stop().await.unwrap();
    assert!(matches!(inspect(&data.path().join("elsewhere"), false), Err(InspectError::NoData(_))));
}

#[tokio::test]
async fn damage_is_refused_named_and_given_up_only_when_asked_and_costs_only_what_it_hit() {
    let data = tempfile::tempdir().unwrap();
    filled(data.path()).await.stop();
    damage(data.path(), "orders 3");
    damage(data.path(), "mails 0");
    let before = contents(data.path());

    let builder = Broker::builder().config(config()).data_dir(data.path()).listen([]).listen_amqp([]);
    let refusal = builder.start().await.map(drop).unwrap_err().to_string();
    assert!(refusal.contains("0000000000000001.segment is damaged at byte"), "{refusal}");
    assert!(refusal.contains("leveret inspect") && refusal.contains("leveret salvage"), "{refusal}");
    let inspected = inspect(data.path(), true).unwrap();
    assert!(contents(data.path()) == before, "neither the refusal nor the inspection changed anything");

    let salvaged = salvage(data.path()).unwrap();
    for found in [&inspected, &salvaged] {
        assert_eq!(found.journal.damage.len(), 2);
        assert_eq!(counts(found), [("/", "mails", 8), ("/", "orders", 9)]);
        let lost: Vec<_> = found.queues.iter().map(|queue| queue.lost.len()).collect();
        assert_eq!(lost, [0, 1], "the message of mails had been settled, so nobody misses it");
        assert!(
            found.to_string().contains("lost: 1 messages of \"orders\" in vhost \"/\", at the places 3"),
            "{found}"
        );
    }
    let kept = std::fs::read(first_segment(data.path()).with_extension("segment.damaged")).unwrap();
    assert!(before.iter().any(|(path, bytes)| *path == first_segment(data.path()) && *bytes == kept));
    assert!(!inspect(data.path(), true).unwrap().is_damaged());

    let server = Server::start(data.path());
    let mut peer = Peer::connect(server.broker()).await;
    let expected = |queue: &str, numbers: &[u32]| -> Vec<String> {
        numbers.iter().map(|number| format!("{queue} {number}")).collect()
    };
    assert_eq!(peer.drain("orders").await, expected("orders", &[0, 1, 2, 4, 5, 6, 7, 8, 9]));
    assert_eq!(peer.drain("mails").await, expected("mails", &[2, 3, 4, 5, 6, 7, 8, 9]));
}

#[tokio::test]
async fn the_commands_say_by_their_outcome_whether_a_broker_would_start() {
    let data = tempfile::tempdir().unwrap();
    filled(data.path()).await.stop();
    let run = |words: &[&str]| {
        let path = [data.path().as_os_str().to_owned()];
        let line: Vec<OsString> = words.iter().map(OsString::from).chain(path).collect();
        let command = Command::parse(&line).unwrap().unwrap();
        command.succeeded(&command.run().unwrap())
    };
    assert!(run(&["leveret", "inspect"]) && run(&["leveret", "inspect", "--verify"]));
    damage(data.path(), "orders 3");
    assert!(!run(&["leveret", "inspect"]));
    assert!(run(&["leveret", "salvage"]) && run(&["leveret", "inspect", "--verify"]));

    let definitions = data.path().join("definitions.redb");
    let mut bytes = std::fs::read(&definitions).unwrap();
    let half = bytes.len() / 2;
    bytes[half..].fill(0x55);
    std::fs::write(&definitions, bytes).unwrap();
    assert!(!run(&["leveret", "inspect", "--verify"]) && !run(&["leveret", "salvage"]));
    assert_eq!(Command::parse(&["leveret".into(), "--help".into()]).unwrap(), None);
    assert!(Command::parse(&["leveret".into(), "inspect".into()]).is_err());
}
