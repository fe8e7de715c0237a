//! The crate `lapin`.

mod consuming;
mod dead_letters;
mod publishing;
mod restart;
mod routing;

use std::net::SocketAddr;
use std::pin::Pin;

use futures_core::Stream;
use lapin::message::{BasicGetMessage, Delivery};
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, ErrorKind,
    ExchangeKind,
};
use leveret_tests::within;

use crate::target::Target;

/// A connection with a channel that confirms.
pub(crate) struct Lapin {
    pub(crate) channel: Channel,
    pub(crate) connection: Connection,
    _target: Option<Target>,
}

impl Lapin {
    /// To a broker of its own.
    pub(crate) async fn start() -> Self {
        let target = Target::start().await;
        let address = target.address;
        Self { _target: Some(target), ..Self::connect(address, ConnectionProperties::default()).await }
    }

    pub(crate) async fn connect(address: SocketAddr, properties: ConnectionProperties) -> Self {
        let url = format!("amqp://guest:guest@{address}/%2f");
        let connection = within("the login", Connection::connect(&url, properties)).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        Self { channel, connection, _target: None }
    }

    /// A queue that goes with the connection, by the name that the broker gave it.
    pub(crate) async fn queue(&self, arguments: FieldTable) -> String {
        let declared = self.channel.queue_declare("".into(), QueueDeclareOptions::exclusive(), arguments);
        declared.await.unwrap().name().to_string()
    }

    /// How many messages of a queue wait to be delivered.
    pub(crate) async fn ready(&self, queue: &str) -> u32 {
        let options = QueueDeclareOptions::exclusive().passive();
        let declared = self.channel.queue_declare(queue.into(), options, FieldTable::default());
        declared.await.unwrap().message_count()
    }

    /// An exchange that goes with its last binding.
    pub(crate) async fn exchange(&self, name: &str, kind: ExchangeKind, arguments: FieldTable) {
        let options = ExchangeDeclareOptions { auto_delete: true, ..ExchangeDeclareOptions::default() };
        self.channel.exchange_declare(name.into(), kind, options, arguments).await.unwrap();
    }

    pub(crate) async fn bind(&self, queue: &str, exchange: &str, key: &str, arguments: FieldTable) {
        let options = QueueBindOptions::default();
        self.channel.queue_bind(queue.into(), exchange.into(), key.into(), options, arguments).await.unwrap();
    }

    pub(crate) async fn publish_with(
        &self,
        exchange: &str,
        key: &str,
        body: &str,
        properties: BasicProperties,
    ) -> Confirmation {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let body = body.as_bytes();
        let published = self.channel.basic_publish(exchange.into(), key.into(), options, body, properties);
        within("the confirm", published.await.unwrap()).await.unwrap()
    }

    /// Publishes what must get into a queue.
    pub(crate) async fn publish(&self, exchange: &str, key: &str, body: &str) {
        let confirmation = self.publish_with(exchange, key, body, BasicProperties::default()).await;
        assert_eq!(confirmation, Confirmation::Ack(None), "{body}");
    }

    pub(crate) async fn consume(&self, queue: &str) -> Consumer {
        let options = BasicConsumeOptions::default();
        self.channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await.unwrap()
    }

    pub(crate) async fn get(&self, queue: &str) -> Option<BasicGetMessage> {
        self.channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.unwrap()
    }

    /// The bodies of all messages that wait in a queue, which is empty then.
    pub(crate) async fn drain(&self, queue: &str) -> Vec<String> {
        let mut bodies = Vec::new();
        while let Some(message) = self.get(queue).await {
            bodies.push(body(&message));
        }
        bodies
    }
}

/// The next delivery, which must come.
pub(crate) async fn next(consumer: &mut Consumer) -> Delivery {
    within("the delivery", next_or_end(consumer)).await.expect("the consumer goes on").unwrap()
}

/// The next delivery or error, or that there are no more.
pub(crate) async fn next_or_end(consumer: &mut Consumer) -> Option<lapin::Result<Delivery>> {
    std::future::poll_fn(|context| Pin::new(&mut *consumer).poll_next(context)).await
}

pub(crate) fn body(delivery: &Delivery) -> String {
    String::from_utf8(delivery.data.clone()).unwrap()
}

/// The reply code and text with which the broker closed a channel or a connection.
pub(crate) fn closed(error: &lapin::Error) -> (u16, String) {
    let ErrorKind::ProtocolError(error) = error.kind() else { panic!("{error} is not the broker's") };
    (error.get_id(), error.get_message().to_string())
}

pub(crate) fn table<const N: usize>(entries: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert(name.into(), value);
    }
    table
}

pub(crate) fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}
