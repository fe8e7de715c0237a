//! What RabbitMQ has beyond the specification.

use leveret_tests::amqp::{Peer, Post, Properties, Table, Target, Value, close};
use leveret_tests::{amqp_array, amqp_table, fields};

const REPLY_TO: &str = "amq.rabbitmq.reply-to";

fn replying_to(reply_to: &str) -> Properties {
    Properties { reply_to: Some(reply_to.to_owned()), ..Properties::default() }
}

async fn queues(target: &Target, peer: &mut Peer, what: &str, count: usize) -> Vec<String> {
    let mut queues = Vec::new();
    for _ in 0..count {
        let queue = target.name(what);
        peer.queue(&queue, amqp_table! {}).await;
        queues.push(queue);
    }
    queues
}

#[tokio::test]
async fn a_reply_goes_straight_to_who_asked() {
    let target = Target::start().await;
    let (mut client, mut server) = (target.peer().await, target.peer().await);
    let queue = target.name("requests");
    server.queue(&queue, amqp_table! {}).await;
    server.consume(&queue, "server").await;
    client.consume_with(REPLY_TO, "replies", true, amqp_table! {}).await;
    client.post(&Post { key: &queue, properties: replying_to(REPLY_TO), body: "?", ..Post::default() }).await;
    let request = server.delivery().await;
    let reply_to = request.properties.reply_to.unwrap();
    assert!(reply_to.starts_with("amq.rabbitmq.reply-to.") && reply_to.len() > 30, "{reply_to}");
    assert_eq!(server.counts(&reply_to).await, (0, 1), "whoever replies can ask whether anybody waits");
    server.confirm().await;
    let mandatory =
        target.differs(false, true, "RabbitMQ before 4.2 returns a mandatory reply that it delivers");
    server.post(&Post { key: &reply_to, mandatory, body: "!", ..Post::default() }).await;
    let reply = client.delivery().await;
    assert_eq!((reply.consumer.as_str(), reply.body.as_str(), reply.redelivered), ("replies", "!", false));
    assert_eq!((reply.exchange.as_str(), &reply.key), ("", &reply_to));
    assert_eq!(server.confirmed().await.0, "basic.ack");
}

#[tokio::test]
async fn a_reply_to_somebody_who_has_gone_goes_nowhere() {
    let target = Target::start().await;
    let (mut client, mut server) = (target.peer().await, target.peer().await);
    let queue = target.name("requests");
    server.queue(&queue, amqp_table! {}).await;
    client.consume_with(REPLY_TO, "replies", true, amqp_table! {}).await;
    client.post(&Post { key: &queue, properties: replying_to(REPLY_TO), body: "?", ..Post::default() }).await;
    let reply_to = server.get_soon(&queue).await.properties.reply_to.unwrap();
    client.leave().await;
    server.confirm().await;
    server.post(&Post { key: &reply_to, mandatory: true, body: "!", ..Post::default() }).await;
    let returned = server.message_on(1, "basic.return").await;
    assert_eq!(returned.fields, fields![312, "NO_ROUTE", "", &reply_to]);
    assert_eq!(server.confirmed().await, ("basic.ack", 1));
    let passive = fields![&reply_to, true, false, false, false, false, amqp_table! {}];
    let refused = server.refused("queue.declare", passive).await;
    assert_eq!((refused.code, refused.method.as_str()), (404, "queue.declare"), "{refused:?}");
}

#[tokio::test]
async fn replies_want_a_consumer_without_acknowledgement_on_the_same_channel() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let consume = |no_ack: bool| fields![REPLY_TO, "replies", false, no_ack, false, false, amqp_table! {}];
    let refused = peer.refused("basic.consume", consume(false)).await;
    let text = "PRECONDITION_FAILED - reply consumer cannot acknowledge";
    assert_eq!(refused, close(406, text, "basic.consume"));
    peer.post(&Post { key: "q", properties: replying_to(REPLY_TO), body: "?", ..Post::default() }).await;
    let refused = peer.channel_closed().await;
    let text = "PRECONDITION_FAILED - fast reply consumer does not exist";
    assert_eq!(refused, close(406, text, "basic.publish"));
    peer.open_channel(1).await;
    peer.call("basic.consume", consume(true)).await;
    peer.send("basic.consume", fields![REPLY_TO, "second", false, true, false, false, amqp_table! {}]).await;
    let refused = peer.channel_closed().await;
    assert_eq!(refused, close(406, "PRECONDITION_FAILED - reply consumer already set", "basic.consume"));
    peer.open_channel(1).await;
    peer.call("basic.consume", consume(true)).await;
    assert_eq!(peer.call("basic.cancel", fields!["replies", false]).await, fields!["replies"]);
    peer.call("basic.consume", consume(true)).await;
}

#[tokio::test]
async fn copies_go_to_all_keys_and_blind_ones_are_hidden() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queues = queues(&target, &mut peer, "copies", 4).await;
    let headers = amqp_table! {
        "CC" => amqp_array![&queues[1], &queues[0]], "BCC" => amqp_array![&queues[2], &queues[1]], "mine" => 1
    };
    let properties = Properties { headers: Some(headers), ..Properties::default() };
    peer.confirm().await;
    peer.post(&Post { key: &queues[0], properties: properties.clone(), body: "x", ..Post::default() }).await;
    assert_eq!(peer.confirmed().await, ("basic.ack", 1));
    for queue in &queues[..3] {
        let message = peer.get_soon(queue).await;
        assert_eq!(message.key, queues[0]);
        assert_eq!(
            message.headers(),
            amqp_table! { "CC" => amqp_array![&queues[1], &queues[0]], "mine" => 1 }
        );
        assert_eq!(peer.drain(queue).await, [""; 0], "one copy each");
    }
    let headers = amqp_table! { "CC" => amqp_array!["nowhere"] };
    let properties = Properties { headers: Some(headers), ..Properties::default() };
    peer.post(&Post {
        exchange: "amq.direct",
        key: "nowhere",
        mandatory: true,
        properties,
        ..Post::default()
    })
    .await;
    assert_eq!(peer.message_on(1, "basic.return").await.key, "nowhere");
}

#[tokio::test]
async fn an_alternate_exchange_takes_what_is_not_routed_along_a_chain() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let (first, second, third) = (target.name("chain"), target.name("chain"), target.name("chain"));
    let queue = target.name("chain");
    peer.queue(&queue, amqp_table! {}).await;
    peer.exchange(&third, "fanout", amqp_table! {}).await;
    peer.bind(&queue, &third, "").await;
    peer.exchange(&second, "direct", amqp_table! { "alternate-exchange" => &third }).await;
    peer.exchange(&first, "direct", amqp_table! { "alternate-exchange" => &second }).await;
    peer.confirm().await;
    peer.post(&Post { exchange: &first, key: "key", mandatory: true, body: "x", ..Post::default() }).await;
    assert_eq!(peer.confirmed().await, ("basic.ack", 1), "routed, so not returned");
    let message = peer.get_soon(&queue).await;
    assert_eq!((&message.exchange, message.key.as_str()), (&first, "key"));
}

#[tokio::test]
async fn an_alternate_exchange_works_behind_a_binding_and_in_a_ring() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let (front, inner, spare, ring) =
        (target.name("ae"), target.name("ae"), target.name("ae"), target.name("ae"));
    let queues = queues(&target, &mut peer, "ae", 2).await;
    peer.exchange(&spare, "fanout", amqp_table! {}).await;
    peer.bind(&queues[0], &spare, "").await;
    peer.exchange(&inner, "direct", amqp_table! { "alternate-exchange" => &spare }).await;
    peer.exchange(&front, "fanout", amqp_table! {}).await;
    peer.call("exchange.bind", fields![&inner, &front, "", false, amqp_table! {}]).await;
    peer.bind(&queues[1], &front, "").await;
    peer.publish(&front, "key", "both").await;
    for queue in &queues {
        assert_eq!(peer.get_soon(queue).await.body, "both");
    }
    peer.exchange(&ring, "direct", amqp_table! { "alternate-exchange" => &ring }).await;
    peer.confirm().await;
    peer.post(&Post { exchange: &ring, key: "key", mandatory: true, body: "x", ..Post::default() }).await;
    peer.message_on(1, "basic.return").await;
    assert_eq!(peer.confirmed().await, ("basic.ack", 1));
}

#[tokio::test]
async fn headers_match_as_rabbitmq_matches_them() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let exchange = target.name("headers");
    peer.exchange(&exchange, "headers", amqp_table! {}).await;
    let bindings = [
        ("all", amqp_table! { "x-match" => "all", "a" => 1, "b" => "two" }),
        ("default", amqp_table! { "a" => 1, "b" => "two" }),
        ("any", amqp_table! { "x-match" => "any", "a" => 1, "b" => "two" }),
        ("there", amqp_table! { "a" => Value::Void }),
        ("all but x", amqp_table! { "x-match" => "all", "a" => 1, "x-c" => 3 }),
        ("all with x", amqp_table! { "x-match" => "all-with-x", "a" => 1, "x-c" => 3 }),
        ("any with x", amqp_table! { "x-match" => "any-with-x", "x-c" => 3 }),
        ("empty all", amqp_table! {}),
        ("empty any", amqp_table! { "x-match" => "any" }),
    ];
    let queues = queues(&target, &mut peer, "headers", bindings.len()).await;
    for ((_, arguments), queue) in bindings.iter().zip(&queues) {
        peer.call("queue.bind", fields![queue, &exchange, "", false, arguments]).await;
    }
    let like_an_integer: &[&str] = &["any", "there", "all but x"];
    let float = target.differs(like_an_integer, &["there"], "1.0 is not 1, as with RabbitMQ from 4 on");
    let cases: [(Option<Table>, &[&str]); 7] = [
        (Some(amqp_table! { "a" => 1, "b" => "two" }), &["all", "default", "any", "there", "all but x"]),
        (Some(amqp_table! { "a" => 1_i64 }), &["any", "there", "all but x"]),
        (Some(amqp_table! { "a" => 1.0_f64 }), float),
        (Some(amqp_table! { "a" => "1" }), &["there"]),
        (Some(amqp_table! { "x-c" => 3 }), &["any with x"]),
        (
            Some(amqp_table! { "a" => 1, "x-c" => 3 }),
            &["any", "there", "all but x", "all with x", "any with x"],
        ),
        (None, &[]),
    ];
    for (headers, expected) in cases {
        let properties = Properties { headers: headers.clone(), ..Properties::default() };
        peer.post(&Post { exchange: &exchange, properties, body: "x", ..Post::default() }).await;
        // The empty binding matches everything: it is the barrier.
        peer.get_soon(&queues[7]).await;
        peer.nothing_comes_from(&queues[7]).await;
        let mut matched = Vec::new();
        for ((name, _), queue) in bindings.iter().zip(&queues) {
            matched.extend(peer.drain(queue).await.iter().map(|_| *name));
        }
        assert_eq!(matched, expected, "for {headers:?}");
    }
    let wrong = amqp_table! { "x-match" => "most" };
    let refused = peer.refused("queue.bind", fields![&queues[0], &exchange, "", false, wrong]).await;
    assert_eq!((refused.code, refused.method.as_str()), (406, "queue.bind"), "{refused:?}");
}

#[tokio::test]
async fn the_user_of_the_connection_may_sign_and_nobody_else() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("signed");
    peer.queue(&queue, amqp_table! {}).await;
    let properties = Properties { user_id: Some("guest".to_owned()), ..Properties::default() };
    peer.post(&Post { key: &queue, properties, body: "x", ..Post::default() }).await;
    assert_eq!(peer.get_soon(&queue).await.properties.user_id.as_deref(), Some("guest"));
}

#[tokio::test]
async fn a_history_in_a_publish_is_the_clients_own() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let (queue, letters) = (target.name("forged"), target.name("forged"));
    peer.queue(&letters, amqp_table! {}).await;
    let arguments = amqp_table! { "x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => &letters };
    peer.queue(&queue, arguments).await;
    let forged = amqp_array![amqp_table! { "queue" => &queue, "reason" => "rejected", "count" => 7_i64 }];
    let headers = amqp_table! { "x-death" => forged };
    let properties = Properties { headers: Some(headers), ..Properties::default() };
    peer.post(&Post { key: &queue, properties, body: "x", ..Post::default() }).await;
    peer.until_counts(&queue, (1, 0)).await;
    let held = peer.get(&queue).await.unwrap();
    peer.reject(held.tag, false).await;
    let headers = peer.get_soon(&letters).await.headers();
    let Some(Value::Array(deaths)) = headers.get("x-death") else { panic!("no x-death in {headers:?}") };
    let Some(Value::Table(newest)) = deaths.first() else { panic!("{deaths:?}") };
    let why = "an x-death that a client publishes counts for nothing, as with RabbitMQ from 4.0 on";
    assert_eq!(newest.get("count"), Some(&target.differs(8_i64, 1_i64, why).into()));
}
