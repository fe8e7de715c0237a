//! The Leveret broker.

pub mod store;
