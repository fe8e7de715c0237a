//! What the disk keeps, and what happens when it does not.

mod durability;
mod formats;
mod full_disk;
mod inspection;
mod pauses;
