//! Leveret's native protocol: bytes <-> frames <-> operations.

mod name;
mod value;

pub use name::{ExchangeName, NAME_BYTES_MAX, NameError, QueueName, RoutingKey, VhostName, check_name};
pub use value::{Table, VALUE_DEPTH_MAX, Value};
