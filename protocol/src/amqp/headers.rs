//! Headers that the broker adds to properties that came encoded, and those that it takes away. Everything else keeps
//! its bytes, so that types which the broker's core does not tell apart are delivered as they were published.

use bytes::{Bytes, BytesMut};

use super::content::{BasicProperties, ContentError};
use super::table::FieldTable;
use super::table_writer::put_entry;
use crate::value::Value;

/// The header with further routing keys that nobody sees.
pub(super) const BCC: &str = "BCC";

/// The header with further routing keys that consumers see.
pub(super) const CC: &str = "CC";

/// Changes to the headers of encoded properties.
#[derive(Debug, Clone, Default)]
pub struct HeaderChanges {
    /// The entries to set, as they will stand in the table.
    set: BytesMut,
    removed: Vec<&'static str>,
    removes_expiration: bool,
}

impl HeaderChanges {
    /// Sets a header, whatever the publisher said under that name. The first of two for the same name counts. Both are
    /// the broker's own: a key longer than 255 bytes is left out, and how deep the value nests is not checked.
    pub fn set(&mut self, key: &str, value: &Value) {
        put_entry(&mut self.set, key, value);
    }

    /// Removes a header.
    pub fn remove(&mut self, key: &'static str) {
        self.removed.push(key);
    }

    /// Removes the property `expiration`, as dead-lettering does.
    pub(super) fn remove_expiration(&mut self) {
        self.removes_expiration = true;
    }

    /// Where to append entries that are written by hand.
    pub(super) fn entries(&mut self) -> &mut BytesMut {
        &mut self.set
    }

    /// Whether nothing changes, so that the properties can be sent as they came.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.removed.is_empty() && !self.removes_expiration
    }

    /// The properties with these changes. Headers come out in the order of their names, as they do in RabbitMQ; of those
    /// with the same name the first stays.
    pub fn apply(&self, properties: &[u8]) -> Result<Bytes, ContentError> {
        let old = BasicProperties::decode(properties)?;
        let mut entries: Vec<_> = FieldTable::trusted(&self.set).entries().collect();
        for entry in old.headers.unwrap_or_default().entries() {
            if !self.removed.iter().any(|key| key.as_bytes() == entry.key) {
                entries.push(entry);
            }
        }
        // The sort is stable, so ours stay in front of the publisher's.
        entries.sort_by_key(|entry| entry.key);
        entries.dedup_by_key(|entry| entry.key);
        let headers: Vec<u8> = entries.iter().flat_map(|entry| entry.raw).copied().collect();
        let keeps_headers = old.headers.is_some() || !headers.is_empty();
        let new = BasicProperties {
            headers: keeps_headers.then(|| FieldTable::trusted(&headers)),
            expiration: old.expiration.filter(|_| !self.removes_expiration),
            ..old
        };
        Ok(new.to_bytes())
    }
}
