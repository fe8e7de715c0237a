//! The other side of the probes: what a broker would be that does nothing but length-delimit frames and pass them on, on
//! the same kind of runtime as the broker.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use anyhow::Context;
use bytes::BytesMut;
use leveret_protocol::{FRAME_BYTES_DEFAULT, Frame, HEADER_BYTES};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::{OPENING_BYTES, Role};

/// As much as the broker reads at once.
const READ_BYTES: usize = 128 * 1024;

type Consumers = Arc<Mutex<HashMap<u16, OwnedWriteHalf>>>;

/// Says where it listens, and serves until its standard input ends.
pub(crate) fn serve() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    println!("{}", listener.local_addr()?);
    runtime.spawn(async move {
        let consumers = Consumers::default();
        while let Ok((socket, _)) = listener.accept().await {
            let consumers = Arc::clone(&consumers);
            // How a connection ends is for the other side to judge.
            tokio::spawn(async move { drop(connection(socket, consumers).await) });
        }
    });
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest)?;
    runtime.shutdown_background();
    Ok(())
}

async fn connection(mut socket: TcpStream, consumers: Consumers) -> anyhow::Result<()> {
    socket.set_nodelay(true)?;
    let mut opening = [0; OPENING_BYTES];
    socket.read_exact(&mut opening).await?;
    let (role, number) = Role::read(opening).context("an opening of no role")?;
    if let Role::Producer { confirms, codec } = role {
        let consumer = consumers.lock().remove(&number).context("the consumer comes first")?;
        socket.write_all(b"k").await?;
        let (from, back) = socket.into_split();
        let back = confirms.then_some(back);
        return if codec { recode(from, back, consumer).await } else { relay(from, back, consumer).await };
    }
    if role == Role::Consumer {
        let (from, to) = socket.into_split();
        to.writable().await?;
        {
            // Under the lock, so that the producer, who comes after the answer, finds it.
            let mut consumers = consumers.lock();
            to.try_write(b"k")?;
            consumers.insert(number, to);
        }
        return swallow(from).await.map(drop);
    }
    socket.write_all(b"k").await?;
    let (from, to) = socket.into_split();
    if role == Role::Sink { sink(from, to).await } else { echo(from, to).await }
}

/// Passes frames on, those of one read in one write.
async fn relay(
    mut from: OwnedReadHalf,
    mut back: Option<OwnedWriteHalf>,
    mut to: OwnedWriteHalf,
) -> anyhow::Result<()> {
    let mut buffer = Buffer::new();
    loop {
        buffer.fill(&mut from).await?;
        let (bytes, frames) = whole_frames(buffer.filled());
        to.write_all(buffer.filled().get(..bytes).unwrap_or_default()).await?;
        buffer.consume(bytes);
        if let Some(back) = back.as_mut().filter(|_| frames > 0) {
            back.write_all(&frames.to_le_bytes()).await?;
        }
    }
}

/// The same, but each frame is taken out of what was read, and encoded again.
async fn recode(
    mut from: OwnedReadHalf,
    mut back: Option<OwnedWriteHalf>,
    mut to: OwnedWriteHalf,
) -> anyhow::Result<()> {
    let (mut buffer, mut out) = (BytesMut::new(), BytesMut::new());
    loop {
        buffer.reserve(READ_BYTES);
        anyhow::ensure!(from.read_buf(&mut buffer).await? > 0, "the peer has gone");
        let mut frames = 0_u64;
        while let Some(frame) = Frame::decode(&mut buffer, FRAME_BYTES_DEFAULT)? {
            frame.encode(&mut out);
            frames += 1;
        }
        to.write_all(&out).await?;
        out.clear();
        if let Some(back) = back.as_mut().filter(|_| frames > 0) {
            back.write_all(&frames.to_le_bytes()).await?;
        }
    }
}

/// How long the whole frames at the front are, and how many.
fn whole_frames(bytes: &[u8]) -> (usize, u64) {
    let (mut at, mut frames) = (0, 0);
    while let Some(length) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        let end = at + HEADER_BYTES + u32::from_le_bytes(*length) as usize;
        if end > bytes.len() {
            break;
        }
        (at, frames) = (end, frames + 1);
    }
    (at, frames)
}

async fn swallow(mut from: OwnedReadHalf) -> anyhow::Result<u64> {
    let mut buffer = vec![0; READ_BYTES];
    let mut sum = 0;
    loop {
        match from.read(&mut buffer).await? {
            0 => return Ok(sum),
            read => sum += read as u64,
        }
    }
}

/// Counts bytes until the end, and answers with their number.
async fn sink(from: OwnedReadHalf, mut to: OwnedWriteHalf) -> anyhow::Result<()> {
    let bytes = swallow(from).await?;
    Ok(to.write_all(&bytes.to_le_bytes()).await?)
}

async fn echo(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> anyhow::Result<()> {
    let mut buffer = Buffer::new();
    loop {
        buffer.fill(&mut from).await?;
        let (bytes, _) = whole_frames(buffer.filled());
        to.write_all(buffer.filled().get(..bytes).unwrap_or_default()).await?;
        buffer.consume(bytes);
    }
}

/// What was read and not passed on yet.
struct Buffer {
    bytes: Vec<u8>,
    end: usize,
}

impl Buffer {
    fn new() -> Self {
        Self { bytes: vec![0; READ_BYTES], end: 0 }
    }

    fn filled(&self) -> &[u8] {
        self.bytes.get(..self.end).unwrap_or_default()
    }

    async fn fill(&mut self, from: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<()> {
        if self.end == self.bytes.len() {
            self.bytes.resize(self.end * 2, 0);
        }
        let read = from.read(self.bytes.get_mut(self.end..).unwrap_or_default()).await?;
        anyhow::ensure!(read > 0, "the peer has gone");
        self.end += read;
        Ok(())
    }

    /// Takes so many bytes off the front; what stays is less than a frame.
    fn consume(&mut self, count: usize) {
        self.bytes.copy_within(count..self.end, 0);
        self.end -= count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_frames_are_counted() {
        let mut bytes = Vec::new();
        for length in [3_u32, 0, 5] {
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&[0; 4]);
            bytes.extend(std::iter::repeat_n(9, length as usize));
        }
        assert_eq!(whole_frames(&bytes), (32, 3));
        assert_eq!(whole_frames(&bytes[..31]), (19, 2));
        assert_eq!(whole_frames(&bytes[..10]), (0, 0));
        assert_eq!(whole_frames(&[]), (0, 0));
    }

    #[test]
    fn roles_are_told_apart() {
        for (role, _) in super::super::ROLES {
            assert_eq!(Role::read(role.opening(513)), Some((role, 513)));
        }
        assert_eq!(Role::read(*b"GET"), None);
    }
}
