//! Data directories of every format that was ever released are served as they are.
//!
//! `tests/golden/v1` is what a broker left that was stopped in good order. Its segments lack the zeros at their ends.

use std::path::{Path, PathBuf};

use leveret_broker::Broker;
use leveret_protocol::{ReplyCode, Verb};
use leveret_tests::{Peer, Post, Server, config, declare_exchange, post, table};

const SEGMENT_BYTES: u64 = 4 << 20;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/v1")
}

/// Makes the directory's contents. Only for a new format: what is kept must never change.
async fn fill(server: &Server) {
    let mut peer = Peer::connect(server.broker()).await;
    let dead = table! { "x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => "dead" };
    peer.durable_queue("orders", dead).await;
    peer.durable_queue("dead", table! {}).await;
    peer.durable_queue("deleted", table! {}).await;
    peer.must(|request| declare_exchange(request, "events", "topic", true, table! {}).into()).await;
    peer.bind("events", "orders", "order.#", table! {}).await;
    for body in ["acked", "rejected", "returned", "waits"] {
        let headers = table! { "h" => 1 };
        peer.publish(Post { persistent: true, headers, cc: &["copy"], ..post("events", "order.new", body) })
            .await;
    }
    for verb in [Verb::Ack, Verb::Reject] {
        let received = peer.get("orders").await.unwrap();
        peer.settle(&received, verb).await;
    }
    let received = peer.get("orders").await.unwrap();
    peer.settle(&received, Verb::Requeue).await;
    peer.delete_queue("deleted").await;
    peer.vanish();
}

/// Copies the files of `from`, without the zeros at their ends, or with those that a segment has.
fn copy(from: &Path, to: &Path, to_keep: bool) {
    std::fs::create_dir_all(to.join("journal")).unwrap();
    for folder in ["", "journal"] {
        for entry in std::fs::read_dir(from.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let extension = path.extension().unwrap_or_default();
            if path.is_dir() || !["segment", "redb"].iter().any(|kept| extension == *kept) {
                continue;
            }
            let mut bytes = std::fs::read(&path).unwrap();
            if extension == "segment" {
                let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                bytes.resize(if to_keep { used } else { SEGMENT_BYTES as usize }, 0);
            }
            std::fs::write(to.join(folder).join(path.file_name().unwrap()), bytes).unwrap();
        }
    }
}

#[tokio::test]
async fn a_data_directory_of_format_1_is_served_with_all_that_is_in_it() {
    if std::env::var_os("LEVERET_WRITE_GOLDEN").is_some() {
        let data = tempfile::tempdir().unwrap();
        let server = Server::start(data.path());
        fill(&server).await;
        server.stop();
        copy(data.path(), &golden(), true);
    }
    let data = tempfile::tempdir().unwrap();
    copy(&golden(), data.path(), false);
    let server = Server::start(data.path());
    let mut peer = Peer::connect(server.broker()).await;
    for (queue, messages) in [("orders", 2), ("dead", 1)] {
        assert_eq!(peer.counts(queue).await.unwrap().0, messages, "{queue}");
    }
    assert_eq!(peer.counts("deleted").await.unwrap_err().code, ReplyCode::NotFound);

    let returned = peer.pop("orders").await.unwrap();
    assert_eq!((returned.body.as_str(), returned.redelivered), ("returned", Some(1)));
    let waits = peer.pop("orders").await.unwrap();
    assert_eq!((waits.body.as_str(), waits.redelivered), ("waits", None));
    assert_eq!(
        (waits.exchange.as_str(), waits.key.as_str(), waits.persistent),
        ("events", "order.new", true)
    );
    assert_eq!((waits.headers, waits.cc), (table! { "h" => 1 }, vec!["copy".to_owned()]));
    let rejected = peer.pop("dead").await.unwrap();
    assert_eq!(rejected.body, "rejected");
    assert_eq!(rejected.death_counts(), [("orders".to_owned(), "rejected", 1)]);
    // The definitions work, and are not only listed.
    peer.publish(Post { persistent: true, ..post("events", "order.paid", "new") }).await;
    assert_eq!(peer.drain("orders").await, ["new"]);
}

#[tokio::test]
async fn a_data_directory_of_an_unknown_format_is_refused_and_left_as_it_is() {
    let data = tempfile::tempdir().unwrap();
    copy(&golden(), data.path(), false);
    let segment = data.path().join("journal/0000000000000002.segment");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[8] = 2;
    std::fs::write(&segment, &bytes).unwrap();
    let files = ["definitions.redb", "journal/0000000000000001.segment", "journal/0000000000000002.segment"];
    let read = || files.map(|file| std::fs::read(data.path().join(file)).unwrap());
    let before = read();

    let Err(error) =
        Broker::builder().config(config()).data_dir(data.path()).listen([]).listen_amqp([]).start().await
    else {
        panic!("it was not refused")
    };
    let text = error.to_string();
    let expected = "has format version 2: this program reads and writes version 1";
    assert!(text.contains("0000000000000002.segment") && text.contains(expected), "{text}");
    assert!(read() == before);
    let in_folder = |folder: &Path| std::fs::read_dir(folder).unwrap().count();
    assert_eq!(in_folder(data.path()), 2, "the folder of the journal, and the definitions");
    assert_eq!(in_folder(&data.path().join("journal")), 3, "the segments, and the lock");
}
