//! 4 · Routing: which queues a message goes to. The rules are RabbitMQ's.
//!
//! Everything here is pure: no lock, no clock, no I/O, no task. A [`Router`] holds the exchanges and bindings
//! of one vhost, and its owner guards it. Routing yields queue numbers; what a queue is, is not known here.
//!
//! ```text
//! (exchange, key, headers) -> RouteCache   one a connection; a hit ends here
//!                          -> Router       work list of exchanges, each asked once
//!                               -> direct | fanout | topic | headers -> queues and further exchanges
//!                               -> nothing matched: the alternate exchange
//!                          -> Route        queues, each once
//! ```

mod binding;
mod cache;
mod direct;
mod error;
mod headers;
mod route;
mod router;
mod rules;
mod settings;
mod slab;
mod targets;
mod topic;

#[cfg(test)]
mod tests;

pub use binding::{Binding, Destination};
pub use cache::{RouteCache, same};
pub use error::ExchangeError;
pub use route::{Publisher, Routable, Route};
pub use router::{LOG_EXCHANGE, Removed, Router, is_reserved};
pub use settings::{ExchangeKind, ExchangeSettings};
