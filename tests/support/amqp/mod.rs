//! A peer that speaks AMQP 0-9-1 frame by frame, and does not use a line of the broker's code to do so.

mod wire;
mod methods;
mod content;
mod peer;
mod handshake;
mod verbs;
mod target;

pub use content::{Message, Post, Properties, header_payload};
pub use handshake::Login;
pub use methods::{Field, method_payload};
pub use peer::{
    BODY, Close, FRAME_END, Frame, HEADER, HEARTBEAT, METHOD, PROTOCOL_HEADER, Peer, close, frame_bytes,
    method_bytes,
};
pub use target::Target;
pub use wire::{Table, Value, put_table};
