//! Messages that are asked for one at a time.

use std::collections::HashMap;
use std::sync::Arc;

use leveret_protocol::{Get, QueueName};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Shared;
use super::channels::CONTROL;
use super::requests::Waiting;
use super::subscription::RawDelivery;
use crate::delivery::{Delivery, Lease};
use crate::error::{Interruption, RequestFailure};

/// How many queues keep their number on the control channel. Beyond it, those go that have no delivery out.
const GET_QUEUES_MAX: usize = 1024;

/// Which consumer number on the control channel the gets from a queue have, on the present connection.
#[derive(Debug, Default)]
pub(crate) struct Gets(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    last_number: u32,
    queues: HashMap<QueueName, Source>,
}

#[derive(Debug, Clone)]
struct Source {
    consumer: u32,
    incarnation: u64,
    /// As many as there are deliveries out, and this one.
    lease: Arc<Lease>,
}

/// What is needed to make a delivery of what a get brings.
#[derive(Debug)]
pub(crate) struct Awaited {
    pub(crate) answer: oneshot::Sender<Result<Option<Delivery>, RequestFailure>>,
    source: Source,
    no_ack: bool,
}

impl Awaited {
    /// Hands the message to the one who asked; if nobody is there any more, its drop gives it back.
    pub(crate) fn deliver(self, mut raw: RawDelivery) {
        raw.incarnation = self.source.incarnation;
        drop(self.answer.send(Ok(Some(Delivery::new(raw, self.source.lease, self.no_ack)))));
    }

    pub(crate) fn consumer(&self) -> u32 {
        self.source.consumer
    }
}

impl Gets {
    pub(crate) fn begin(
        &self,
        shared: &Arc<Shared>,
        queue: QueueName,
        no_ack: bool,
    ) -> oneshot::Receiver<Result<Option<Delivery>, RequestFailure>> {
        let (answer, receiver) = oneshot::channel();
        let source = self.source(shared, &queue);
        let consumer = source.consumer;
        let request = shared.requests.add(Waiting::Get(Awaited { answer, source, no_ack }));
        shared.submit(CONTROL, request, &Get { request, queue, consumer, no_ack }.into());
        receiver
    }

    /// The connection is gone, and its numbers with it.
    pub(crate) fn clear(&self) {
        let queues = std::mem::take(&mut self.0.lock().queues);
        drop(queues);
    }

    fn source(&self, shared: &Arc<Shared>, queue: &QueueName) -> Source {
        let mut table = self.0.lock();
        if let Some(source) = table.queues.get(queue) {
            return source.clone();
        }
        if table.queues.len() >= GET_QUEUES_MAX {
            table.queues.retain(|_, source| {
                let used = Arc::strong_count(&source.lease) > 1;
                if !used {
                    shared.outbox.unsubscribe((CONTROL, source.consumer), &Interruption::Closed);
                }
                used
            });
        }
        table.last_number = table.last_number.wrapping_add(1);
        let source = Source {
            consumer: table.last_number,
            incarnation: shared.next_incarnation(),
            lease: Arc::new(Lease { shared: shared.clone(), channel: CONTROL, closes: false }),
        };
        shared.outbox.subscribe((CONTROL, source.consumer), source.incarnation);
        table.queues.insert(queue.clone(), source.clone());
        source
    }
}
