//! The async client of the Leveret message broker.
//!
//! ```no_run
//! use leveret_client::{Binding, Client, Exchange, Message, Queue};
//!
//! # #[derive(serde::Serialize, serde::Deserialize)] struct Order { id: u64 }
//! # async fn write_invoice(_: &Order) -> Result<(), std::io::Error> { Ok(()) }
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder("leveret://app:secret@localhost/shop").name("invoicing").connect().await?;
//!
//! client.declare(Exchange::topic("orders").durable()).await?;
//! client.declare(Queue::durable("invoices").dead_letter_to("orders.dead").length_max(1_000_000)).await?;
//! client.bind(Binding::queue("invoices").to("orders").key("order.*.paid")).await?;
//!
//! // `Ok` means that the broker has it on disk.
//! let orders = client.publisher("orders").open().await?;
//! orders.publish("order.42.paid", Message::json(&Order { id: 42 })?).await?;
//! // Many at a time: `send` waits only for room, and the receipt tells the rest.
//! let receipt = orders.send("order.43.paid", Message::json(&Order { id: 43 })?).await?;
//! receipt.confirmed().await?;
//!
//! // A stream that survives reconnections.
//! let mut invoices = client.consumer("invoices").prefetch_max(100).open().await?;
//! while let Some(delivery) = invoices.try_next().await? {
//!     match write_invoice(&delivery.json()?).await {
//!         Ok(()) => delivery.ack(),
//!         Err(error) if error.kind() == std::io::ErrorKind::TimedOut => delivery.requeue(),
//!         Err(error) => delivery.reject(error.to_string()), // to `orders.dead`, with the reason
//!     }
//! }
//! client.close().await?;
//! # Ok(()) }
//! ```
//!
//! What to know besides:
//!
//! - One task for each client owns the socket. It never waits for the application: deliveries are bounded by the
//!   prefetch, messages in flight by the publisher's window, and what waits to be written by 4 MiB.
//! - A broker that is short of disk or memory takes no messages until it has room again. Publishers wait meanwhile,
//!   consumers go on, and [`Client::publishing`] tells.
//! - A lost connection is made again, see [`Recovery`]. What was not confirmed comes back as
//!   [`PublishError::OutcomeUnknown`]; it is never sent again silently.
//! - A [`Delivery`] is settled by value. One that is dropped is requeued.
//! - Every error type says with `is_retryable` whether the same call may succeed later.

mod builder;
mod client;
mod connection;
mod consumer;
mod delivery;
mod error;
mod message;
mod publisher;
mod receipt;
mod recovery;
mod request;
mod state;
mod topology;
mod uri;

pub use builder::ClientBuilder;
pub use client::{Client, Declare, DeleteIf};
pub use consumer::{Consumer, ConsumerBuilder, PREFETCH_MAX_DEFAULT};
pub use delivery::Delivery;
pub use error::{
    BodyError, CloseError, ConnectError, ConnectionLost, ConsumeError, DeclareError, Interruption,
    InvalidMessage, OpenError, ProtocolError, PublishError, Refusal, ReplyError, RequestError, SettleError,
};
pub use leveret_protocol::sasl::SaslError;
pub use leveret_protocol::{
    ControlError, DataError, Death, DeathHistory, DeathReason, DeathSummary, FrameTooLarge, NameError,
    OpeningError, Properties, ReplyCode, Table, Value,
};
pub use message::Message;
pub use publisher::{
    IN_FLIGHT_MAX_DEFAULT, Publisher, PublisherBuilder, UnconfirmedPublisher, UnconfirmedPublisherBuilder,
};
pub use receipt::{Confirmed, Receipt};
pub use recovery::Recovery;
pub use state::{ConnectionState, Publishing, PublishingWatch, StateWatch};
pub use topology::{Binding, DeclaredQueue, Exchange, Overflow, Queue};
pub use uri::{PORT_DEFAULT, UriError};
