//! Leveret's journal.

mod position;

pub use position::Position;
