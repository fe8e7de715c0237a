//! What is sent, by whom and to where, whatever the protocol.

use std::str::FromStr;

use anyhow::ensure;
use clap::Args;
use serde::{Deserialize, Serialize};

/// A body begins with its stream and number and with the time it was sent.
pub(crate) const HEAD_BYTES: usize = 16;

/// What to send.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub(crate) struct Workload {
    /// How many producers, each on a connection of its own.
    #[arg(long, default_value_t = 1)]
    pub(crate) producers: usize,
    /// How many consumers, each on a connection of its own.
    #[arg(long, default_value_t = 1)]
    pub(crate) consumers: usize,
    /// How many queues. Producers and consumers are spread over them.
    #[arg(long, default_value_t = 1)]
    pub(crate) queues: usize,
    /// How large the bodies are, in bytes; at least 16.
    #[arg(long, default_value_t = 256)]
    pub(crate) size: usize,
    /// Transient messages in transient queues; and without confirms and acknowledgements, unless --window and --ack
    /// say otherwise.
    #[arg(long)]
    pub(crate) transient: bool,
    /// How many publishes of a producer may be unconfirmed; 0 is without confirms. 4096 unless --transient.
    #[arg(long)]
    pub(crate) window: Option<u64>,
    /// How many deliveries of a consumer may be unacknowledged; 0 is no limit. 4096 with acknowledgements.
    #[arg(long)]
    pub(crate) prefetch: Option<u32>,
    /// Acknowledgements: `none`, `each`, `batch` (whatever was read at once), or a number: one for so many.
    /// `batch` unless --transient.
    #[arg(long)]
    pub(crate) ack: Option<Ack>,
    /// A fanout exchange in front of the queues: each gets every message.
    #[arg(long, conflicts_with = "topic")]
    pub(crate) fan_out: bool,
    /// A topic exchange in front of one queue, with so many bindings: `a.b.N`, `*.b.N` and `a.#.N` in turn.
    #[arg(long)]
    pub(crate) topic: Option<usize>,
    /// With --topic: how many routing keys are used in turn. Few of them stay in a broker's cache.
    #[arg(long, default_value_t = 16)]
    pub(crate) keys: usize,
    /// Open loop: so many messages a second of all producers together, whether the broker keeps up or not. Latencies
    /// count from the intended time.
    #[arg(long)]
    pub(crate) rate: Option<u64>,
    /// The last consumer takes only so many messages a second, and need not get all.
    #[arg(long)]
    pub(crate) slow: Option<u64>,
    /// How many messages of all producers together, unless --seconds is given.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) messages: u64,
    /// How long producers send, in seconds, in place of --messages. What is shown is of this time only.
    #[arg(long)]
    pub(crate) seconds: Option<f64>,
    /// With --seconds: how long they send before that.
    #[arg(long, default_value_t = 0.5)]
    pub(crate) warm_up: f64,
}

/// When a consumer acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ack {
    /// Never: the broker takes deliveries as settled when it sends them.
    None,
    /// One acknowledgement for each delivery, those of one read in one write.
    Each,
    /// One for all that one read gave.
    Batch,
    /// One for so many.
    Every(u64),
}

impl FromStr for Ack {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::None),
            "each" => Ok(Self::Each),
            "batch" => Ok(Self::Batch),
            number => match number.parse() {
                Ok(every @ 1..) => Ok(Self::Every(every)),
                _ => Err("none, each, batch or a number from 1"),
            },
        }
    }
}

const WINDOW_DEFAULT: u64 = 4096;
const PREFETCH_DEFAULT: u32 = 4096;
/// As much as AMQP's limit, and as any broker needs.
const PREFETCH_MAX: u32 = 65_535;
/// The stream's number has two bytes in a body's head.
const STREAMS_MAX: usize = 65_535;

impl Default for Workload {
    fn default() -> Self {
        Self {
            producers: 1,
            consumers: 1,
            queues: 1,
            size: 256,
            transient: false,
            window: None,
            prefetch: None,
            ack: None,
            fan_out: false,
            topic: None,
            keys: 16,
            rate: None,
            slow: None,
            messages: 1_000_000,
            seconds: None,
            warm_up: 0.5,
        }
    }
}

impl Workload {
    /// Publishes of a producer that may be unconfirmed; 0 is without confirms.
    pub(crate) fn window(&self) -> u64 {
        self.window.unwrap_or(if self.transient { 0 } else { WINDOW_DEFAULT })
    }

    pub(crate) fn ack(&self) -> Ack {
        self.ack.unwrap_or(if self.transient { Ack::None } else { Ack::Batch })
    }

    /// Deliveries of a consumer that may be unacknowledged; 0 is no limit.
    pub(crate) fn prefetch(&self) -> u32 {
        self.prefetch.unwrap_or(if self.ack() == Ack::None { 0 } else { PREFETCH_DEFAULT })
    }

    /// How many queues get each message.
    pub(crate) fn copies(&self) -> u64 {
        if self.fan_out { self.queues as u64 } else { 1 }
    }

    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let Self { producers, consumers, queues, size, keys, .. } = *self;
        ensure!(
            size >= HEAD_BYTES,
            "--size is at least {HEAD_BYTES}: a body begins with its number and time"
        );
        ensure!(producers > 0 && consumers > 0 && queues > 0 && keys > 0, "none of them may be 0");
        ensure!(
            producers.saturating_mul(queues) < STREAMS_MAX,
            "producers x queues is at most {STREAMS_MAX}"
        );
        ensure!(self.prefetch() <= PREFETCH_MAX, "--prefetch is at most {PREFETCH_MAX}, as in AMQP");
        ensure!(self.rate != Some(0) && self.slow != Some(0), "a rate is at least 1");
        if self.slow.is_some() {
            ensure!(
                self.fan_out && consumers > 1 && queues >= consumers,
                "--slow needs --fan-out and queues for all"
            );
        }
        ensure!(self.topic.is_none() || queues == 1, "--topic is about one queue");
        if let Some(bindings) = self.topic {
            ensure!(keys <= bindings.max(1), "--keys is at most --topic: other keys have no binding");
        }
        if let Ack::Every(every) = self.ack() {
            let prefetch = u64::from(self.prefetch());
            ensure!(prefetch == 0 || every <= prefetch, "with --ack above --prefetch both sides would wait");
        }
        Ok(())
    }
}

impl std::fmt::Display for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.transient { "transient" } else { "persistent" };
        let confirms = match self.window() {
            0 => "unconfirmed".to_owned(),
            window => format!("confirmed (window {window})"),
        };
        let acks = match self.ack() {
            Ack::None => "no acks".to_owned(),
            Ack::Each => format!("acked one by one (prefetch {})", self.prefetch()),
            Ack::Batch => format!("acked (prefetch {})", self.prefetch()),
            Ack::Every(every) => format!("acked every {every} (prefetch {})", self.prefetch()),
        };
        write!(
            f,
            "{} -> {} -> {}, {} B, {kind}, {confirms}, {acks}",
            self.producers, self.queues, self.consumers, self.size
        )?;
        if self.fan_out {
            write!(f, ", fanout")?;
        }
        if let Some(bindings) = self.topic {
            write!(f, ", topic with {bindings} bindings and {} keys", self.keys)?;
        }
        if let Some(rate) = self.rate {
            write!(f, ", {rate}/s open loop")?;
        }
        if let Some(slow) = self.slow {
            write!(f, ", last consumer {slow}/s")?;
        }
        Ok(())
    }
}

/// A workload, worked out: which queues there are, and who has to do with which.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) workload: Workload,
    /// What stands between producers and queues; none is the default exchange.
    pub(crate) exchange: Option<Exchange>,
    pub(crate) queues: Vec<Queue>,
    /// Every sequence of messages that is numbered by itself.
    pub(crate) streams: Vec<Stream>,
    /// The streams of each producer.
    pub(crate) producers: Vec<Vec<usize>>,
    /// The queues of each consumer.
    pub(crate) consumers: Vec<Vec<usize>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Exchange {
    pub(crate) name: String,
    /// `fanout` or `topic`.
    pub(crate) kind: &'static str,
    /// (queue, key).
    pub(crate) bindings: Vec<(usize, String)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Queue {
    pub(crate) name: String,
    /// The streams that it gets.
    pub(crate) streams: Vec<usize>,
}

#[derive(Debug, Clone)]
pub(crate) struct Stream {
    /// The routing keys, used in turn.
    pub(crate) keys: Vec<String>,
}

impl Plan {
    pub(crate) fn new(workload: &Workload) -> anyhow::Result<Self> {
        workload.check()?;
        let names: Vec<String> = (0..workload.queues).map(|queue| format!("leveret-bench-{queue}")).collect();
        let mut plan = Self {
            workload: workload.clone(),
            exchange: exchange(workload),
            queues: names.into_iter().map(|name| Queue { name, streams: Vec::new() }).collect(),
            streams: Vec::new(),
            producers: Vec::new(),
            consumers: (0..workload.consumers)
                .map(|consumer| share(consumer, workload.consumers, workload.queues))
                .collect(),
        };
        for producer in 0..workload.producers {
            plan.add_producer(producer);
        }
        Ok(plan)
    }

    fn add_producer(&mut self, producer: usize) {
        let mut own = Vec::new();
        if self.exchange.is_some() {
            let keys = match self.workload.topic {
                // The keys stride over all bindings, so that few of them are not all of one neighbourhood.
                Some(bindings) => (0..self.workload.keys)
                    .map(|key| format!("a.b.{}", key * bindings / self.workload.keys))
                    .collect(),
                None => vec![String::new()],
            };
            let stream = self.streams.len();
            self.streams.push(Stream { keys });
            self.queues.iter_mut().for_each(|queue| queue.streams.push(stream));
            own.push(stream);
        } else {
            for queue in share(producer, self.workload.producers, self.queues.len()) {
                let Some(queue) = self.queues.get_mut(queue) else { continue };
                let stream = self.streams.len();
                self.streams.push(Stream { keys: vec![queue.name.clone()] });
                queue.streams.push(stream);
                own.push(stream);
            }
        }
        self.producers.push(own);
    }

    /// How many messages a producer sends, unless it is stopped before.
    pub(crate) fn limit(&self, producer: usize) -> u64 {
        if self.workload.seconds.is_some() {
            return u64::MAX;
        }
        let (messages, producers) = (self.workload.messages, self.producers.len() as u64);
        messages / producers + u64::from((producer as u64) < messages % producers)
    }

    /// Whether a consumer is the slow one, which need not get everything.
    pub(crate) fn is_slow(&self, consumer: usize) -> bool {
        self.workload.slow.is_some() && consumer + 1 == self.consumers.len()
    }

    /// Whether a queue's messages must all have come in the end: not those of a slow consumer.
    pub(crate) fn is_complete(&self, queue: usize) -> bool {
        let slow = self.consumers.len().wrapping_sub(1);
        !(self.is_slow(slow) && self.consumers.get(slow).is_some_and(|queues| queues.contains(&queue)))
    }
}

/// Which of the queues the one of many takes: each takes some, or several share one.
fn share(one: usize, many: usize, queues: usize) -> Vec<usize> {
    if many >= queues { vec![one % queues] } else { (one..queues).step_by(many).collect() }
}

fn exchange(workload: &Workload) -> Option<Exchange> {
    if workload.fan_out {
        let bindings = (0..workload.queues).map(|queue| (queue, String::new())).collect();
        return Some(Exchange { name: "leveret-bench-fanout".to_owned(), kind: "fanout", bindings });
    }
    let bindings = workload.topic?;
    let key = |number: usize| match number % 3 {
        0 => format!("a.b.{number}"),
        1 => format!("*.b.{number}"),
        _ => format!("a.#.{number}"),
    };
    let bindings = (0..bindings).map(|number| (0, key(number))).collect();
    Some(Exchange { name: "leveret-bench-topic".to_owned(), kind: "topic", bindings })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(producers: usize, consumers: usize, queues: usize, fan_out: bool) -> Plan {
        Plan::new(&Workload { producers, consumers, queues, fan_out, ..Workload::default() }).unwrap()
    }

    #[test]
    fn every_queue_has_a_producer_and_a_consumer() {
        for (producers, queues, consumers) in [(1, 1, 1), (4, 4, 4), (1, 5, 2), (3, 2, 5), (2, 7, 3)] {
            let plan = plan(producers, consumers, queues, false);
            for (number, queue) in plan.queues.iter().enumerate() {
                assert!(!queue.streams.is_empty(), "{number} of {queues} has no producer");
                assert!(plan.consumers.iter().any(|queues| queues.contains(&number)));
                for stream in &queue.streams {
                    assert_eq!(plan.streams[*stream].keys, std::slice::from_ref(&queue.name));
                    assert_eq!(plan.producers.iter().filter(|own| own.contains(stream)).count(), 1);
                }
            }
        }
    }

    #[test]
    fn behind_a_fanout_every_queue_gets_every_stream() {
        let plan = plan(2, 3, 3, true);
        assert_eq!(plan.streams.len(), 2);
        assert!(plan.queues.iter().all(|queue| queue.streams == [0, 1]));
        assert_eq!(plan.exchange.unwrap().bindings.len(), 3);
    }

    #[test]
    fn every_topic_key_has_a_binding() {
        let plan = Plan::new(&Workload { topic: Some(300), keys: 300, ..Workload::default() }).unwrap();
        let exchange = plan.exchange.unwrap();
        assert_eq!(exchange.bindings[4].1, "*.b.4");
        assert_eq!(plan.streams[0].keys[299], "a.b.299");
        let few = Plan::new(&Workload { topic: Some(300), keys: 3, ..Workload::default() }).unwrap();
        assert_eq!(few.streams[0].keys, ["a.b.0", "a.b.100", "a.b.200"]);
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let bad = [
            Workload { size: 15, ..Workload::default() },
            Workload { producers: 0, ..Workload::default() },
            Workload { ack: Some(Ack::Every(10)), prefetch: Some(9), ..Workload::default() },
            Workload { topic: Some(5), keys: 6, ..Workload::default() },
            Workload { slow: Some(5), consumers: 2, queues: 2, ..Workload::default() },
        ];
        for workload in bad {
            assert!(workload.check().is_err(), "{workload}");
        }
        assert_eq!("every".parse::<Ack>(), Err("none, each, batch or a number from 1"));
        assert_eq!("64".parse(), Ok(Ack::Every(64)));
    }
}
