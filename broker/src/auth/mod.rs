//! Who may log in: users, one authentication from its first message to its end, and the brake on guessing.
//!
//! Nothing here waits or knows a runtime. PLAIN hashes a password, which takes a millisecond and more; the
//! caller runs [`Authenticator::begin`] for it on a blocking thread and lets only a few do so at once.

mod authenticator;
mod entropy;
mod throttle;
mod users;

#[cfg(test)]
mod tests;

pub use authenticator::{Authenticator, Outcome, Refusal};
pub use entropy::{BootKey, nonce, seed};
pub use throttle::{DELAY_MAX_MS, Throttle};
pub use users::{Credential, GUEST, Users, UsersConfig, UsersError};
