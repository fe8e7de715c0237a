//! What can happen to a queue, at random.

use leveret_protocol::{ExchangeName, Table};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::queue::{Credit, DeadLetter, Overflow, QueueType, Settings, Verb};
use crate::store::Shortage;

#[derive(Debug, Clone)]
pub(super) enum Op {
    Publish {
        length: usize,
        ttl_ms: Option<u64>,
        /// How long before its arrival the message was published.
        age_ms: u64,
        priority: u8,
        /// Whether it is in the journal, so that it need not stay in memory.
        stored: bool,
    },
    Dispatch,
    ShortOfMemory(Shortage),
    Subscribe {
        priority: i32,
        exclusive: bool,
        no_ack: bool,
        credit: Credit,
        outlet: usize,
        shares: bool,
    },
    OpenPassive,
    Drain {
        outlet: usize,
        bytes: usize,
    },
    Purge,
    Touch,
    Advance {
        ms: u64,
    },
    ToHolder {
        at: usize,
        also_gone: bool,
        op: HolderOp,
    },
}

#[derive(Debug, Clone)]
pub(super) enum HolderOp {
    Settle { ranges: Vec<(u64, u64)>, verb: Verb },
    SettleUpTo { last: u64, verb: Verb },
    SetAside { ranges: Vec<(u64, u64)>, verb: Verb },
    SettleSetAside,
    PutBack,
    Get { no_ack: bool },
    AddCredit { more: u32 },
    Share { shares: bool },
    Cancel,
    Release,
}

pub(super) fn operations() -> impl Strategy<Value = Vec<Op>> {
    vec(operation(), 1..300)
}

pub(super) fn settings() -> impl Strategy<Value = Settings> {
    let overflow = prop_oneof![
        Just(Overflow::DropHead),
        Just(Overflow::RejectPublish),
        Just(Overflow::RejectPublishDeadLetter),
    ];
    let lengths = (option::of(0u64..6), option::weighted(0.3, 0u64..60), overflow);
    let times = (option::weighted(0.3, 0u64..40), option::weighted(0.2, 1u64..60));
    let rest = (any::<bool>(), option::of(0u32..4), option::of(1u8..4), any::<bool>(), any::<bool>());
    (lengths, times, rest).prop_map(
        |((length_max, bytes_max, overflow), (message_ttl_ms, expires_ms), rest)| {
            let (dead_letters, delivery_limit, priority_max, single_active, auto_delete) = rest;
            let dead_letter =
                dead_letters.then(|| DeadLetter { exchange: ExchangeName::default(), routing_key: None });
            Settings {
                durable: true,
                exclusive: false,
                auto_delete,
                message_ttl_ms,
                expires_ms,
                length_max,
                bytes_max,
                overflow,
                dead_letter,
                priority_max,
                single_active,
                delivery_limit,
                queue_type: QueueType::Classic,
                arguments: Table::new(),
            }
        },
    )
}

fn operation() -> impl Strategy<Value = Op> {
    let publish = (0usize..30, option::weighted(0.3, 0u64..40), 0u64..10, 0u8..6, prop::bool::weighted(0.8));
    let subscribe =
        (-1..=1, prop::bool::weighted(0.05), prop::bool::weighted(0.3), credit(), 0usize..2, any::<bool>());
    prop_oneof![
        30 => publish.prop_map(|(length, ttl_ms, age_ms, priority, stored)| {
            Op::Publish { length, ttl_ms, age_ms, priority, stored }
        }),
        3 => prop_oneof![Just(Shortage::None), Just(Shortage::Tight), Just(Shortage::Severe)].prop_map(Op::ShortOfMemory),
        20 => Just(Op::Dispatch),
        8 => subscribe.prop_map(|(priority, exclusive, no_ack, credit, outlet, shares)| {
            Op::Subscribe { priority, exclusive, no_ack, credit, outlet, shares }
        }),
        2 => Just(Op::OpenPassive),
        8 => (0usize..2, 0usize..500).prop_map(|(outlet, bytes)| Op::Drain { outlet, bytes }),
        1 => Just(Op::Purge),
        1 => Just(Op::Touch),
        6 => (0u64..20).prop_map(|ms| Op::Advance { ms }),
        40 => (any::<usize>(), prop::bool::weighted(0.1), holder_operation())
            .prop_map(|(at, also_gone, op)| Op::ToHolder { at, also_gone, op }),
    ]
}

fn credit() -> impl Strategy<Value = Credit> {
    prop_oneof![
        Just(Credit::Unlimited),
        (1u32..4).prop_map(Credit::Unsettled),
        (0u32..4).prop_map(Credit::Counted),
    ]
}

fn holder_operation() -> impl Strategy<Value = HolderOp> {
    // Most tags are small, so that most of them exist.
    let tag = || prop_oneof![30 => 1u64..12, 1 => Just(0), 1 => Just(u64::MAX)];
    let range = prop_oneof![
        6 => tag().prop_map(|tag| (tag, tag)),
        3 => (1u64..12, 0u64..3).prop_map(|(first, more)| (first, first + more)),
        1 => (tag(), tag()),
    ];
    prop_oneof![
        4 => (vec(range.clone(), 0..3), verb()).prop_map(|(ranges, verb)| HolderOp::SetAside { ranges, verb }),
        2 => (tag(), verb())
            .prop_map(|(last, verb)| HolderOp::SetAside { ranges: Vec::from([(0, last)]), verb }),
        3 => Just(HolderOp::SettleSetAside),
        1 => Just(HolderOp::PutBack),
        12 => (vec(range, 0..3), verb()).prop_map(|(ranges, verb)| HolderOp::Settle { ranges, verb }),
        4 => (tag(), verb()).prop_map(|(last, verb)| HolderOp::SettleUpTo { last, verb }),
        4 => any::<bool>().prop_map(|no_ack| HolderOp::Get { no_ack }),
        4 => (0u32..4).prop_map(|more| HolderOp::AddCredit { more }),
        1 => any::<bool>().prop_map(|shares| HolderOp::Share { shares }),
        2 => Just(HolderOp::Cancel),
        2 => Just(HolderOp::Release),
    ]
}

fn verb() -> impl Strategy<Value = Verb> {
    prop_oneof![
        Just(Verb::Ack),
        Just(Verb::Requeue),
        Just(Verb::Release),
        option::of("[a-z]{3}").prop_map(|note| Verb::Reject { note: note.map(Into::into) }),
    ]
}
