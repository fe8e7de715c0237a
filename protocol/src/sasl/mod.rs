//! Proving who one is: the SASL mechanisms PLAIN (RFC 4616) and SCRAM-SHA-256 (RFC 5802 and RFC 7677).
//!
//! Both ends are pure: nonces and salts are arguments, nothing here reads a clock, a socket or random numbers.
//! Each step consumes the one before it, so a message out of order does not compile.
//!
//! Two things that the RFCs describe are left out on purpose. Channel binding is not offered, so a client
//! begins with `n,,` or `y,,`. Acting as another user is not offered, so an authorization identity is empty.
//!
//! User names and passwords are used as they are: no Unicode normalisation (SASLprep, RFC 4013) takes place,
//! only control characters are refused. Two spellings of "é" are therefore two passwords; names and passwords
//! in ASCII, and whatever a client has normalised itself, agree with every other implementation.

mod client;
mod error;
mod plain;
mod secret;
mod server;
mod text;
mod verifier;

#[cfg(test)]
mod tests;

pub use client::{ScramClient, ScramClientProved};
pub use error::SaslError;
pub use plain::{PlainCredentials, encode_plain};
pub use secret::Secret;
pub use server::{ScramServer, ScramServerChallenged};
pub use text::check_user_name;
pub use verifier::{
    ITERATIONS_DEFAULT, ITERATIONS_MAX, ITERATIONS_MIN, KEY_BYTES, SALT_BYTES, SALT_BYTES_DEFAULT, Verifier,
};

/// The longest message of any mechanism, in bytes. A longer one is refused before it is read.
pub const MESSAGE_BYTES_MAX: usize = 4096;

/// The longest password, in bytes of UTF-8.
pub const PASSWORD_BYTES_MAX: usize = 1024;

/// How a client proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// A proof of the password, and the server's proof that it knew a verifier of it. Safe to overhear only as
    /// far as the password is hard to guess.
    ScramSha256,
    /// The password itself. Only for a connection that nobody else can read.
    Plain,
}

impl Mechanism {
    /// Every mechanism, the best first.
    pub const ALL: [Self; 2] = [Self::ScramSha256, Self::Plain];

    /// Its registered name, as both protocols carry it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::Plain => "PLAIN",
        }
    }

    /// The mechanism of that name; case counts, as in the registry.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.name() == name)
    }
}
