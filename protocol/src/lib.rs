//! Leveret's native protocol: bytes <-> frames <-> operations.

mod death;
mod name;
mod value;

pub mod sasl;

pub use death::{DEATHS_MAX, Death, DeathHistory, DeathReason, DeathSummary};
pub use name::{ExchangeName, NAME_BYTES_MAX, NameError, QueueName, RoutingKey, VhostName, check_name};
pub use value::{Table, VALUE_DEPTH_MAX, Value};
