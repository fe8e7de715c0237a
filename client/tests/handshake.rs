//! Connecting, and what ends a connection.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is all test code")]

mod support;

use std::time::Duration;

use leveret_client::{Client, ConnectError, ConnectionLost, ConnectionState, Recovery, ReplyCode};
use leveret_protocol::sasl::{Mechanism, SaslError, ScramServer, Secret, Verifier};
use leveret_protocol::{Authenticated, Challenge, Close, Closed, Control};
use support::{CONTROL, Conversation, Limits, Peer, heartbeat, in_time};

#[tokio::test]
async fn a_client_connects_and_closes_in_good_order() {
    let peer = Peer::listen().await;
    let (client, mut conversation) = peer.connected().await;
    assert!(matches!(client.state().current(), ConnectionState::Connected { connection: 7 }));
    let goodbye = async {
        let (_, control) = conversation.control().await;
        assert!(matches!(control, Control::Close(Close { code: ReplyCode::Ok, .. })), "{control:?}");
        conversation.send(0, Closed {}).await;
        assert!(conversation.frame().await.is_none(), "the socket closes");
    };
    let (closed, ()) = in_time(async { tokio::join!(client.close(), goodbye) }).await;
    closed.unwrap();
}

#[tokio::test]
async fn dropping_the_last_handle_says_goodbye() {
    let peer = Peer::listen().await;
    let (client, mut conversation) = peer.connected().await;
    let clone = client.clone();
    drop(client);
    drop(clone);
    let (_, control) = conversation.control().await;
    assert!(matches!(control, Control::Close(_)), "{control:?}");
}

/// The broker's end of SCRAM, for a user with this password; gives the last message that it would send.
async fn serve_scram(conversation: &mut Conversation, password: &str) -> Result<Vec<u8>, SaslError> {
    conversation.hello(&["PLAIN", "SCRAM-SHA-256"]).await;
    let (_, control) = conversation.control().await;
    let Control::Authenticate(authenticate) = control else { panic!("{control:?}") };
    assert_eq!(authenticate.mechanism, Mechanism::ScramSha256.name(), "the better one is chosen");
    let verifier = Verifier::derive(&Secret::from(password), vec![7; 16], 4096).unwrap();
    let server = ScramServer::new("c2VydmVybm9uY2UxMjM0NTY3ODkw", &authenticate.initial).unwrap();
    let (challenged, challenge) = server.challenge(verifier);
    conversation.send(0, Challenge { data: challenge }).await;
    let (_, control) = conversation.control().await;
    let Control::Response(response) = control else { panic!("{control:?}") };
    challenged.finish(&response.data)
}

#[tokio::test]
async fn scram_is_preferred_and_lets_the_right_password_in() {
    let peer = Peer::listen().await;
    let serve = async {
        let mut conversation = peer.accept_opening().await;
        let data = serve_scram(&mut conversation, "secret").await.unwrap();
        conversation.send(0, Authenticated { data }).await;
        conversation.enter(Limits::default()).await;
        conversation.answer(CONTROL, "OpenChannel").await;
        conversation
    };
    let (connected, _open) = in_time(async { tokio::join!(peer.builder().connect(), serve) }).await;
    connected.unwrap();
}

#[tokio::test]
async fn a_broker_that_does_not_know_the_password_is_no_broker() {
    let peer = Peer::listen().await;
    let serve = async {
        let mut conversation = peer.accept_opening().await;
        serve_scram(&mut conversation, "another").await.unwrap_err();
        // It cannot sign, and says that all is well.
        let data = b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_vec();
        conversation.send(0, Authenticated { data }).await;
        conversation
    };
    let (connected, _open) = in_time(async { tokio::join!(peer.builder().connect(), serve) }).await;
    let error = connected.unwrap_err();
    assert!(matches!(error, ConnectError::Authentication(SaslError::WrongServerSignature)), "{error}");
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn a_refusal_comes_with_the_brokers_reason() {
    let peer = Peer::listen().await;
    let serve = async {
        let mut conversation = peer.accept_opening().await;
        conversation.hello(&["PLAIN"]).await;
        conversation.control().await;
        let text = "wrong user or password".to_owned();
        conversation.send(0, Close { code: ReplyCode::AccessRefused, text }).await;
        conversation
    };
    let (connected, _open) = in_time(async { tokio::join!(peer.builder().connect(), serve) }).await;
    let error = connected.unwrap_err();
    assert!(error.to_string().contains("wrong user or password"), "{error}");
    assert!(!error.is_retryable(), "a wrong password stays wrong");
}

#[tokio::test]
async fn a_broker_without_a_mechanism_of_ours_is_refused_by_name() {
    let peer = Peer::listen().await;
    let serve = async {
        let mut conversation = peer.accept_opening().await;
        conversation.hello(&["GSSAPI"]).await;
        conversation
    };
    let (connected, _open) = in_time(async { tokio::join!(peer.builder().connect(), serve) }).await;
    assert!(matches!(connected, Err(ConnectError::NoMechanism { offered }) if offered == ["GSSAPI"]));
}

#[tokio::test]
async fn errors_and_debug_output_never_hold_the_password() {
    let builder = Client::builder("leveret://app:hush-hush@127.0.0.1:1/shop");
    let mut texts = vec![format!("{builder:?}")];
    texts.push(format!("{:?}", builder.connect().await.unwrap_err()));
    texts.push(format!("{:?}", Client::connect("app:hush-hush@host").await.unwrap_err()));
    for text in texts {
        assert!(!text.contains("hush"), "{text}");
    }
}

#[tokio::test]
async fn a_broker_that_says_nothing_is_a_loss() {
    let peer = Peer::listen().await;
    let serve = async {
        let mut conversation = peer.accept_opening().await;
        conversation.shake_hands(Limits { heartbeat_ms: 20, ..Limits::default() }).await;
        conversation.answer(CONTROL, "OpenChannel").await;
        conversation
    };
    let connect = peer.builder().recovery(Recovery::off()).connect();
    let (client, mut silent) = in_time(async { tokio::join!(connect, serve) }).await;
    let client = client.unwrap();
    let mut state = client.state();
    // The client's own heartbeats come all the same, and are passed over; then it hangs up.
    assert!(silent.frame().await.is_none());
    while !matches!(state.current(), ConnectionState::Closed { .. }) {
        in_time(state.changed()).await;
    }
    let ConnectionState::Closed { cause: Some(ConnectionLost::Silent(after)) } = state.current() else {
        panic!("{:?}", state.current())
    };
    assert_eq!(after, Duration::from_millis(40));
}

#[tokio::test]
async fn heartbeats_keep_an_idle_connection() {
    let peer = Peer::listen().await;
    let serve = async {
        let mut conversation = peer.accept_opening().await;
        conversation.shake_hands(Limits { heartbeat_ms: 200, ..Limits::default() }).await;
        conversation.answer(CONTROL, "OpenChannel").await;
        conversation
    };
    let connect = peer.builder().recovery(Recovery::off()).connect();
    let (client, mut conversation) = in_time(async { tokio::join!(connect, serve) }).await;
    let client = client.unwrap();
    let mut beats = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..20 {
        beats.tick().await;
        conversation.write(&heartbeat()).await;
    }
    assert!(
        matches!(client.state().current(), ConnectionState::Connected { .. }),
        "{:?}",
        client.state().current()
    );
}
