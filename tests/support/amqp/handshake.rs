//! How a peer opens its connection.

use super::peer::{Close, PROTOCOL_HEADER, Peer};
use super::{Field, Table};
use crate::{amqp_table, fields};

/// Who connects, and what is negotiated.
#[derive(Debug, Clone)]
pub struct Login {
    /// The mechanism of SASL.
    pub mechanism: &'static str,
    /// Its response; `None` is what PLAIN says of user and password.
    pub response: Option<String>,
    /// Who it is.
    pub user: &'static str,
    /// Its password.
    pub password: &'static str,
    /// Where it goes.
    pub vhost: &'static str,
    /// What it can.
    pub capabilities: Table,
    /// The limits of `tune-ok`: channels, bytes of a frame, seconds of the heartbeat.
    pub tune: (u16, u32, u16),
}

impl Default for Login {
    fn default() -> Self {
        Self {
            mechanism: "PLAIN",
            response: None,
            user: "guest",
            password: "guest",
            vhost: "/",
            capabilities: amqp_table! {
                "publisher_confirms" => true, "exchange_exchange_bindings" => true, "basic.nack" => true,
                "consumer_cancel_notify" => true, "connection.blocked" => true, "authentication_failure_close" => true,
            },
            tune: (2047, 131_072, 0),
        }
    }
}

impl Peer {
    /// The whole handshake. `Err` is what the broker says instead of going on.
    pub async fn enter(&mut self, login: &Login) -> Result<(), Close> {
        self.greet().await;
        self.say_who(login).await;
        self.tune(login).await?;
        self.open(login).await
    }

    /// The protocol's header, and the arguments of `connection.start`.
    pub async fn greet(&mut self) -> Vec<Field> {
        self.write(PROTOCOL_HEADER).await;
        self.expect_on(0, "connection.start").await
    }

    /// `connection.start-ok`, without waiting for what follows.
    pub async fn say_who(&mut self, login: &Login) {
        let response = login.response.clone().unwrap_or(format!("\0{}\0{}", login.user, login.password));
        let client = amqp_table! { "product" => "raw peer", "capabilities" => login.capabilities.clone() };
        self.send_on(0, "connection.start-ok", fields![client, login.mechanism, response, "en_US"]).await;
    }

    /// `connection.tune`, and its answer; what was offered.
    pub async fn tune(&mut self, login: &Login) -> Result<Vec<Field>, Close> {
        let (name, offered) = self.method_on(0).await;
        if name != "connection.tune" {
            return Err(self.end_of_handshake(name, &offered).await);
        }
        let (channel_max, frame_max, heartbeat) = login.tune;
        self.send_on(0, "connection.tune-ok", fields![channel_max, frame_max, heartbeat]).await;
        self.frame_max = if frame_max == 0 { usize::MAX } else { frame_max as usize };
        Ok(offered)
    }

    /// `connection.open`.
    pub async fn open(&mut self, login: &Login) -> Result<(), Close> {
        self.send_on(0, "connection.open", fields![login.vhost]).await;
        let (name, fields) = self.method_on(0).await;
        if name == "connection.open-ok" { Ok(()) } else { Err(self.end_of_handshake(name, &fields).await) }
    }

    async fn end_of_handshake(&mut self, name: &str, fields: &[Field]) -> Close {
        assert_eq!(name, "connection.close", "instead of an answer, with {fields:?}");
        self.send_on(0, "connection.close-ok", fields![]).await;
        assert_eq!(self.frame().await, None, "behind connection.close");
        super::peer::close_of(fields)
    }
}
