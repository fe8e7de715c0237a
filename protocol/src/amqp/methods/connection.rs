//! Class 10: the handshake, and the end of a connection.

use super::methods;
use crate::amqp::table::FieldTable;

methods! {
    /// Methods of the connection itself.
    10 "connection" Connection<'a>;

    /// The broker begins: what it is, and which logins it knows.
    10 "start" Start<'a> {
        /// 0.
        version_major: u8,
        /// 9.
        version_minor: u8,
        /// Product, version, capabilities and the like.
        server_properties: FieldTable<'a>,
        /// SASL mechanisms, separated by spaces.
        mechanisms: &'a [u8],
        /// Locales, separated by spaces.
        locales: &'a [u8],
    }

    /// The client answers with its login.
    11 "start-ok" StartOk<'a> {
        /// Product, capabilities and the like.
        client_properties: FieldTable<'a>,
        /// The SASL mechanism that it chose.
        mechanism: &'a str,
        /// The mechanism's first message.
        response: &'a [u8],
        /// The locale that it chose.
        locale: &'a str,
    }

    /// A further step of the login.
    20 "secure" Secure<'a> {
        /// The mechanism's challenge.
        challenge: &'a [u8],
    }

    /// The client's answer to a challenge.
    21 "secure-ok" SecureOk<'a> {
        /// The mechanism's response.
        response: &'a [u8],
    }

    /// What the broker proposes.
    30 "tune" Tune {
        /// The highest channel number; 0 is no limit.
        channel_max: u16,
        /// The largest frame in bytes, overhead included; 0 is no limit.
        frame_max: u32,
        /// Heartbeat timeout in seconds; 0 is none.
        heartbeat: u16,
    }

    /// What the client makes of it.
    31 "tune-ok" TuneOk {
        /// The highest channel number; 0 is no limit.
        channel_max: u16,
        /// The largest frame in bytes, overhead included; 0 is no limit.
        frame_max: u32,
        /// Heartbeat timeout in seconds; 0 is none.
        heartbeat: u16,
    }

    /// Chooses the vhost.
    40 "open" Open<'a> {
        /// The vhost's name.
        virtual_host: &'a str,
    } [&str, bool]

    /// The connection is open.
    41 "open-ok" OpenOk {} [&str]

    /// Ends the connection, from either side.
    50 "close" Close<'a> {
        /// Why, as a number.
        reply_code: u16,
        /// Why, in words.
        reply_text: &'a str,
        /// The class of the method that failed, or 0.
        class_id: u16,
        /// The method that failed, or 0.
        method_id: u16,
    }

    /// The other side knows.
    51 "close-ok" CloseOk {}

    /// RabbitMQ's: publishing is on hold.
    60 "blocked" Blocked<'a> {
        /// Why.
        reason: &'a str,
    }

    /// RabbitMQ's: publishing goes on.
    61 "unblocked" Unblocked {}

    /// RabbitMQ's: a new secret for a login that would run out.
    70 "update-secret" UpdateSecret<'a> {
        /// The secret.
        new_secret: &'a [u8],
        /// Why it comes.
        reason: &'a str,
    }

    /// The new secret is taken.
    71 "update-secret-ok" UpdateSecretOk {}
}
