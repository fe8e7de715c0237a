//! Who may enter.

use leveret_client::{Client, ConnectError};
use leveret_protocol::sasl::Secret;
use leveret_protocol::{Authenticate, Control, ReplyCode};
use leveret_tests::{Login, Peer, broker, broker_with, config};

#[tokio::test]
async fn scram_lets_in_with_the_right_password_and_refuses_any_other() {
    let broker = broker().await;
    let client = Client::connect(&broker.url()).await.unwrap();
    client.close().await.unwrap();
    for (user, password) in [("guest", "wrong"), ("nobody", "guest")] {
        let builder = Client::builder(&broker.url()).credentials(user, password);
        let Err(ConnectError::Refused(refusal)) = builder.connect().await else {
            panic!("{user} is refused")
        };
        assert_eq!(refusal.code, ReplyCode::AccessRefused);
    }
}

#[tokio::test]
async fn plain_lets_in_with_the_right_password_and_does_not_tell_what_was_wrong() {
    let broker = broker().await;
    assert!(Peer::socket(&broker).await.authenticate("guest", "guest").await.is_ok());
    let mut texts = Vec::new();
    for (user, password) in [("guest", "wrong"), ("guest", ""), ("nobody", "guest")] {
        let mut peer = Peer::socket(&broker).await;
        let close = peer.authenticate(user, password).await.unwrap_err();
        assert_eq!(close.code, ReplyCode::AccessRefused);
        assert_eq!(peer.frame().await, None, "the broker does not wait for Closed");
        texts.push(close.text);
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "{texts:?}");
}

#[tokio::test]
async fn messages_that_are_no_sasl_are_refused() {
    let broker = broker().await;
    let cases: [(&str, &[u8]); 6] = [
        ("PLAIN", b""),
        ("PLAIN", b"guest"),
        ("PLAIN", b"\0guest\0gu\0est"),
        ("SCRAM-SHA-256", b""),
        ("SCRAM-SHA-256", b"n,,n=guest"),
        ("SCRAM-SHA-256", b"\xff\xff"),
    ];
    for (mechanism, initial) in cases {
        let mut peer = Peer::socket(&broker).await;
        peer.greet().await;
        peer.say(0, Authenticate { mechanism: mechanism.to_owned(), initial: initial.to_vec() }).await;
        let Control::Close(close) = peer.control().await else { panic!("{mechanism} {initial:?}") };
        assert_eq!(close.code, ReplyCode::AccessRefused);
    }
}

#[tokio::test]
async fn a_mechanism_that_was_not_offered_is_refused_with_those_that_are() {
    let broker = broker().await;
    for mechanism in ["EXTERNAL", "plain", ""] {
        let mut peer = Peer::socket(&broker).await;
        peer.greet().await;
        peer.say(0, Authenticate { mechanism: mechanism.to_owned(), initial: Vec::new() }).await;
        let Control::Close(close) = peer.control().await else { panic!("{mechanism}") };
        assert_eq!(close.code, ReplyCode::SyntaxError);
        assert!(close.text.contains("SCRAM-SHA-256 or PLAIN"), "{}", close.text);
    }
}

#[tokio::test]
async fn users_of_the_configuration_may_enter_and_guest_can_be_shut_out() {
    let mut config = config();
    let password = leveret_broker::auth::Credential::Password(Secret::from("s3cret".to_owned()));
    config.users.users.push(("shop".to_owned(), password));
    config.users.guest = false;
    let broker = broker_with(config).await;
    let shop = Login { user: "shop", password: "s3cret", ..Login::default() };
    Peer::login(&broker, &shop).await;
    let close = Peer::socket(&broker).await.authenticate("guest", "guest").await.unwrap_err();
    assert_eq!(close.code, ReplyCode::AccessRefused);
}
