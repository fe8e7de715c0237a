//! The frames of the golden files, and how a dump of them is written.

pub(crate) mod control;
pub(crate) mod data;
pub(crate) mod dump;
