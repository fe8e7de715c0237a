//! 5 · What waits in a queue, and who gets it next.
//!
//! Pure rules: no runtime, no clock, no disk, no lock, no randomness. [`State`] is one queue. It takes an event and
//! the time, changes itself, and writes what has to follow into [`Effects`]; whoever drives it journals these and
//! carries the deliveries to their connections. So the rules can be tested against a model, and replayed.
//!
//! ```text
//!   enqueue ──► ready ──dispatch──► unacked ──settle──► gone | dead | ready again
//!                 │                    │
//!                 └─ expired, over the length limit, purged: gone | dead
//! ```
//!
//! One batch: any number of [`State::enqueue`], [`State::settle`] and so on, then one [`State::dispatch`]. Nothing
//! else hands messages to consumers, save for a message that cannot wait (see [`State::enqueue`]).
//!
//! `settings` is what the declaration asks for; `ready` (in levels) and `unacked` hold the messages, `holders` those
//! whom they are handed to, `turns` whose turn it is; `expiry` and `limits` say when a message has to go.
//!
//! While memory is short a queue keeps of most messages only where they are in the journal. [`State::wanted`] says which
//! of them are to be read, and [`State::load`] brings them; until then their consumers wait.

mod consumers;
mod dispatch;
mod effects;
mod entry;
mod expiry;
mod handle;
mod holders;
mod limits;
mod outlet;
mod ready;
mod settings;
mod state;
mod turns;
mod unacked;

#[cfg(test)]
mod tests;

pub use consumers::{ConsumerSpec, Credit, Share, SharedCredit, SubscribeError};
pub use effects::{Dead, DeleteReason, Delivery, Effects};
pub use handle::{
    Aftermath, ConnectionId, Counts, DeleteError, Locked, MovedOn, Queue, QueueGone, Recipient, Work,
};
pub use holders::HolderId;
pub use limits::Refused;
pub use outlet::{Gate, Outlet};
pub use ready::Wanted;
pub use settings::{
    ArgumentError, DELIVERY_LIMIT_DEFAULT, DeadLetter, Inequivalent, Overflow, QueueType, Settings,
};
pub use state::{Got, State, UnknownTag, Verb};
pub(crate) use unacked::Unacked;
