//! Leveret broker.
