//! For tests: a disk in memory that fails as real ones do, and a journal that commits when it is told to.

mod disk;
mod file;
mod sink;
mod stepper;

pub use disk::{Call, SimDisk};
pub use file::Loss;
pub use sink::Sink;
pub use stepper::Stepper;
