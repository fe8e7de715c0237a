//! Leveret's native protocol: bytes <-> frames <-> operations. No I/O, no clock, no runtime. Beside it, in [`amqp`],
//! AMQP 0-9-1.
//!
//! `docs/protocol.md` is the normative text, and the golden files in `tests/golden` keep it true. In reading order:
//!
//! - [`opening`] and [`check_opening`]: the first eight bytes;
//! - [`Frame`]: header and payload;
//! - [`Control`]: what is asked and answered, as MessagePack;
//! - [`Publish`], [`Deliver`], [`Settle`], [`Confirm`], [`Return`], [`Credit`]: the hot path, in fixed layouts;
//! - [`Properties`] and [`DeathHistory`]: what travels with a message;
//! - names, values and reply codes.

pub mod amqp;
mod codes;
mod control;
mod data;
mod death;
mod frame;
mod keys;
pub mod kind;
mod layout;
mod name;
mod opening;
mod properties;
pub mod sasl;
mod value;

#[cfg(feature = "codec")]
mod codec;

#[cfg(feature = "codec")]
pub use codec::FrameCodec;
pub use codes::{Closes, ReplyCode};
pub use control::{
    Authenticate, Authenticated, Bind, Cancel, Challenge, ChannelClosed, Close, CloseChannel, Closed,
    Consume, ConsumerCancelled, Control, ControlError, DeclareExchange, DeclareQueue, DeleteExchange,
    DeleteQueue, Destination, Done, Failed, Get, Hello, METADATA_BYTES_MAX, Open, OpenChannel, Opened,
    PublishingPaused, PublishingResumed, PurgeQueue, ROUTE_ALIASES_MAX, RegisterRoute, Response, Unbind,
};
pub use data::{
    Confirm, Credit, DataError, Deliver, DeliverParts, NOTE_BYTES_MAX, Outcome, Publish, PublishParts,
    Ranges, Return, Route, SETTLE_RANGES_MAX, Settle, SettleParts, Verb,
};
pub use death::{DEATHS_MAX, Death, DeathHistory, DeathReason, DeathSummary};
pub use frame::{
    FRAME_BYTES_BEFORE_OPEN, FRAME_BYTES_DEFAULT, FRAME_BYTES_MIN, Frame, FrameRef, FrameTooLarge,
    FrameWriter, HEADER_BYTES,
};
pub use keys::{COPIES_MAX, Keys};
pub use name::{ExchangeName, NAME_BYTES_MAX, NameError, QueueName, RoutingKey, VhostName, check_name};
pub use opening::{OPENING_BYTES, OpeningError, VERSION, check_opening, is_http, opening};
pub use properties::{Properties, PropertiesError, PropertiesFormat};
pub use value::{Table, VALUE_DEPTH_MAX, Value};
