//! Load in the native protocol.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use bytes::BytesMut;
use leveret_protocol::{
    Authenticate, Confirm, Control, FRAME_BYTES_DEFAULT, Frame, OPENING_BYTES, Open, OpenChannel,
    PublishParts, Route, SettleParts, Verb, VhostName, kind, opening,
};
use leveret_tests::declare_queue;

use crate::{Acks, Case, PREFETCH, Wire};

const CHANNEL: u16 = 1;
const CONSUMER: u32 = 1;
const READ_BYTES: usize = 64 * 1024;

pub(crate) struct Native {
    socket: TcpStream,
    buffer: BytesMut,
    request: u32,
    out: BytesMut,
    settled: u64,
}

impl Native {
    fn say(&mut self, channel: u16, control: impl Into<Control>) {
        let mut bytes = BytesMut::new();
        control.into().encode(channel, &mut bytes).unwrap();
        self.socket.write_all(&bytes).unwrap();
    }

    fn read(&mut self) {
        let mut bytes = vec![0; READ_BYTES];
        let read = self.socket.read(&mut bytes).unwrap();
        assert!(read > 0, "the broker hung up");
        self.buffer.extend_from_slice(bytes.get(..read).unwrap());
    }

    fn next(&mut self) -> Option<Frame> {
        Frame::decode(&mut self.buffer, FRAME_BYTES_DEFAULT).unwrap()
    }

    /// The next control frame, which must not be a refusal.
    fn heard(&mut self) {
        loop {
            if let Some(frame) = self.next() {
                let control = Control::decode(frame.kind, &frame.payload).unwrap();
                let refused = matches!(control, Control::Failed(_) | Control::Close(_));
                assert!(!refused, "{control:?}");
                return;
            }
            self.read();
        }
    }

    fn ask(&mut self, request: impl FnOnce(u32) -> Control) {
        self.request += 1;
        self.say(CHANNEL, request(self.request));
        self.heard();
    }
}

impl Wire for Native {
    fn connect(address: SocketAddr, confirms: bool) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        let (buffer, out) = (BytesMut::new(), BytesMut::new());
        let mut native = Self { socket, buffer, request: 0, out, settled: 0 };
        native.socket.write_all(&opening()).unwrap();
        native.socket.read_exact(&mut [0; OPENING_BYTES]).unwrap();
        native.heard();
        let initial = b"\0guest\0guest".to_vec();
        native.say(0, Authenticate { mechanism: "PLAIN".to_owned(), initial });
        native.heard();
        let open = Open {
            vhost: VhostName::new("/").unwrap(),
            frame_bytes_max: FRAME_BYTES_DEFAULT as u32,
            channels_max: 16,
            heartbeat_ms: 0,
            client_name: String::new(),
            client_product: String::new(),
        };
        native.say(0, open);
        native.heard();
        native.ask(|request| OpenChannel { request, confirms }.into());
        native
    }

    fn declare(&mut self, queue: &str, durable: bool) {
        self.ask(|request| declare_queue(request, queue, durable, leveret_protocol::Table::new()).into());
    }

    fn consume(&mut self, queue: &str, no_ack: bool) {
        self.ask(|request| {
            let consume = leveret_tests::consume(request, queue, CONSUMER);
            let prefetch = if no_ack { 0 } else { u32::from(PREFETCH) };
            leveret_protocol::Consume { no_ack, prefetch, ..consume }.into()
        });
    }

    fn publish(queue: &str, case: Case) -> Vec<u8> {
        let parts = PublishParts {
            route: Route::Named { exchange: "", routing_key: queue },
            mandatory: false,
            persistent: case.persistent,
            priority: None,
            ttl_ms: None,
            cc: &[],
            bcc: &[],
            properties: &[],
            body: &vec![7; case.body_bytes],
        };
        let mut bytes = BytesMut::new();
        parts.encode(CHANNEL, &mut bytes);
        bytes.to_vec()
    }

    fn read_confirms(&mut self) -> u64 {
        self.read();
        let mut confirmed = 0;
        while let Some(frame) = self.next() {
            if frame.kind == kind::CONFIRM {
                let runs = Confirm::decode(&frame.payload).unwrap();
                confirmed += runs.map(|run| u64::from(run.count)).sum::<u64>();
            }
        }
        confirmed
    }

    fn read_deliveries(&mut self, acks: Acks) -> u64 {
        self.read();
        let mut delivered = 0;
        self.out.clear();
        while let Some(frame) = self.next() {
            if frame.kind == kind::DELIVER {
                delivered += 1;
                if acks == Acks::Each {
                    self.settle(1);
                }
            }
        }
        if acks == Acks::Together && delivered > 0 {
            self.settle(delivered);
        }
        self.socket.write_all(&self.out).unwrap();
        delivered
    }

    fn socket(&self) -> TcpStream {
        self.socket.try_clone().unwrap()
    }
}

impl Native {
    fn settle(&mut self, count: u64) {
        let ranges = [(self.settled + 1, self.settled + count)];
        self.settled += count;
        let settle =
            SettleParts { consumer: CONSUMER, verb: Verb::Ack, confirm: false, note: None, ranges: &ranges };
        settle.encode(kind::SETTLE, CHANNEL, &mut self.out);
    }
}
