//! The first eight bytes: "AMQP", a zero, and the version.

/// What a client sends first, and what the broker answers before it closes the socket if a client sent anything else.
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";

/// The first eight bytes ask for something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolHeaderError {
    /// AMQP, but not 0-9-1.
    #[error(
        "AMQP with the protocol id {id} in version {major}.{minor}.{revision}; only 0, 0.9.1 is spoken here"
    )]
    OtherVersion {
        /// 0 for AMQP itself; 1.0 uses 2 and 3 for TLS and SASL.
        id: u8,
        /// The major version.
        major: u8,
        /// The minor version.
        minor: u8,
        /// The revision.
        revision: u8,
    },
    /// Not AMQP.
    #[error("not AMQP: the first bytes are {}", .0.escape_ascii())]
    NotAmqp([u8; 8]),
}

/// Checks the first eight bytes of a connection.
pub fn check_protocol_header(first: [u8; 8]) -> Result<(), ProtocolHeaderError> {
    match first {
        PROTOCOL_HEADER => Ok(()),
        [b'A', b'M', b'Q', b'P', id, major, minor, revision] => {
            Err(ProtocolHeaderError::OtherVersion { id, major, minor, revision })
        }
        other => Err(ProtocolHeaderError::NotAmqp(other)),
    }
}
