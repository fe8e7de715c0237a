//! The peer itself: a socket, frames, and what came but was not asked for yet.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::methods::{method_payload, name_of, read_method};
use super::{Field, Login};
use crate::{fields, within};

/// Kinds of frames.
pub const METHOD: u8 = 1;
/// The second frame of a message.
pub const HEADER: u8 = 2;
/// A part of a message's body.
pub const BODY: u8 = 3;
/// Nothing, but a sign of life.
pub const HEARTBEAT: u8 = 8;
/// The last octet of each frame.
pub const FRAME_END: u8 = 0xce;
/// The first octets of a connection.
pub const PROTOCOL_HEADER: &[u8] = b"AMQP\0\0\x09\x01";
/// What frames cost besides their payloads, in bytes.
const FRAME_EXTRA_BYTES: usize = 8;
/// How much of what went to and fro is shown when a test fails.
const TRANSCRIPT_LINES: usize = 24;

/// A frame as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its kind.
    pub kind: u8,
    /// Its channel.
    pub channel: u16,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// A close of a channel or of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// The reply code.
    pub code: u16,
    /// The reply text.
    pub text: String,
    /// The method that caused it; empty if none did.
    pub method: String,
}

/// A close, to compare one with.
pub fn close(code: u16, text: impl Into<String>, method: &str) -> Close {
    Close { code, text: text.into(), method: method.to_owned() }
}

/// The bytes of a frame.
pub fn frame_bytes(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(channel.to_be_bytes());
    bytes.extend((payload.len() as u32).to_be_bytes());
    bytes.extend(payload);
    bytes.push(FRAME_END);
    bytes
}

/// The bytes of a method's frame.
pub fn method_bytes(channel: u16, name: &str, fields: &[Field]) -> Vec<u8> {
    frame_bytes(METHOD, channel, &method_payload(name, fields))
}

/// A client of AMQP 0-9-1 that does nothing by itself: every byte it sends is one that a test wanted to be sent.
/// Methods that do not name a channel use channel 1.
#[derive(Debug)]
pub struct Peer {
    socket: TcpStream,
    buffer: Vec<u8>,
    /// What came on other channels than on the one that was listened to.
    waiting: VecDeque<Frame>,
    /// The largest frame, as negotiated, in bytes.
    pub(super) frame_max: usize,
    transcript: VecDeque<String>,
}

impl Drop for Peer {
    /// What a failed test needs most is what was said before.
    #[allow(clippy::print_stderr, reason = "the test harness shows it with the failure")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("said by this peer (>) and to it (<) at last:");
            self.transcript.iter().for_each(|line| eprintln!("  {line}"));
        }
    }
}

impl Peer {
    /// Only the socket: not a byte is sent.
    pub async fn socket(address: SocketAddr) -> Self {
        let socket = within("the connection", TcpStream::connect(address)).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let (buffer, waiting, transcript) = (Vec::new(), VecDeque::new(), VecDeque::new());
        Self { socket, buffer, waiting, frame_max: 4096, transcript }
    }

    /// A connection with channel 1 open.
    pub async fn connect(address: SocketAddr, login: &Login) -> Self {
        let mut peer = Self::socket(address).await;
        peer.enter(login).await.unwrap_or_else(|close| panic!("not let in: {close:?}"));
        peer.open_channel(1).await;
        peer
    }

    /// Opens a channel.
    pub async fn open_channel(&mut self, channel: u16) {
        let answer = self.call_on(channel, "channel.open", fields![]).await;
        assert_eq!(answer, fields![""]);
    }

    /// Sends bytes as they are.
    pub async fn write(&mut self, bytes: &[u8]) {
        within("a write", self.socket.write_all(bytes)).await.unwrap();
    }

    /// As [`Peer::write`], to a broker that may have hung up because of what came before.
    pub async fn try_write(&mut self, bytes: &[u8]) {
        let _ = within("a write", self.socket.write_all(bytes)).await;
    }

    /// Sends a frame on channel 1.
    pub async fn write_frame(&mut self, kind: u8, payload: &[u8]) {
        self.write(&frame_bytes(kind, 1, payload)).await;
    }

    /// Sends a method on channel 1.
    pub async fn send(&mut self, name: &str, fields: Vec<Field>) {
        self.send_on(1, name, fields).await;
    }

    /// Sends a method.
    pub async fn send_on(&mut self, channel: u16, name: &str, fields: Vec<Field>) {
        self.note(&format!("> {channel} {name} {fields:?}"));
        self.write(&method_bytes(channel, name, &fields)).await;
    }

    /// Sends a method on channel 1 and waits for its answer.
    pub async fn call(&mut self, name: &str, fields: Vec<Field>) -> Vec<Field> {
        self.call_on(1, name, fields).await
    }

    /// Sends a method and waits for its answer, whose name has `-ok` at its end.
    pub async fn call_on(&mut self, channel: u16, name: &str, fields: Vec<Field>) -> Vec<Field> {
        self.send_on(channel, name, fields).await;
        self.expect_on(channel, &format!("{name}-ok")).await
    }

    /// The next method on channel 1, which must be this one.
    pub async fn expect(&mut self, name: &str) -> Vec<Field> {
        self.expect_on(1, name).await
    }

    /// The next method on a channel, which must be this one.
    pub async fn expect_on(&mut self, channel: u16, name: &str) -> Vec<Field> {
        let (came, fields) = self.method_on(channel).await;
        assert_eq!(came, name, "came on channel {channel}, with {fields:?}");
        fields
    }

    /// The next method on a channel, whatever it is.
    pub async fn method_on(&mut self, channel: u16) -> (&'static str, Vec<Field>) {
        let frame = self.frame_on(channel).await;
        assert_eq!(frame.kind, METHOD, "no method, but {frame:?}");
        read_method(&frame.payload)
    }

    /// Sends a method on channel 1 for which the broker closes the channel; answers, and opens it again.
    pub async fn refused(&mut self, name: &str, fields: Vec<Field>) -> Close {
        self.send(name, fields).await;
        let closed = self.channel_closed().await;
        self.open_channel(1).await;
        closed
    }

    /// The broker closes channel 1; the peer agrees.
    pub async fn channel_closed(&mut self) -> Close {
        let fields = self.expect("channel.close").await;
        self.send("channel.close-ok", fields![]).await;
        close_of(&fields)
    }

    /// Sends a method on channel 1 for which the broker closes the connection.
    pub async fn fatal(&mut self, name: &str, fields: Vec<Field>) -> Close {
        self.send(name, fields).await;
        self.closed().await
    }

    /// The broker closes the connection: it says why, the peer agrees, and the socket ends.
    pub async fn closed(&mut self) -> Close {
        self.end().await.expect("a connection.close before the end")
    }

    /// As [`Peer::closed`]; `None` if the broker hangs up without a word. What comes before on any channel is passed
    /// over.
    pub async fn end(&mut self) -> Option<Close> {
        let mut said = None;
        while let Some(frame) = self.frame().await {
            if frame.channel == 0 && frame.kind == METHOD {
                let (name, fields) = read_method(&frame.payload);
                assert_eq!(name, "connection.close");
                said = Some(close_of(&fields));
                self.try_write(&method_bytes(0, "connection.close-ok", &[])).await;
            }
        }
        said
    }

    /// Closes the connection in good order.
    pub async fn leave(mut self) {
        self.call_on(0, "connection.close", fields![200, "bye", 0, 0]).await;
    }

    /// The next frame of a channel but heartbeats. Those of other channels wait until they are asked for.
    pub async fn frame_on(&mut self, channel: u16) -> Frame {
        if let Some(at) = self.waiting.iter().position(|frame| frame.channel == channel) {
            return self.waiting.remove(at).unwrap();
        }
        loop {
            let Some(frame) = self.frame().await else {
                panic!("hung up while channel {channel} is listened to")
            };
            if frame.channel == channel {
                return frame;
            }
            let ends = frame.channel == 0 && frame.payload.starts_with(&[0, 10, 0, 50]);
            assert!(
                !ends,
                "channel {channel} was listened to: {:?}",
                close_of(&read_method(&frame.payload).1)
            );
            self.waiting.push_back(frame);
        }
    }

    /// The next frame from the socket but heartbeats; `None` at its end.
    pub async fn frame(&mut self) -> Option<Frame> {
        loop {
            let frame = self.any_frame().await?;
            if frame.kind != HEARTBEAT {
                return Some(frame);
            }
            assert_eq!((frame.channel, frame.payload.len()), (0, 0), "a heartbeat");
        }
    }

    /// The next frame from the socket; `None` at its end.
    pub async fn any_frame(&mut self) -> Option<Frame> {
        if !self.has("the head of a frame", 7).await {
            return None;
        }
        let length = u32::from_be_bytes(self.buffer[3..7].try_into().unwrap()) as usize;
        assert!(
            length + FRAME_EXTRA_BYTES <= self.frame_max,
            "a frame of {length} is above {}",
            self.frame_max
        );
        assert!(self.has("the rest of a frame", length + FRAME_EXTRA_BYTES).await, "hung up within a frame");
        let bytes: Vec<u8> = self.buffer.drain(..length + FRAME_EXTRA_BYTES).collect();
        assert_eq!(bytes.last(), Some(&FRAME_END));
        let channel = u16::from_be_bytes([bytes[1], bytes[2]]);
        let frame = Frame { kind: bytes[0], channel, payload: bytes[7..7 + length].to_vec() };
        self.note(&match frame.kind {
            METHOD => format!("< {channel} {:?}", read_method(&frame.payload)),
            kind => format!("< {channel} a frame of kind {kind} with {length} bytes"),
        });
        Some(frame)
    }

    /// Whether the broker has hung up, as far as is known now; what it said before is passed over.
    pub async fn has_hung_up(&mut self) -> bool {
        // A turn for the broker, which may share this thread.
        tokio::task::yield_now().await;
        let mut bytes = [0; 1024];
        match self.socket.try_read(&mut bytes) {
            Ok(count) => count == 0,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }

    /// Reads bytes as they are; fewer at the end of the connection.
    pub async fn read_bytes(&mut self, count: usize) -> Vec<u8> {
        self.has("bytes", count).await;
        let there = self.buffer.len().min(count);
        self.buffer.drain(..there).collect()
    }

    /// Whether so many bytes came before the end of the connection.
    async fn has(&mut self, what: &str, count: usize) -> bool {
        while self.buffer.len() < count {
            let read = within(what, self.socket.read_buf(&mut self.buffer)).await;
            // A reset is the end, too: a broker that hangs up on what it has not read causes one.
            if read.unwrap_or(0) == 0 {
                return false;
            }
        }
        true
    }

    fn note(&mut self, line: &str) {
        if self.transcript.len() == TRANSCRIPT_LINES {
            self.transcript.pop_front();
        }
        self.transcript.push_back(line.chars().take(400).collect());
    }
}

pub(super) fn close_of(fields: &[Field]) -> Close {
    let name = name_of(fields[2].number() as u16, fields[3].number() as u16);
    close(fields[0].number() as u16, fields[1].text(), name)
}
