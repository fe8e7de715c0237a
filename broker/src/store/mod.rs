//! 6 · One queue's messages as journal records.

mod message;

pub use message::Message;

/// A queue's number: never used twice in a data directory, so that an old record cannot name a new queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(pub u64);

/// A message's place in one queue. Rises with every message that the queue takes, also across restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seq(pub u64);
