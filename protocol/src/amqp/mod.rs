//! AMQP 0-9-1 with RabbitMQ's extensions: bytes <-> frames <-> methods and content. No I/O, no clock, no runtime.
//!
//! In reading order:
//!
//! - [`PROTOCOL_HEADER`] and [`check_protocol_header`]: the first eight bytes;
//! - [`Frame`]: head, payload, end; and the `put_` functions that append frames;
//! - [`Method`]: what is asked and answered, in one module for each class;
//! - [`FieldTable`] and [`EncodedTable`]: arguments and headers, read in place or made here;
//! - [`ContentHeader`] and [`BasicProperties`]: what travels with a message.
//!
//! Nothing is trusted and everything is checked once: lengths before they are used, tables down to a depth limit, flags
//! and trailing bytes. What was read borrows from the payload. `docs/decisions/0008-amqp-codec.md` says why it is
//! written here.

mod content;
mod frame;
mod methods;
mod opening;
mod table;
mod table_writer;
mod wire;

pub use content::{BasicProperties, ContentError, ContentHeader, NO_PROPERTIES};
pub use frame::{
    FRAME_MAX_MIN, FRAME_OVERHEAD_BYTES, Frame, FrameError, FrameKind, put_body, put_header, put_heartbeat,
    put_method,
};
pub use methods::{Method, MethodError, basic, channel, confirm, connection, exchange, queue, tx};
pub use opening::{PROTOCOL_HEADER, ProtocolHeaderError, check_protocol_header};
pub use table::{FieldArray, FieldTable, FieldValue, TableError};
pub use table_writer::EncodedTable;
pub use wire::{FieldError, FieldProblem};
