//! The crate `amqprs`.

mod consuming;
mod dead_letters;
mod events;
mod publishing;
mod restart;
mod routing;

use std::net::SocketAddr;

use amqprs::channel::{
    BasicAckArguments, BasicConsumeArguments, BasicGetArguments, BasicNackArguments, BasicPublishArguments,
    Channel, ConfirmSelectArguments, ConsumerMessage, ExchangeDeclareArguments, GetMessage,
    QueueBindArguments, QueueDeclareArguments,
};
use amqprs::connection::{Connection, OpenConnectionArguments};
use amqprs::{BasicProperties, FieldTable, FieldValue};
use leveret_tests::within;
use tokio::sync::mpsc::{self, Receiver, UnboundedReceiver};

use crate::target::Target;
use events::{Event, Events};

/// More than any test leaves unheard.
const EVENTS_MAX: usize = 1_024;

/// A connection with a channel that confirms.
pub(crate) struct Amqprs {
    pub(crate) channel: Channel,
    pub(crate) connection: Connection,
    /// What the broker said of its own accord.
    events: Receiver<Event>,
    /// How many messages were published.
    published: u64,
    _target: Option<Target>,
}

/// A message that was consumed.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) tag: u64,
    pub(crate) redelivered: bool,
    pub(crate) exchange: String,
    pub(crate) key: String,
    pub(crate) properties: BasicProperties,
    pub(crate) body: String,
}

pub(crate) type Consumer = UnboundedReceiver<ConsumerMessage>;

impl Amqprs {
    /// To a broker of its own.
    pub(crate) async fn start() -> Self {
        let target = Target::start().await;
        let address = target.address;
        Self { _target: Some(target), ..Self::connect(address).await }
    }

    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let (ip, port) = (address.ip().to_string(), address.port());
        let arguments = OpenConnectionArguments::new(&ip, port, "guest", "guest");
        let connection = within("the login", Connection::open(&arguments)).await.unwrap();
        let channel = connection.open_channel(None).await.unwrap();
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        connection.register_callback(Events(sender.clone())).await.unwrap();
        channel.register_callback(Events(sender)).await.unwrap();
        channel.confirm_select(ConfirmSelectArguments::new(false)).await.unwrap();
        Self { channel, connection, events, published: 0, _target: None }
    }

    /// A queue that goes with the connection, by the name that the broker gave it.
    pub(crate) async fn queue(&self, arguments: FieldTable) -> String {
        let declare = QueueDeclareArguments::exclusive_server_named().arguments(arguments).finish();
        self.channel.queue_declare(declare).await.unwrap().unwrap().0
    }

    /// How many messages of a queue wait to be delivered.
    pub(crate) async fn ready(&self, queue: &str) -> u32 {
        let passive = QueueDeclareArguments::new(queue).passive(true).finish();
        self.channel.queue_declare(passive).await.unwrap().unwrap().1
    }

    /// An exchange that goes with its last binding.
    pub(crate) async fn exchange(&self, name: &str, kind: &str) {
        let declare = ExchangeDeclareArguments::new(name, kind).auto_delete(true).finish();
        self.channel.exchange_declare(declare).await.unwrap();
    }

    pub(crate) async fn bind(&self, queue: &str, exchange: &str, key: &str, arguments: FieldTable) {
        let bind = QueueBindArguments::new(queue, exchange, key).arguments(arguments).finish();
        self.channel.queue_bind(bind).await.unwrap();
    }

    /// Publishes, and returns what was heard until it was confirmed: the last event is the confirm.
    pub(crate) async fn publish_with(
        &mut self,
        exchange: &str,
        key: &str,
        body: &str,
        properties: BasicProperties,
    ) -> Vec<Event> {
        let arguments = BasicPublishArguments::new(exchange, key).mandatory(true).finish();
        self.channel.basic_publish(properties, body.as_bytes().to_vec(), arguments).await.unwrap();
        self.published += 1;
        let mut heard = Vec::new();
        loop {
            let event = self.event().await;
            let confirmed = matches!(event, Event::Ack { .. } | Event::Nack { .. });
            heard.push(event);
            if confirmed {
                return heard;
            }
        }
    }

    /// Publishes what must get into a queue.
    pub(crate) async fn publish(&mut self, exchange: &str, key: &str, body: &str) {
        let heard = self.publish_with(exchange, key, body, BasicProperties::default()).await;
        assert_eq!(heard, [Event::Ack { tag: self.published, multiple: false }], "{body}");
    }

    /// What the broker says next of its own accord.
    pub(crate) async fn event(&mut self) -> Event {
        within("the event", self.events.recv()).await.unwrap()
    }

    pub(crate) async fn consume(&self, queue: &str) -> (String, Consumer) {
        self.channel.basic_consume_rx(BasicConsumeArguments::new(queue, "")).await.unwrap()
    }

    pub(crate) async fn ack(&self, tag: u64) {
        self.channel.basic_ack(BasicAckArguments::new(tag, false)).await.unwrap();
    }

    pub(crate) async fn nack(&self, tag: u64, requeue: bool) {
        self.channel.basic_nack(BasicNackArguments::new(tag, false, requeue)).await.unwrap();
    }

    pub(crate) async fn get(&self, queue: &str) -> Option<GetMessage> {
        let get = self.channel.basic_get(BasicGetArguments::new(queue).no_ack(true).finish());
        within("the answer", get).await.unwrap()
    }

    /// The bodies of all messages that wait in a queue, which is empty then.
    pub(crate) async fn drain(&self, queue: &str) -> Vec<String> {
        let mut bodies = Vec::new();
        while let Some((_, _, body)) = self.get(queue).await {
            bodies.push(String::from_utf8(body).unwrap());
        }
        bodies
    }
}

/// The next delivery, which must come.
pub(crate) async fn next(consumer: &mut Consumer) -> Received {
    let message = within("the delivery", consumer.recv()).await.expect("the consumer goes on");
    let deliver = message.deliver.unwrap();
    Received {
        tag: deliver.delivery_tag(),
        redelivered: deliver.redelivered(),
        exchange: deliver.exchange().clone(),
        key: deliver.routing_key().clone(),
        properties: message.basic_properties.unwrap(),
        body: String::from_utf8(message.content.unwrap()).unwrap(),
    }
}

pub(crate) fn table<const N: usize>(entries: [(&str, FieldValue); N]) -> FieldTable {
    let mut table = FieldTable::new();
    for (name, value) in entries {
        table.insert(name.try_into().unwrap(), value);
    }
    table
}

pub(crate) fn text(value: &str) -> FieldValue {
    FieldValue::S(value.try_into().unwrap())
}
