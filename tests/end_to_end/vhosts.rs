//! Virtual hosts share nothing.

use leveret_protocol::{Outcome, ReplyCode, VhostName};
use leveret_tests::{Login, Peer, broker, broker_with, config, post, table};

#[tokio::test]
async fn vhosts_know_nothing_of_each_other() {
    let mut config = config();
    config.vhosts = ["/", "shop"].map(|name| VhostName::new(name).unwrap()).to_vec();
    let broker = broker_with(config).await;
    let mut root = Peer::connect(&broker).await;
    let mut shop = Peer::login(&broker, &Login { vhost: "shop", ..Login::default() }).await;
    root.queue("q", table! { "x-max-length" => 5 }).await;
    root.exchange("e", "fanout", table! {}).await;
    root.bind("e", "q", "", table! {}).await;
    root.bind("amq.fanout", "q", "", table! {}).await;
    let failed = shop.counts("q").await.unwrap_err();
    assert_eq!((failed.code, failed.text.as_str()), (ReplyCode::NotFound, "no queue 'q' in vhost 'shop'"));
    assert_eq!(shop.publish(post("", "q", "x")).await, Outcome::Unroutable);
    assert_eq!(shop.publish(post("amq.fanout", "", "x")).await, Outcome::Unroutable);
    assert_eq!(shop.publish(post("e", "", "x")).await, Outcome::Refused(ReplyCode::NotFound));
    shop.queue("q", table! {}).await;
    shop.fill("q", &["shop"]).await;
    assert_eq!(root.ready("q").await, 0);
    root.delete_queue("q").await;
    assert_eq!(shop.drain("q").await, ["shop"]);
}

#[tokio::test]
async fn a_vhost_that_does_not_exist_cannot_be_entered() {
    let broker = broker().await;
    let login = Login { vhost: "nowhere", ..Login::default() };
    let close = Peer::socket(&broker).await.enter(&login).await.unwrap_err();
    assert_eq!((close.code, close.text.as_str()), (ReplyCode::InvalidPath, "there is no vhost 'nowhere'"));
}
