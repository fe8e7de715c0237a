//! Clients that do not wait for answers: what Leveret promises beyond RabbitMQ, and so is run against Leveret only.

use leveret_tests::amqp::{Login, Peer, Post, Properties, Table, Target, method_bytes};
use leveret_tests::{amqp_table, config, fields};

fn declare(queue: &str) -> Vec<u8> {
    method_bytes(1, "queue.declare", &fields![queue, false, true, false, false, false, Table::default()])
}

fn consume(queue: &str) -> Vec<u8> {
    method_bytes(1, "basic.consume", &fields![queue, "c", false, false, false, false, Table::default()])
}

fn persistent<'a>(queue: &'a str, body: &'a str) -> Post<'a> {
    let properties = Properties { delivery_mode: Some(2), ..Properties::default() };
    Post { key: queue, properties, body, ..Post::default() }
}

#[tokio::test]
async fn answers_keep_the_order_of_the_requests_whichever_of_them_wait_for_the_disk() {
    let target = Target::ours(config()).await;
    let mut peer = target.peer().await;
    let (queue, new) = (target.name("filled"), target.name("new"));
    peer.queue(&queue, amqp_table! {}).await;
    peer.fill(&queue, &["a", "b"]).await;
    let get = method_bytes(1, "basic.get", &fields![&queue, false]);
    let asked = [declare(&new), get.clone(), declare(&queue), consume(&queue), get];
    peer.write(&asked.concat()).await;
    assert_eq!(peer.expect("queue.declare-ok").await[0].text(), new);
    let got = peer.message_on(1, "basic.get-ok").await;
    assert_eq!((got.body.as_str(), got.tag), ("a", 1));
    assert_eq!(peer.expect("queue.declare-ok").await, fields![&queue, 1, 0]);
    peer.expect("basic.consume-ok").await;
    let delivered = peer.delivery().await;
    assert_eq!((delivered.body.as_str(), delivered.tag), ("b", 2));
    peer.expect("basic.get-empty").await;
}

#[tokio::test]
async fn what_was_published_and_settled_before_a_mistake_counts_and_is_confirmed_before_the_close() {
    let target = Target::ours(config()).await;
    let mut peer = target.peer().await;
    let queue = target.name("mistaken");
    peer.queue(&queue, amqp_table! {}).await;
    peer.fill(&queue, &["a", "b", "c"]).await;
    peer.consume(&queue, "c").await;
    for _ in 0..3 {
        peer.delivery().await;
    }
    peer.confirm().await;
    let ack = |tag: u64| method_bytes(1, "basic.ack", &fields![tag, false]);
    let published = persistent(&queue, "d").encode(1, 4096);
    let asked = [ack(1), published, ack(3), ack(7), ack(2)];
    peer.write(&asked.concat()).await;
    // The consumer may get the new message before it is confirmed.
    let mut confirmed = false;
    let closed = loop {
        match peer.method_on(1).await {
            ("basic.ack", fields) => confirmed = fields[0].number() == 1,
            ("basic.deliver", fields) => drop(peer.content_on(1, "basic.deliver", fields).await),
            (_, fields) => break fields[0].number(),
        }
    };
    assert_eq!((confirmed, closed), (true, 406));
    peer.send("channel.close-ok", fields![]).await;
    peer.open_channel(1).await;
    assert_eq!(peer.drain(&queue).await, ["b", "d"]);
}

#[tokio::test]
async fn a_message_with_more_properties_than_a_client_takes_ends_its_consumer_and_stays() {
    let target = Target::ours(config()).await;
    let mut publisher = target.peer().await;
    let queue = target.name("bulky");
    publisher.queue(&queue, amqp_table! {}).await;
    let headers = Some(amqp_table! { "bulk" => "x".repeat(5000).as_str() });
    let properties = Properties { headers, ..Properties::default() };
    publisher.post(&Post { key: &queue, properties, body: "bulky", ..Post::default() }).await;
    publisher.until_counts(&queue, (1, 0)).await;
    let login = Login { tune: Some((10, 4096, 0)), ..Login::default() };
    let mut small = Peer::connect(target.address, &login).await;
    small.consume(&queue, "c").await;
    assert_eq!(small.expect("basic.cancel").await[0].text(), "c");
    let refused = small.refused("basic.get", fields![&queue, true]).await;
    assert_eq!(refused.code, 311, "{refused:?}");
    assert_eq!(publisher.drain(&queue).await, ["bulky"]);
}

#[tokio::test]
async fn what_is_got_without_acknowledgement_is_gone_at_once_in_a_transaction_too() {
    let target = Target::ours(config()).await;
    let mut peer = target.peer().await;
    let queue = target.name("got");
    peer.queue(&queue, amqp_table! {}).await;
    peer.fill(&queue, &["a", "b"]).await;
    peer.call("tx.select", fields![]).await;
    assert_eq!(peer.get_with(&queue, true).await.unwrap().body, "a");
    peer.call("tx.rollback", fields![]).await;
    peer.call("channel.close", fields![200, "", 0, 0]).await;
    peer.open_channel(1).await;
    assert_eq!(peer.drain(&queue).await, ["b"]);
}

#[tokio::test]
async fn a_channel_gets_from_any_number_of_queues_one_after_the_other() {
    let mut config = config();
    config.limits.consumers_max = 3;
    let target = Target::ours(config).await;
    let mut peer = target.peer().await;
    for number in 0..10 {
        let queue = target.name("one-of-many");
        peer.queue(&queue, amqp_table! {}).await;
        peer.fill(&queue, &["a"]).await;
        let got = peer.get(&queue).await.unwrap();
        assert_eq!(got.tag, number + 1);
        peer.ack(got.tag, false).await;
        assert!(peer.get(&queue).await.is_none());
    }
}
