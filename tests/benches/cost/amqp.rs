//! Load in AMQP 0-9-1.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use bytes::BytesMut;
use leveret_protocol::amqp::basic::{self, Basic};
use leveret_protocol::amqp::{
    BasicProperties, FieldTable, Frame, FrameKind, Method, PROTOCOL_HEADER, channel, confirm, connection,
    put_body, put_header, put_method, queue,
};

use crate::{Acks, Case, PREFETCH, Wire};

const CHANNEL: u16 = 1;
const FRAME_MAX: u32 = 131_072;
const READ_BYTES: usize = 64 * 1024;
const CONSUMER: &str = "ctag1.0123456789abcdef";
/// The first bytes of a `basic.deliver`.
const DELIVER: [u8; 4] = [0, 60, 0, 60];

pub(crate) struct Amqp {
    socket: TcpStream,
    buffer: BytesMut,
    out: BytesMut,
    delivered: u64,
    confirmed: u64,
}

impl Amqp {
    fn say<'a>(&mut self, channel: u16, method: impl Into<Method<'a>>) {
        let mut bytes = BytesMut::new();
        put_method(&mut bytes, channel, method);
        self.socket.write_all(&bytes).unwrap();
    }

    fn read(&mut self) {
        let mut bytes = vec![0; READ_BYTES];
        let read = self.socket.read(&mut bytes).unwrap();
        assert!(read > 0, "the broker hung up");
        self.buffer.extend_from_slice(bytes.get(..read).unwrap());
    }

    fn next(&mut self) -> Option<Frame> {
        Frame::decode(&mut self.buffer, FRAME_MAX as usize).unwrap()
    }

    /// The next method, which must not be a refusal.
    fn heard(&mut self) {
        loop {
            if let Some(frame) = self.next() {
                let method = Method::decode(&frame.payload).unwrap();
                let refused = matches!(
                    method,
                    Method::Connection(connection::Connection::Close(_))
                        | Method::Channel(channel::Channel::Close(_))
                );
                assert!(!refused, "{method:?}");
                return;
            }
            self.read();
        }
    }

    fn ask<'a>(&mut self, method: impl Into<Method<'a>>) {
        self.say(CHANNEL, method);
        self.heard();
    }

    fn ack(&mut self, delivery_tag: u64, multiple: bool) {
        put_method(&mut self.out, CHANNEL, basic::Ack { delivery_tag, multiple });
    }
}

impl Wire for Amqp {
    fn connect(address: SocketAddr, confirms: bool) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        let (buffer, out) = (BytesMut::new(), BytesMut::new());
        let mut amqp = Self { socket, buffer, out, delivered: 0, confirmed: 0 };
        amqp.socket.write_all(PROTOCOL_HEADER.as_slice()).unwrap();
        amqp.heard();
        let start_ok = connection::StartOk {
            client_properties: FieldTable::default(),
            mechanism: "PLAIN",
            response: b"\0guest\0guest",
            locale: "en_US",
        };
        amqp.say(0, start_ok);
        amqp.heard();
        amqp.say(0, connection::TuneOk { channel_max: 16, frame_max: FRAME_MAX, heartbeat: 0 });
        amqp.say(0, connection::Open { virtual_host: "/" });
        amqp.heard();
        amqp.ask(channel::Open {});
        if confirms {
            amqp.ask(confirm::Select { nowait: false });
        }
        amqp
    }

    fn declare(&mut self, queue: &str, durable: bool) {
        let declare = queue::Declare {
            queue,
            passive: false,
            durable,
            exclusive: false,
            auto_delete: false,
            nowait: false,
            arguments: FieldTable::default(),
        };
        self.ask(declare);
    }

    fn consume(&mut self, queue: &str, no_ack: bool) {
        self.ask(basic::Qos { prefetch_size: 0, prefetch_count: PREFETCH, global: false });
        let consume = basic::Consume {
            queue,
            consumer_tag: CONSUMER,
            no_local: false,
            no_ack,
            exclusive: false,
            nowait: false,
            arguments: FieldTable::default(),
        };
        self.ask(consume);
    }

    fn publish(queue: &str, case: Case) -> Vec<u8> {
        let mut bytes = BytesMut::new();
        let publish = basic::Publish { exchange: "", routing_key: queue, mandatory: false, immediate: false };
        let delivery_mode = Some(if case.persistent { 2 } else { 1 });
        let properties = BasicProperties { delivery_mode, ..BasicProperties::default() }.to_bytes();
        put_method(&mut bytes, CHANNEL, publish);
        put_header(&mut bytes, CHANNEL, case.body_bytes as u64, &properties);
        put_body(&mut bytes, CHANNEL, FRAME_MAX as usize, &vec![7; case.body_bytes]);
        bytes.to_vec()
    }

    fn read_confirms(&mut self) -> u64 {
        self.read();
        let before = self.confirmed;
        while let Some(frame) = self.next() {
            if let Method::Basic(Basic::Ack(ack)) = Method::decode(&frame.payload).unwrap() {
                // All before it has been confirmed, too: answers keep their order.
                self.confirmed = ack.delivery_tag;
            }
        }
        self.confirmed - before
    }

    fn read_deliveries(&mut self, acks: Acks) -> u64 {
        self.read();
        let before = self.delivered;
        self.out.clear();
        while let Some(frame) = self.next() {
            if frame.kind == FrameKind::Method && frame.payload.starts_with(&DELIVER) {
                self.delivered += 1;
                if acks == Acks::Each {
                    self.ack(self.delivered, false);
                }
            }
        }
        if acks == Acks::Together && self.delivered > before {
            self.ack(self.delivered, true);
        }
        self.socket.write_all(&self.out).unwrap();
        self.delivered - before
    }

    fn socket(&self) -> TcpStream {
        self.socket.try_clone().unwrap()
    }
}
