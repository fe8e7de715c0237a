//! The Leveret broker.

pub mod auth;
pub mod store;
