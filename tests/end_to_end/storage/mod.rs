//! What the disk keeps, and what happens when it does not.

mod durability;
mod formats;
mod inspection;
