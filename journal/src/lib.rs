//! Leveret journal.
