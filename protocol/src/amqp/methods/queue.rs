//! Class 50: queues and their bindings.

use super::methods;
use crate::amqp::table::FieldTable;

methods! {
    /// Methods on queues.
    50 "queue" Queue<'a>;

    /// Makes a queue, or checks that it is there.
    10 "declare" Declare<'a> [u16] {
        /// Its name; empty asks the broker for one.
        queue: &'a str,
        /// Only asks whether it exists.
        passive: bool,
        /// Whether it survives a restart.
        durable: bool,
        /// Whether it belongs to this connection alone.
        exclusive: bool,
        /// Whether it goes with its last consumer.
        auto_delete: bool,
        /// Whether no answer is wanted.
        nowait: bool,
        /// `x-message-ttl` and others.
        arguments: FieldTable<'a>,
    }

    /// It is there.
    11 "declare-ok" DeclareOk<'a> {
        /// Its name.
        queue: &'a str,
        /// How many messages are ready in it.
        message_count: u32,
        /// How many consumers it has.
        consumer_count: u32,
    }

    /// Binds a queue to an exchange.
    20 "bind" Bind<'a> [u16] {
        /// The queue; empty is the one that this channel declared last.
        queue: &'a str,
        /// The exchange.
        exchange: &'a str,
        /// The binding key.
        routing_key: &'a str,
        /// Whether no answer is wanted.
        nowait: bool,
        /// What headers exchanges match, for one.
        arguments: FieldTable<'a>,
    }

    /// They are bound.
    21 "bind-ok" BindOk {}

    /// Removes what is ready in a queue.
    30 "purge" Purge<'a> [u16] {
        /// The queue.
        queue: &'a str,
        /// Whether no answer is wanted.
        nowait: bool,
    }

    /// It is empty.
    31 "purge-ok" PurgeOk {
        /// How many messages went.
        message_count: u32,
    }

    /// Removes a queue.
    40 "delete" Delete<'a> [u16] {
        /// The queue.
        queue: &'a str,
        /// Only if nobody consumes from it.
        if_unused: bool,
        /// Only if nothing is in it.
        if_empty: bool,
        /// Whether no answer is wanted.
        nowait: bool,
    }

    /// It is gone.
    41 "delete-ok" DeleteOk {
        /// How many messages went with it.
        message_count: u32,
    }

    /// Removes a binding. It has no `nowait`.
    50 "unbind" Unbind<'a> [u16] {
        /// The queue.
        queue: &'a str,
        /// The exchange.
        exchange: &'a str,
        /// The binding key.
        routing_key: &'a str,
        /// The binding's arguments, which are part of what it is.
        arguments: FieldTable<'a>,
    }

    /// They are not bound.
    51 "unbind-ok" UnbindOk {}
}
