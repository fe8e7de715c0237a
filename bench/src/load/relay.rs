//! The null broker of the limits, as a protocol: what comes from producer N goes to consumer N.

use std::io::{Read, Write};

use anyhow::ensure;
use bytes::{BufMut, BytesMut};

use super::native::{DELIVERED_BODY_AT, template};
use super::{Confirms, Deliveries, Delivery, Lane, Link, Protocol};
use crate::limits::Role;
use crate::workload::Plan;

/// How to reach it.
#[derive(Debug, Clone)]
pub(crate) struct Relay {
    pub(crate) address: String,
    /// Whether it decodes every frame and encodes it again.
    pub(crate) codec: bool,
}

impl Relay {
    fn open(&self, role: Role, number: usize) -> anyhow::Result<Link> {
        let mut link = Link::connect(&self.address)?;
        link.stream.write_all(&role.opening(number as u16))?;
        let mut answer = [0];
        link.stream.read_exact(&mut answer)?;
        Ok(link)
    }
}

impl Protocol for Relay {
    type Confirms = Counts;
    type Deliveries = Forwarded;

    fn prepare(&self, plan: &Plan) -> anyhow::Result<()> {
        let pairs = (plan.producers.len(), plan.queues.len(), plan.consumers.len());
        ensure!(pairs.0 == pairs.1 && pairs.1 == pairs.2, "the relay has one queue and consumer a producer");
        ensure!(plan.exchange.is_none(), "the relay routes nothing");
        Ok(())
    }

    fn consumer(&self, _: &Plan, consumer: usize) -> anyhow::Result<(Link, Forwarded)> {
        Ok((self.open(Role::Consumer, consumer)?, Forwarded { unsettled: 0 }))
    }

    fn producer(&self, plan: &Plan, producer: usize) -> anyhow::Result<(Link, Counts, Vec<Lane>)> {
        let role = Role::Producer { confirms: plan.workload.window() > 0, codec: self.codec };
        let streams = plan.producers.get(producer).map(Vec::as_slice).unwrap_or_default();
        let template = template(plan, 0);
        let lanes = streams
            .iter()
            .map(|stream| Lane { stream: *stream as u16, template: template.clone() })
            .collect();
        Ok((self.open(role, producer)?, Counts { confirmed: 0 }, lanes))
    }

    fn clean(&self, _: &Plan) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Confirms: eight bytes that say how many more.
#[derive(Debug)]
pub(crate) struct Counts {
    confirmed: u64,
}

impl Confirms for Counts {
    fn read(
        &mut self,
        bytes: &[u8],
        at: &mut usize,
        confirmed: &mut dyn FnMut(u64, u64),
    ) -> anyhow::Result<()> {
        while let Some(count) = bytes.get(*at..).and_then(|rest| rest.first_chunk()) {
            let count = u64::from_le_bytes(*count);
            confirmed(self.confirmed + 1, count);
            self.confirmed += count;
            *at += 8;
        }
        Ok(())
    }
}

/// Deliveries: the publishes as they were. An acknowledgement has the size of a native one.
#[derive(Debug)]
pub(crate) struct Forwarded {
    unsettled: u64,
}

const ACK_BYTES: usize = 28;

impl Deliveries for Forwarded {
    fn next(&mut self, bytes: &[u8], at: &mut usize) -> anyhow::Result<Option<Delivery>> {
        let rest = bytes.get(*at..).unwrap_or_default();
        let Some(length) = rest.first_chunk().map(|length| u32::from_le_bytes(*length) as usize) else {
            return Ok(None);
        };
        let whole = leveret_protocol::HEADER_BYTES + length;
        let Some(frame) = rest.get(..whole) else { return Ok(None) };
        let head = frame.get(DELIVERED_BODY_AT..).and_then(|body| body.first_chunk());
        let Some(head) = head.copied() else { anyhow::bail!("a frame of {length} bytes came") };
        *at += whole;
        self.unsettled += 1;
        Ok(Some(Delivery { queue: 0, redelivered: false, head }))
    }

    fn settle(&mut self, one_by_one: bool, out: &mut BytesMut) {
        let acks = if one_by_one { self.unsettled as usize } else { usize::from(self.unsettled > 0) };
        out.put_bytes(0, acks * ACK_BYTES);
        self.unsettled = 0;
    }
}
