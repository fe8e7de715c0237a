//! A disk in memory that loses, tears, fails and lies, for tests.

mod disk;
mod file;

pub use disk::{Call, SimDisk};
pub use file::Loss;
