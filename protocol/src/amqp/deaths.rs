//! Death histories as the headers that RabbitMQ's clients know: `x-death`, `x-first-death-*`, `x-last-death-*`.

use bytes::{BufMut, BytesMut};

use super::headers::HeaderChanges;
use super::table_writer::{put_entry, put_sized};
use crate::death::{Death, DeathHistory, DeathSummary};
use crate::value::Value;

impl HeaderChanges {
    /// Sets the headers of dead letters, and removes the expiration, which a dead letter does not have any more.
    ///
    /// `x-death` is an array of tables, newest first, whose entries have RabbitMQ's order and types. What the consumer
    /// said when it rejected the message last is `x-last-death-note`, a header of ours.
    pub fn set_deaths(&mut self, history: &DeathHistory) {
        self.remove_expiration();
        let out = self.entries();
        put_key(out, "x-death", b'A');
        put_sized(out, |out| {
            for death in &history.deaths {
                out.put_u8(b'F');
                put_sized(out, |out| put_death(out, death));
            }
        });
        self.set_summary("first", &history.first);
        self.set_summary("last", &history.last);
        if let Some(note) = history.deaths.first().and_then(|newest| newest.note.as_deref()) {
            self.set("x-last-death-note", &Value::from(note));
        }
    }

    fn set_summary(&mut self, which: &str, death: &DeathSummary) {
        for (what, text) in [
            ("exchange", death.exchange.as_str()),
            ("queue", death.queue.as_str()),
            ("reason", death.reason.as_str()),
        ] {
            self.set(&format!("x-{which}-death-{what}"), &Value::from(text));
        }
    }
}

fn put_death(out: &mut BytesMut, death: &Death) {
    if let Some(ttl_ms) = death.original_ttl_ms {
        put_entry(out, "original-expiration", &Value::from(ttl_ms.to_string()));
    }
    put_key(out, "count", b'l');
    out.put_u64(death.count);
    put_entry(out, "reason", &Value::from(death.reason.as_str()));
    put_entry(out, "queue", &Value::from(death.queue.as_str()));
    put_key(out, "time", b'T');
    out.put_u64(death.first_at_ms / 1000);
    put_entry(out, "exchange", &Value::from(death.exchange.as_str()));
    let keys = death.routing_keys.iter().map(|key| Value::from(key.as_str())).collect();
    put_entry(out, "routing-keys", &Value::List(keys));
}

fn put_key(out: &mut BytesMut, key: &str, kind: u8) {
    super::wire::put_short_bytes(out, key.as_bytes());
    out.put_u8(kind);
}
