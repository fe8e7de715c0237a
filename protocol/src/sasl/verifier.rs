use std::fmt;
use std::ops::RangeInclusive;

use hmac::{Hmac, KeyInit, Mac};
use pbkdf2::pbkdf2_hmac_array;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::text::{check_password, decode_base64, decode_key, encode_base64};
use super::{SaslError, Secret};

/// The length of every key, in bytes: that of a SHA-256 hash.
pub const KEY_BYTES: usize = 32;

/// The fewest iterations that are accepted (RFC 7677, section 4).
pub const ITERATIONS_MIN: u32 = 4096;

/// The most iterations that are accepted, up to a second of work on a slow processor, so that a hostile
/// server cannot stop a client by asking for four billion.
pub const ITERATIONS_MAX: u32 = 1_000_000;

/// The iterations of a verifier that is derived here.
pub const ITERATIONS_DEFAULT: u32 = ITERATIONS_MIN;

/// How many bytes a verifier's salt may have. Beyond the length of the hash a salt adds nothing.
pub const SALT_BYTES: RangeInclusive<usize> = 8..=KEY_BYTES;

/// The length of a new verifier's salt, in bytes; PostgreSQL's too.
pub const SALT_BYTES_DEFAULT: usize = 16;

pub(super) type Key = [u8; KEY_BYTES];

/// What a server knows of a password: enough to check a proof of it and to prove itself, but not enough to log
/// in elsewhere with it. It still allows guessing offline, so it is treated as a secret.
#[derive(Clone)]
pub struct Verifier {
    pub(super) salt: Vec<u8>,
    pub(super) iterations: u32,
    pub(super) stored_key: Key,
    pub(super) server_key: Key,
}

impl Verifier {
    /// Puts a verifier together from its parts.
    pub fn new(
        salt: Vec<u8>,
        iterations: u32,
        stored_key: [u8; KEY_BYTES],
        server_key: [u8; KEY_BYTES],
    ) -> Result<Self, SaslError> {
        check_iterations(iterations)?;
        if !SALT_BYTES.contains(&salt.len()) {
            return Err(SaslError::Salt(salt.len()));
        }
        Ok(Self { salt, iterations, stored_key, server_key })
    }

    /// Makes up a verifier that no password is known to fit, for a user who does not exist: with the cost and
    /// the salt's length of a real one, or the usual ones. The caller derives the three values from the name
    /// under a secret key, so that a name that is asked for twice gets the same salt twice, as a real one does.
    pub fn decoy(
        like: Option<&Self>,
        salt: [u8; KEY_BYTES],
        stored_key: [u8; KEY_BYTES],
        server_key: [u8; KEY_BYTES],
    ) -> Self {
        let (iterations, length) =
            like.map_or((ITERATIONS_DEFAULT, SALT_BYTES_DEFAULT), |real| (real.iterations, real.salt.len()));
        let salt = salt.into_iter().take(length).collect();
        Self { salt, iterations, stored_key, server_key }
    }

    /// Derives the verifier of a password. Expensive on purpose: 0.6 ms per 4096 iterations
    /// where the processor has SHA instructions.
    pub fn derive(password: &Secret, salt: Vec<u8>, iterations: u32) -> Result<Self, SaslError> {
        check_password(password)?;
        check_iterations(iterations)?;
        let keys = Keys::derive(password, &salt, iterations);
        Self::new(salt, iterations, hash(&keys.client), *keys.server)
    }

    /// Reads the form in which PostgreSQL keeps its verifiers,
    /// `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>`, the last three in base64.
    pub fn parse(text: &str) -> Result<Self, SaslError> {
        let form = || SaslError::Form {
            what: "SCRAM verifier",
            form: "SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>",
        };
        let rest = text.strip_prefix("SCRAM-SHA-256$").ok_or_else(form)?;
        let (cost, keys) = rest.split_once('$').ok_or_else(form)?;
        let (iterations, salt) = cost.split_once(':').ok_or_else(form)?;
        let (stored_key, server_key) = keys.split_once(':').ok_or_else(form)?;
        Self::new(
            decode_base64("salt", salt)?,
            iterations.parse().map_err(|_| form())?,
            decode_key("stored key", stored_key)?,
            decode_key("server key", server_key)?,
        )
    }

    /// Writes the form that [`parse`](Self::parse) reads.
    pub fn encode(&self) -> Secret {
        let [salt, stored_key, server_key] =
            [&self.salt[..], &self.stored_key[..], &self.server_key[..]].map(encode_base64);
        format!("SCRAM-SHA-256${}:{salt}${stored_key}:{server_key}", self.iterations).into()
    }

    /// Whether this is the password, for PLAIN. As expensive as [`derive`](Self::derive), and it takes as long
    /// for a wrong password as for the right one.
    pub fn matches(&self, password: &Secret) -> bool {
        let keys = Keys::derive(password, &self.salt, self.iterations);
        hash(&keys.client).ct_eq(&self.stored_key).into()
    }

    /// A hash of the password with its salt; for keys of caches, which must change when the password does.
    pub fn stored_key(&self) -> &[u8; KEY_BYTES] {
        &self.stored_key
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        self.stored_key.zeroize();
        self.server_key.zeroize();
    }
}

pub(super) fn check_iterations(iterations: u32) -> Result<(), SaslError> {
    if (ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) {
        Ok(())
    } else {
        Err(SaslError::Iterations(iterations))
    }
}

/// The two keys that a password yields (RFC 5802, section 3).
pub(super) struct Keys {
    pub(super) client: Zeroizing<Key>,
    pub(super) server: Zeroizing<Key>,
}

impl Keys {
    pub(super) fn derive(password: &Secret, salt: &[u8], iterations: u32) -> Self {
        let salted = Zeroizing::new(pbkdf2_hmac_array::<Sha256, KEY_BYTES>(
            password.expose().as_bytes(),
            salt,
            iterations,
        ));
        Self {
            client: Zeroizing::new(sign(&salted, b"Client Key")),
            server: Zeroizing::new(sign(&salted, b"Server Key")),
        }
    }
}

pub(super) fn hash(key: &Key) -> Key {
    Sha256::digest(key).into()
}

/// HMAC-SHA-256 under a key of the hash's length. HMAC pads a key with zeros up to the hash's block; doing so
/// here leaves no error to handle.
pub(super) fn sign(key: &Key, message: &[u8]) -> Key {
    let mut block = Zeroizing::new([0; 2 * KEY_BYTES]);
    for (padded, byte) in block.iter_mut().zip(key) {
        *padded = *byte;
    }
    Hmac::<Sha256>::new((&*block).into()).chain_update(message).finalize().into_bytes().into()
}

/// Combines a key with a signature, or takes it out again.
pub(super) fn xor(left: &Key, right: &Key) -> Key {
    let mut combined = *left;
    for (byte, other) in combined.iter_mut().zip(right) {
        *byte ^= other;
    }
    combined
}
