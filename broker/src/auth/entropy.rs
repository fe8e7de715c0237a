//! The only place that asks the operating system for random bytes.

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// The bytes of randomness in a nonce: 24 characters of base64.
const NONCE_BYTES: usize = 18;

/// A fresh nonce for one SCRAM exchange. It fails only if the operating system has no randomness to give.
pub fn nonce() -> io::Result<String> {
    let mut bytes = [0; NONCE_BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(STANDARD.encode(bytes))
}

/// A number that nobody can foresee, for the journal's checksums.
pub fn seed() -> io::Result<u64> {
    Ok(getrandom::u64()?)
}

/// A key that lives as long as the process. Whatever is derived from it cannot be foreseen by a peer and means
/// nothing after a restart.
pub struct BootKey(Hmac<Sha256>);

impl BootKey {
    /// A new key. It fails only if the operating system has no randomness to give.
    pub fn random() -> io::Result<Self> {
        let mut bytes = Zeroizing::new([0; 64]);
        getrandom::fill(&mut *bytes)?;
        Ok(Self::from_bytes(&bytes))
    }

    /// A known key, for repeatable runs.
    pub fn from_bytes(bytes: &[u8; 64]) -> Self {
        Self(Hmac::new(bytes.into()))
    }

    /// A value that only this process can compute. Each part is signed with its length, so that "ab" + "c" and
    /// "a" + "bc" differ; the purpose keeps the uses of the key apart.
    pub(super) fn sign(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.0.clone();
        for part in [purpose.as_bytes()].iter().chain(parts) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}
