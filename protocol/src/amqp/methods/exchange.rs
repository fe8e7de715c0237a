//! Class 40: exchanges, and RabbitMQ's bindings between them.

use super::methods;
use crate::amqp::table::FieldTable;

methods! {
    /// Methods on exchanges.
    40 "exchange" Exchange<'a>;

    /// Makes an exchange, or checks that it is there.
    10 "declare" Declare<'a> [u16] {
        /// Its name.
        exchange: &'a str,
        /// `direct`, `fanout`, `topic`, `headers`, or a type of the broker's. AMQP calls the field "type".
        kind: &'a str,
        /// Only asks whether it exists.
        passive: bool,
        /// Whether it survives a restart.
        durable: bool,
        /// Whether it goes with its last binding.
        auto_delete: bool,
        /// Whether publishers may not use it.
        internal: bool,
        /// Whether no answer is wanted.
        nowait: bool,
        /// `alternate-exchange` and others.
        arguments: FieldTable<'a>,
    }

    /// It is there.
    11 "declare-ok" DeclareOk {}

    /// Removes an exchange.
    20 "delete" Delete<'a> [u16] {
        /// Its name.
        exchange: &'a str,
        /// Only if nothing is bound to it.
        if_unused: bool,
        /// Whether no answer is wanted.
        nowait: bool,
    }

    /// It is gone.
    21 "delete-ok" DeleteOk {}

    /// RabbitMQ's: binds an exchange to an exchange.
    30 "bind" Bind<'a> [u16] {
        /// Where messages go.
        destination: &'a str,
        /// Where they come from.
        source: &'a str,
        /// The binding key.
        routing_key: &'a str,
        /// Whether no answer is wanted.
        nowait: bool,
        /// What headers exchanges match, for one.
        arguments: FieldTable<'a>,
    }

    /// They are bound.
    31 "bind-ok" BindOk {}

    /// RabbitMQ's: removes such a binding.
    40 "unbind" Unbind<'a> [u16] {
        /// Where messages went.
        destination: &'a str,
        /// Where they came from.
        source: &'a str,
        /// The binding key.
        routing_key: &'a str,
        /// Whether no answer is wanted.
        nowait: bool,
        /// The binding's arguments, which are part of what it is.
        arguments: FieldTable<'a>,
    }

    /// They are not bound. (The number is RabbitMQ's, and not 41.)
    51 "unbind-ok" UnbindOk {}
}
