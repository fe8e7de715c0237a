//! Sink and echo: what sockets alone can do.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::{ProbeServer, Role};
use crate::load::Link;
use crate::measure::clock::Clock;
use crate::measure::float;
use crate::measure::latency::{Latencies, Percentiles};
use crate::measure::process::Usage;

/// How much is written at once.
const WRITE_BYTES: usize = 128 * 1024;

fn open(server: &ProbeServer, role: Role) -> anyhow::Result<Link> {
    let mut link = Link::connect(&server.address)?;
    link.stream.write_all(&role.opening(0))?;
    link.stream.read_exact(&mut [0])?;
    Ok(link)
}

/// Frames like those of the relay, as many as a write holds, one at least.
fn frames(size: usize, count: usize) -> Vec<u8> {
    let mut frames = Vec::new();
    for _ in 0..count {
        frames.extend_from_slice(&((size + 8) as u32).to_le_bytes());
        frames.extend(std::iter::repeat_n(0, leveret_protocol::HEADER_BYTES - 4 + size + 8));
    }
    frames
}

/// Frames to the server for a while.
pub(super) fn sink(server: &ProbeServer, size: usize, seconds: f64) -> anyhow::Result<String> {
    let mut link = open(server, Role::Sink)?;
    let count = (WRITE_BYTES / (size + 16)).max(1);
    let batch = frames(size, count);
    let before = Usage::of(server.pid()).context("the probe server is gone")?;
    let (clock, until) = (Clock::start(), Duration::from_secs_f64(seconds));
    let mut batches = 0;
    while clock.elapsed() < until {
        link.stream.write_all(&batch)?;
        batches += 1;
    }
    link.stream.shutdown(Shutdown::Write)?;
    let mut sum = [0; 8];
    link.stream.read_exact(&mut sum)?;
    let elapsed = clock.elapsed().as_secs_f64();
    ensure!(u64::from_le_bytes(sum) == batches * batch.len() as u64, "the sink has not got everything");
    let messages = float(batches * count as u64);
    let cost = before.cost_until(Usage::of(server.pid()).context("the probe server is gone")?, messages);
    Ok(format!("{:.0}/s, server {:.2} core-µs a message", messages / elapsed, cost.core_us))
}

/// Frames to the server and back, `window` of them on their way: frames a second, and how long each took.
pub(crate) fn echo(
    server: &ProbeServer,
    size: usize,
    window: usize,
    seconds: f64,
) -> anyhow::Result<(f64, Percentiles)> {
    let mut link = open(server, Role::Echo)?;
    let whole = size + 16;
    let batch_max = (WRITE_BYTES / whole).max(1);
    let batch = frames(size, batch_max.min(window));
    let mut latencies = Latencies::new()?;
    let (clock, until) = (Clock::start(), Duration::from_secs_f64(seconds));
    // (frames, when), for each write that has not come back as a whole.
    let mut sent: VecDeque<(usize, u64)> = VecDeque::new();
    let (mut room, mut frames) = (window, 0_u64);
    while clock.elapsed() < until {
        while room > 0 {
            let count = room.min(batch_max);
            let now = clock.nanos();
            link.stream.write_all(batch.get(..count * whole).unwrap_or(&batch))?;
            sent.push_back((count, now));
            room -= count;
        }
        link.inbound.fill(&mut link.stream)?;
        let now = clock.nanos();
        let mut back = link.inbound.filled().len() / whole;
        link.inbound.consume(back * whole);
        room += back;
        frames += back as u64;
        while let Some((count, when)) = sent.front_mut() {
            let some = back.min(*count);
            latencies.record(now - *when, some as u64);
            (*count, back) = (*count - some, back - some);
            if *count > 0 {
                break;
            }
            sent.pop_front();
        }
    }
    let rate = float(frames) / clock.elapsed().as_secs_f64();
    Ok((rate, latencies.percentiles().context("no frame came back")?))
}
