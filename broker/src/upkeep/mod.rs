//! Beside the message: what keeps a data directory small, and what looks after one on which no broker runs.

pub mod inspect;
pub(crate) mod reclaim;
