//! Journals that do not open: what is in them, and how to go on.

mod salvage;
mod survey;

pub use salvage::salvage;
pub use survey::{Lost, SegmentFigures, Survey, survey};
