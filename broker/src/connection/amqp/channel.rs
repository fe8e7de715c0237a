//! One channel, with what AMQP adds to the core's.

use std::collections::HashMap;
use std::sync::Arc;

use leveret_protocol::amqp::Assembler;
use rustc_hash::FxHashMap;

use super::ledger::{Ledger, Place};
use crate::channel::Channel;
use crate::queue::Work;
use crate::store::QueueId;

/// One channel, with what AMQP adds to the core's.
pub(super) struct OpenChannel {
    pub(super) channel: Channel,
    pub(super) assembler: Assembler,
    /// The payload of the publish whose content is awaited; empty if none is.
    pub(super) publish: Vec<u8>,
    pub(super) ledger: Arc<Ledger>,
    /// What an open transaction has settled: unsettled again if it is rolled back.
    pub(super) set_aside: Vec<(u64, Place)>,
    /// Consumers by their tags. Its keys are the client's, so it hashes with a secret.
    pub(super) consumers: HashMap<Box<str>, u32>,
    /// What stands for a consumer where messages are got: one for each queue.
    pub(super) getters: FxHashMap<QueueId, u32>,
    /// For consumers that come; 0 is no limit.
    pub(super) prefetch: u16,
    /// The queue that was declared last, which an empty name stands for.
    pub(super) last_queue: String,
    /// The queue behind this channel's `amq.rabbitmq.reply-to`, and its consumer's tag.
    pub(super) replies: Option<Replies>,
}

/// Where replies to this channel's requests go.
pub(super) struct Replies {
    pub(super) queue: String,
    pub(super) consumer_tag: Box<str>,
}

impl OpenChannel {
    pub(super) fn new(channel: Channel) -> Self {
        Self {
            channel,
            assembler: Assembler::default(),
            publish: Vec::new(),
            ledger: Arc::new(Ledger::new()),
            set_aside: Vec::new(),
            consumers: HashMap::new(),
            getters: FxHashMap::default(),
            prefetch: 0,
            last_queue: String::new(),
            replies: None,
        }
    }

    /// The consumer of this tag, if its queue still serves it.
    pub(super) fn consumer(&self, tag: &str) -> Option<u32> {
        self.consumers.get(tag).copied().filter(|number| self.channel.is_consuming(*number))
    }

    /// Forgets the tags of consumers whose queues are gone, and of single gets with nothing left to settle.
    pub(super) fn forget_idle(&mut self, work: &mut Work) {
        self.channel.release_idle(work);
        let Self { channel, consumers, getters, .. } = self;
        consumers.retain(|_, number| channel.is_consuming(*number));
        getters.retain(|_, number| channel.holds(*number));
    }
}
