//! AMQP 0-9-1 with RabbitMQ's extensions: bytes <-> frames <-> methods and content. No I/O, no clock, no runtime.
//!
//! In reading order:
//!
//! - [`PROTOCOL_HEADER`] and [`check_protocol_header`]: the first eight bytes;
//! - [`Frame`]: head, payload, end; and the `put_` functions that append frames;
//! - [`Method`]: what is asked and answered, in one module for each class;
//! - [`FieldTable`] and [`EncodedTable`]: arguments and headers, read in place or made here;
//! - [`ContentHeader`] and [`BasicProperties`]: what travels with a message; [`PublishAttributes`], what of it the broker
//!   acts on;
//! - [`Assembler`]: frames of one channel -> methods and whole messages;
//! - [`WholePublish`], [`peek_ack`] and [`put_deliver`]: what most frames are about, in one go;
//! - [`to_amqp`] and [`to_native`]: messages that cross between the protocols; [`HeaderChanges`], what the broker adds;
//! - [`reply_text`]: refusals in RabbitMQ's words.
//!
//! Nothing is trusted and everything is checked once: lengths before they are used, tables down to a depth limit, flags
//! and trailing bytes. What was read borrows from the payload. `docs/decisions/0008-amqp-codec.md` says why it is
//! written here.

mod assembly;
mod content;
mod convert;
mod deaths;
mod frame;
mod headers;
mod methods;
mod opening;
mod publish;
mod reply;
mod table;
mod table_writer;
mod whole;
mod wire;

pub use assembly::{Assembled, Assembler, AssemblyError, Content};
pub use content::{BasicProperties, ContentError, ContentHeader, NO_PROPERTIES};
pub use convert::{Envelope, to_amqp, to_native};
pub use frame::{
    FRAME_END, FRAME_MAX_MIN, FRAME_OVERHEAD_BYTES, Frame, FrameError, FrameKind, body_frames, put_body,
    put_header, put_heartbeat, put_method,
};
pub use headers::HeaderChanges;
pub use methods::{Method, MethodError, basic, channel, confirm, connection, exchange, queue, tx};
pub use opening::{PROTOCOL_HEADER, ProtocolHeaderError, check_protocol_header};
pub use publish::{
    DELIVERY_MODE_PERSISTENT, InvalidMessage, PublishAttributes, parse_expiration, without_bcc,
};
pub use reply::{reply_name, reply_text};
pub use table::{FieldArray, FieldTable, FieldValue, TableError};
pub use table_writer::EncodedTable;
pub use whole::{ACK_FRAME_BYTES, WholePublish, peek_ack, put_deliver};
pub use wire::{FieldError, FieldProblem};
