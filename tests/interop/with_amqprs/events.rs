//! What the broker says of its own accord, which `amqprs` tells through callbacks.

use amqprs::callbacks::{ChannelCallback, ConnectionCallback};
use amqprs::channel::Channel;
use amqprs::connection::Connection;
use amqprs::{Ack, BasicProperties, Cancel, Close, CloseChannel, Nack, Return};
use tokio::sync::mpsc::Sender;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    Ack { tag: u64, multiple: bool },
    Nack { tag: u64 },
    Returned { code: u16, text: String, key: String, body: String },
    Cancelled { consumer: String },
    ChannelClosed { code: u16, text: String },
    ConnectionClosed { code: u16, text: String },
}

/// Hands on what a connection and its channel hear.
pub(crate) struct Events(pub(crate) Sender<Event>);

impl Events {
    async fn tell(&self, event: Event) {
        // A test that is over does not listen any more.
        let _ = self.0.send(event).await;
    }
}

#[async_trait::async_trait]
impl ConnectionCallback for Events {
    async fn close(&mut self, _: &Connection, close: Close) -> Result<(), amqprs::error::Error> {
        self.tell(Event::ConnectionClosed { code: close.reply_code(), text: close.reply_text().clone() })
            .await;
        Ok(())
    }

    async fn blocked(&mut self, _: &Connection, _: String) {}

    async fn unblocked(&mut self, _: &Connection) {}

    async fn secret_updated(&mut self, _: &Connection) {}
}

#[async_trait::async_trait]
impl ChannelCallback for Events {
    async fn close(&mut self, _: &Channel, close: CloseChannel) -> Result<(), amqprs::error::Error> {
        self.tell(Event::ChannelClosed { code: close.reply_code(), text: close.reply_text().clone() }).await;
        Ok(())
    }

    async fn cancel(&mut self, _: &Channel, cancel: Cancel) -> Result<(), amqprs::error::Error> {
        self.tell(Event::Cancelled { consumer: cancel.consumer_tag().clone() }).await;
        Ok(())
    }

    async fn flow(&mut self, _: &Channel, active: bool) -> Result<bool, amqprs::error::Error> {
        Ok(active)
    }

    async fn publish_ack(&mut self, _: &Channel, ack: Ack) {
        self.tell(Event::Ack { tag: ack.delivery_tag(), multiple: ack.mutiple() }).await;
    }

    async fn publish_nack(&mut self, _: &Channel, nack: Nack) {
        self.tell(Event::Nack { tag: nack.delivery_tag() }).await;
    }

    async fn publish_return(&mut self, _: &Channel, returned: Return, _: BasicProperties, body: Vec<u8>) {
        self.tell(Event::Returned {
            code: returned.reply_code(),
            text: returned.reply_text().clone(),
            key: returned.routing_key().clone(),
            body: String::from_utf8(body).unwrap(),
        })
        .await;
    }
}
