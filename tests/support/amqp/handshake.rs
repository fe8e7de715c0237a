//! How a peer opens its connection.

use super::methods::read_method;
use super::peer::{Close, PROTOCOL_HEADER, Peer, close_of};
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
    /// The limits of `tune-ok`: channels, bytes of a frame, seconds of the heartbeat. `None` takes what is offered, but
    /// no heartbeat.
    pub tune: Option<(u16, u32, u16)>,
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
            tune: None,
        }
    }
}

impl Peer {
    /// The whole handshake. `Err` is what the broker says instead of going on; `None` if it hangs up without a word.
    pub async fn enter(&mut self, login: &Login) -> Result<(), Option<Close>> {
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
    pub async fn tune(&mut self, login: &Login) -> Result<Vec<Field>, Option<Close>> {
        let offered = self.step("connection.tune").await?;
        let (channels, bytes) = (offered[0].number() as u16, offered[1].number() as u32);
        let (channel_max, frame_max, heartbeat) = login.tune.unwrap_or((channels, bytes, 0));
        self.send_on(0, "connection.tune-ok", fields![channel_max, frame_max, heartbeat]).await;
        self.frame_max = if frame_max == 0 { usize::MAX } else { frame_max as usize };
        Ok(offered)
    }

    /// `connection.open`.
    pub async fn open(&mut self, login: &Login) -> Result<(), Option<Close>> {
        self.send_on(0, "connection.open", fields![login.vhost]).await;
        self.step("connection.open-ok").await.map(drop)
    }

    /// The next method, if it is this one.
    async fn step(&mut self, expected: &str) -> Result<Vec<Field>, Option<Close>> {
        let Some(frame) = self.frame().await else { return Err(None) };
        let (name, fields) = read_method(&frame.payload);
        if name == expected {
            return Ok(fields);
        }
        assert_eq!(name, "connection.close", "instead of {expected}, with {fields:?}");
        self.send_on(0, "connection.close-ok", fields![]).await;
        assert_eq!(self.frame().await, None, "behind connection.close");
        Err(Some(close_of(&fields)))
    }
}
