//! What a client puts back after a loss, requests with replies, and definitions.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is all test code")]

mod support;

use std::time::Duration;

use bytes::BytesMut;
use leveret_client::{
    Binding, ConnectionState, DeclareError, DeleteIf, Exchange, Overflow, Queue, Recovery, ReplyCode,
    ReplyError, RequestError, Value,
};
use leveret_protocol::{Close, Control, Destination, Done, Outcome, Properties, QueueName};
use support::{CONTROL, Conversation, FIRST, Peer, delivery, done, in_time};

/// Answers a declaration as a broker that chooses this name.
async fn name_queue(conversation: &mut Conversation, name: &str) -> Control {
    let (request, control) = conversation.request(CONTROL, "DeclareQueue").await;
    let queue = Some(QueueName::new(name).unwrap());
    conversation.send(CONTROL, Done { queue, messages: Some(3), consumers: Some(1), ..done(request) }).await;
    control
}

#[tokio::test]
async fn definitions_say_on_the_wire_what_they_say_in_the_code() {
    let peer = Peer::listen().await;
    let (client, mut conversation) = peer.connected().await;
    let queue = Queue::durable("invoices")
        .dead_letter_to("orders.dead")
        .dead_letter_key("late")
        .length_max(10)
        .bytes_max(1_000)
        .message_ttl(Duration::from_secs(2))
        .expires(Duration::from_secs(60))
        .overflow(Overflow::RejectPublish)
        .priority_max(9)
        .single_active()
        .delivery_limit(5);
    let (declared, control) = tokio::join!(client.declare(queue), name_queue(&mut conversation, "invoices"));
    let declared = declared.unwrap();
    assert_eq!((declared.name().as_str(), declared.messages(), declared.consumers()), ("invoices", 3, 1));
    let Control::DeclareQueue(declare) = control else { unreachable!() };
    assert!(declare.durable && !declare.exclusive && !declare.auto_delete && !declare.passive);
    let text = |text: &str| Value::Text(text.to_owned());
    let expected = [
        ("x-dead-letter-exchange", text("orders.dead")),
        ("x-dead-letter-routing-key", text("late")),
        ("x-delivery-limit", Value::Int(5)),
        ("x-expires", Value::Int(60_000)),
        ("x-max-length", Value::Int(10)),
        ("x-max-length-bytes", Value::Int(1_000)),
        ("x-max-priority", Value::Int(9)),
        ("x-message-ttl", Value::Int(2_000)),
        ("x-overflow", text("reject-publish")),
        ("x-single-active-consumer", Value::Bool(true)),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value));
    assert_eq!(declare.arguments.into_iter().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_refused_definition_says_why_and_a_wrong_name_is_not_sent() {
    let peer = Peer::listen().await;
    let (client, mut conversation) = peer.connected().await;
    let refuse = conversation.refuse(CONTROL, "DeclareExchange", ReplyCode::PreconditionFailed);
    let (declared, ()) = tokio::join!(client.declare(Exchange::topic("orders")), refuse);
    let error = declared.unwrap_err();
    assert!(
        matches!(&error, DeclareError::Refused(refusal) if refusal.code == ReplyCode::PreconditionFailed)
    );
    assert!(!error.is_retryable());
    let error = client.declare(Queue::durable("q".repeat(256))).await.unwrap_err();
    assert!(matches!(error, DeclareError::Name(_)), "{error}");
    // The control channel goes on.
    let (deleted, _) = tokio::join!(
        client.delete_queue("invoices", DeleteIf::Empty),
        conversation.answer(CONTROL, "DeleteQueue")
    );
    assert_eq!(deleted.unwrap(), 0);
}

#[tokio::test]
async fn topology_is_replayed_in_order_and_what_was_deleted_is_not() {
    let peer = Peer::listen().await;
    let (client, mut conversation) = peer.connected().await;
    let define = async {
        client.declare(Exchange::topic("orders").durable()).await.unwrap();
        client.declare(Exchange::fanout("gone")).await.unwrap();
        client.declare(Queue::durable("invoices")).await.unwrap();
        client.bind(Binding::queue("invoices").to("orders").key("order.*")).await.unwrap();
        client.bind(Binding::queue("invoices").to("gone")).await.unwrap();
        client.delete_exchange("gone", DeleteIf::Exists).await.unwrap();
    };
    let serve = async {
        for name in ["DeclareExchange", "DeclareExchange", "DeclareQueue", "Bind", "Bind", "DeleteExchange"] {
            conversation.answer(CONTROL, name).await;
        }
    };
    in_time(async { tokio::join!(define, serve) }).await;
    let mut state = client.state();
    drop(conversation);

    let mut conversation = peer.accept().await;
    let Control::DeclareExchange(exchange) = conversation.answer(CONTROL, "DeclareExchange").await else {
        unreachable!()
    };
    assert_eq!((exchange.exchange.as_str(), exchange.durable), ("orders", true));
    conversation.answer(CONTROL, "DeclareQueue").await;
    let Control::Bind(bind) = conversation.answer(CONTROL, "Bind").await else { unreachable!() };
    assert_eq!((bind.source.as_str(), bind.routing_key.as_str()), ("orders", "order.*"));
    while !matches!(state.current(), ConnectionState::Connected { .. }) {
        in_time(state.changed()).await;
    }
}

#[tokio::test]
async fn a_queue_that_the_broker_names_has_another_name_after_a_loss_and_all_follow() {
    let peer = Peer::listen().await;
    let (client, mut conversation) = peer.connected().await;
    let (queue, control) =
        tokio::join!(client.declare(Queue::exclusive()), name_queue(&mut conversation, "amq.gen-1"));
    assert!(
        matches!(control, Control::DeclareQueue(declare) if declare.queue.is_empty() && declare.exclusive)
    );
    let queue = queue.unwrap();
    let binding = Binding::queue(queue.name()).to("news");
    let (bound, _) = tokio::join!(client.bind(binding), conversation.answer(CONTROL, "Bind"));
    bound.unwrap();
    let open = client.consumer(queue.name()).open();
    let (consumer, ()) = tokio::join!(open, conversation.open_consumer(FIRST, "amq.gen-1"));
    let consumer = consumer.unwrap();
    drop(conversation);

    let mut conversation = peer.accept().await;
    let control = name_queue(&mut conversation, "amq.gen-2").await;
    assert!(matches!(control, Control::DeclareQueue(declare) if declare.queue.is_empty()));
    let Control::Bind(bind) = conversation.answer(CONTROL, "Bind").await else { unreachable!() };
    assert_eq!(bind.destination, Destination::Queue(QueueName::new("amq.gen-2").unwrap()));
    conversation.open_consumer(FIRST, "amq.gen-2").await;
    assert_eq!((queue.name(), consumer.queue()), ("amq.gen-2".to_owned(), "amq.gen-2".to_owned()));
}

#[tokio::test]
async fn what_the_old_connection_still_holds_is_asked_for_again() {
    let peer = Peer::listen().await;
    let (client, mut conversation) = peer.connected().await;
    let open = client.consumer("invoices").exclusive().open();
    let (consumer, ()) = tokio::join!(open, conversation.open_consumer(FIRST, "invoices"));
    let mut consumer = consumer.unwrap();
    drop(conversation);
    let mut conversation = peer.accept().await;
    conversation.answer(FIRST, "OpenChannel").await;
    conversation.refuse(FIRST, "Consume", ReplyCode::ResourceLocked).await;
    conversation.refuse(FIRST, "Consume", ReplyCode::NotAllowed).await;
    conversation.answer(FIRST, "Consume").await;
    conversation.deliver(FIRST, 1, 1..=1).await;
    in_time(consumer.try_next()).await.unwrap().unwrap().ack();
}

#[tokio::test]
async fn a_request_at_the_moment_of_a_loss_fails_and_a_later_one_waits_for_the_recovery() {
    let peer = Peer::listen().await;
    let (client, mut conversation) = peer.connected().await;
    let cut_off = async {
        conversation.request(CONTROL, "PurgeQueue").await;
        drop(conversation);
    };
    let (purged, ()) = in_time(async { tokio::join!(client.purge("invoices"), cut_off) }).await;
    let error = purged.unwrap_err();
    assert!(matches!(&error, DeclareError::ConnectionLost(_)) && error.is_retryable(), "{error}");
    let serve = async {
        let mut conversation = peer.accept().await;
        conversation.answer(CONTROL, "PurgeQueue").await;
        conversation
    };
    let (purged, _conversation) = in_time(async { tokio::join!(client.purge("invoices"), serve) }).await;
    assert_eq!(purged.unwrap(), 0);
}

#[tokio::test]
async fn recovery_gives_up_where_it_is_told_to() {
    let peer = Peer::listen().await;
    let recovery = Recovery::default().delay_min(Duration::from_millis(1)).attempts_max(2);
    let (client, mut conversation) = peer.connected_as(peer.builder().recovery(recovery)).await;
    let mut state = client.state();
    drop(peer);
    let text = "maintenance".to_owned();
    conversation.send(0, Close { code: ReplyCode::ConnectionForced, text }).await;
    assert!(matches!(conversation.control().await, (0, Control::Closed(_))), "a goodbye is answered");
    let cause = loop {
        match state.current() {
            ConnectionState::Closed { cause } => break cause,
            _ => in_time(state.changed()).await,
        };
    };
    assert!(cause.unwrap().to_string().contains("maintenance"));
    let error = client.purge("invoices").await.unwrap_err();
    assert!(matches!(error, DeclareError::Closed | DeclareError::ConnectionLost(_)), "{error}");
}

#[tokio::test]
async fn a_wrong_password_after_a_loss_is_not_tried_for_ever() {
    let peer = Peer::listen().await;
    let (client, conversation) = peer.connected().await;
    let mut state = client.state();
    drop(conversation);
    let mut conversation = peer.accept_opening().await;
    conversation.hello(&["PLAIN"]).await;
    conversation.control().await;
    let text = "wrong user or password".to_owned();
    conversation.send(0, Close { code: ReplyCode::AccessRefused, text }).await;
    while !matches!(state.current(), ConnectionState::Closed { .. }) {
        in_time(state.changed()).await;
    }
}

/// Takes what the first request of a client makes: a queue, its consumer and a publisher.
async fn serve_first_request(conversation: &mut Conversation, queue: &str) {
    name_queue(conversation, queue).await;
    conversation.open_consumer(FIRST, queue).await;
    conversation.open_publisher(FIRST + 1).await;
}

/// Takes a request, confirms it, and gives its properties.
async fn requested(conversation: &mut Conversation, number: u64) -> Properties {
    let frame = conversation.frame().await.unwrap();
    let publish = leveret_protocol::Publish::decode(frame.flags, &frame.payload).unwrap();
    conversation.confirm(FIRST + 1, &[(number, 1, Outcome::Routed(1))]).await;
    Properties::decode(publish.properties()).unwrap()
}

/// Delivers replies with these properties in one write.
async fn replied(conversation: &mut Conversation, first_tag: u64, replies: &[(&Properties, &str)]) {
    let mut out = BytesMut::new();
    for (tag, (properties, body)) in (first_tag..).zip(replies) {
        delivery(FIRST, 1, tag, &properties.encode().unwrap(), body.as_bytes(), &mut out);
    }
    conversation.write(&out).await;
}

#[tokio::test]
async fn replies_find_their_requests_in_any_order() {
    let peer = Peer::listen().await;
    let (client, mut conversation) = peer.connected().await;
    let long = Duration::from_secs(10);
    let serve = async {
        serve_first_request(&mut conversation, "amq.gen-1").await;
        let zero = requested(&mut conversation, 1).await;
        assert_eq!(zero.reply_to.as_deref(), Some("amq.gen-1"));
        replied(&mut conversation, 1, &[(&zero, "zero")]).await;
        let one = requested(&mut conversation, 2).await;
        let two = requested(&mut conversation, 3).await;
        assert_ne!(one.correlation_id, two.correlation_id);
        let stray = Properties { correlation_id: Some("stray".to_owned()), ..Properties::default() };
        replied(&mut conversation, 2, &[(&stray, "stray"), (&two, "two"), (&one, "one")]).await;
    };
    let ask = async {
        assert_eq!(client.request("", "prices", "?", long).await.unwrap().body(), b"zero");
        let (one, two) =
            tokio::join!(client.request("", "prices", "?", long), client.request("", "prices", "?", long));
        assert_eq!((one.unwrap().body(), two.unwrap().body()), (&b"one"[..], &b"two"[..]));
    };
    in_time(async { tokio::join!(serve, ask) }).await;
}

#[tokio::test]
async fn a_request_without_a_reply_times_out_and_one_that_a_loss_cuts_off_says_so() {
    let peer = Peer::listen().await;
    let (client, mut conversation) = peer.connected().await;
    let serve = async {
        serve_first_request(&mut conversation, "amq.gen-1").await;
        requested(&mut conversation, 1).await;
        requested(&mut conversation, 2).await;
        drop(conversation);
    };
    let ask = async {
        let timeout = Duration::from_millis(100);
        let error = client.request("", "prices", "?", timeout).await.unwrap_err();
        assert!(matches!(error, RequestError::TimedOut(after) if after == timeout), "{error}");
        let error = client.request("", "prices", "?", Duration::from_secs(10)).await.unwrap_err();
        assert!(matches!(error, RequestError::ConnectionLost | RequestError::Publish(_)), "{error}");
        assert!(error.is_retryable());
    };
    in_time(async { tokio::join!(serve, ask) }).await;
}

#[tokio::test]
async fn a_reply_goes_to_the_queue_that_the_request_names() {
    let peer = Peer::listen().await;
    let (client, mut conversation) = peer.connected().await;
    let open = client.consumer("prices").open();
    let (consumer, ()) = tokio::join!(open, conversation.open_consumer(FIRST, "prices"));
    let mut consumer = consumer.unwrap();
    let properties = Properties {
        reply_to: Some("amq.gen-9".to_owned()),
        correlation_id: Some("c-1".to_owned()),
        ..Properties::default()
    };
    replied(&mut conversation, 1, &[(&properties, "?"), (&Properties::default(), "?")]).await;
    let request = in_time(consumer.try_next()).await.unwrap().unwrap();
    let serve = async {
        conversation.open_publisher(FIRST + 1).await;
        let frame = conversation.frame().await.unwrap();
        let publish = leveret_protocol::Publish::decode(frame.flags, &frame.payload).unwrap();
        let route = leveret_protocol::Route::Named { exchange: "", routing_key: "amq.gen-9" };
        assert_eq!((publish.route, publish.persistent, publish.body()), (route, false, &b"42"[..]));
        let reply = Properties::decode(publish.properties()).unwrap();
        assert_eq!(reply.correlation_id.as_deref(), Some("c-1"));
        conversation.confirm(FIRST + 1, &[(1, 1, Outcome::Routed(1))]).await;
    };
    let (replied, ()) = in_time(async { tokio::join!(request.reply("42"), serve) }).await;
    replied.unwrap();
    request.ack();
    let no_request = in_time(consumer.try_next()).await.unwrap().unwrap();
    assert!(matches!(no_request.reply("42").await, Err(ReplyError::NotARequest)));
}
