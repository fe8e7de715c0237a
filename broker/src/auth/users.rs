use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use leveret_protocol::sasl::{
    ITERATIONS_DEFAULT, PlainCredentials, SALT_BYTES_DEFAULT, SaslError, Secret, Verifier, check_user_name,
};
use subtle::ConstantTimeEq;

use super::{BootKey, Refusal};

/// The user that exists unless it is configured away, with its name as its password. Whatever its password, it
/// is accepted from this machine only, as RabbitMQ does: everybody knows it.
pub const GUEST: &str = "guest";

/// What a user's password is checked against.
#[derive(Debug, Clone)]
pub enum Credential {
    /// The password itself; its verifier is derived at the start.
    Password(Secret),
    /// A verifier, so that the configuration holds no password. See [`Verifier::parse`] for its text form.
    Verifier(Verifier),
}

/// Who may log in.
#[derive(Debug, Clone)]
pub struct UsersConfig {
    /// The users, each once. One that is called [`GUEST`] replaces the built-in one.
    pub users: Vec<(String, Credential)>,
    /// Whether the built-in [`GUEST`] exists. On by default.
    pub guest: bool,
    /// How often the passwords given here are hashed. 4096 by default, the least that RFC 7677 allows: the
    /// configuration holds these passwords in clear, so a higher cost would protect nothing at rest, and every
    /// client pays it at every connection. A verifier brings its own cost.
    pub iterations: u32,
}

impl Default for UsersConfig {
    fn default() -> Self {
        Self { users: Vec::new(), guest: true, iterations: ITERATIONS_DEFAULT }
    }
}

/// Why a configuration of users was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UsersError {
    /// The name, the password or the cost cannot be used.
    #[error("user {user:?} cannot be set up: {reason}")]
    Unusable {
        /// The user's name, as configured.
        user: String,
        /// What is wrong with it.
        reason: SaslError,
    },
    /// A name that stands there twice.
    #[error("user {user:?} is configured twice; each user has one password")]
    Duplicate {
        /// The name.
        user: Arc<str>,
    },
}

/// All users, fixed at the start.
pub struct Users {
    /// In the order of their names.
    users: Vec<User>,
    key: BootKey,
}

pub(super) struct User {
    pub(super) name: Arc<str>,
    verifier: Verifier,
    /// The credentials that PLAIN has accepted, signed with the boot key. A verifier fits one password, so one
    /// place for each user is all the memory that this takes.
    accepted: OnceLock<[u8; 32]>,
}

/// The verifier to ask a client about, and the user if the right password lets that client in.
pub(super) struct Account<'a> {
    pub(super) verifier: Verifier,
    pub(super) user: Result<&'a User, Refusal>,
}

impl Users {
    /// Sets the users up. Expensive: it hashes every password given in clear.
    pub fn new(config: UsersConfig, key: BootKey) -> Result<Self, UsersError> {
        let UsersConfig { users: mut configured, guest, iterations } = config;
        if guest && !configured.iter().any(|(name, _)| name == GUEST) {
            configured.push((GUEST.to_owned(), Credential::Password(GUEST.into())));
        }
        let mut users = Vec::with_capacity(configured.len());
        for (name, credential) in configured {
            match User::new(&name, credential, iterations, &key) {
                Ok(user) => users.push(user),
                Err(reason) => return Err(UsersError::Unusable { user: name, reason }),
            }
        }
        users.sort_unstable_by(|left: &User, right| left.name.cmp(&right.name));
        let mut neighbours = users.iter().zip(users.iter().skip(1));
        if let Some((user, _)) = neighbours.find(|(left, right)| left.name == right.name) {
            return Err(UsersError::Duplicate { user: user.name.clone() });
        }
        Ok(Self { users, key })
    }

    /// What a client gets that names this user. The same work is done whether the user exists or not, and
    /// whoever may not log in from there gets a verifier that no password fits.
    pub(super) fn account(&self, name: &str, peer: SocketAddr) -> Account<'_> {
        let decoy = self.decoy(name);
        let found = self.users.binary_search_by(|user| (*user.name).cmp(name));
        match found.ok().and_then(|at| self.users.get(at)) {
            Some(user) if name != GUEST || is_this_machine(peer) => {
                Account { verifier: user.verifier.clone(), user: Ok(user) }
            }
            Some(_) => Account { verifier: decoy, user: Err(Refusal::LoopbackOnly { user: name.into() }) },
            None => Account { verifier: decoy, user: Err(Refusal::Credentials { user: name.into() }) },
        }
    }

    /// Checks a password. Expensive, unless these very credentials have been accepted before: thousands of
    /// clients that reconnect at once would otherwise keep every core busy for minutes.
    pub(super) fn check_plain(
        &self,
        credentials: &PlainCredentials,
        peer: SocketAddr,
    ) -> Result<Arc<str>, Refusal> {
        let PlainCredentials { user: name, password } = credentials;
        let Account { verifier, user } = self.account(name, peer);
        // The stored key is signed along, so that an acceptance ends with the password that it was for.
        let parts = [name.as_bytes(), password.expose().as_bytes(), verifier.stored_key()];
        let signed = self.key.sign("accepted", &parts);
        let seen = user.as_ref().ok().and_then(|user| user.accepted.get());
        let seen = seen.is_some_and(|accepted| accepted.ct_eq(&signed).into());
        let matches = seen || verifier.matches(password);
        let user = user?;
        if !matches {
            return Err(Refusal::Credentials { user: user.name.clone() });
        }
        // Another thread may have been first, with the same value.
        user.accepted.get_or_init(|| signed);
        Ok(user.name.clone())
    }

    /// A verifier for a name that may not log in. It has the shape of some user's, always the same one for the
    /// same name; otherwise the iterations or the salt's length would tell the users apart from the others.
    fn decoy(&self, name: &str) -> Verifier {
        let sign = |purpose| self.key.sign(purpose, &[name.as_bytes()]);
        let number = sign("shape").iter().fold(0_usize, |number, byte| number << 8 | usize::from(*byte));
        let like = number.checked_rem(self.users.len()).and_then(|at| self.users.get(at));
        let like = like.map(|user| &user.verifier);
        Verifier::decoy(like, sign("salt"), sign("stored key"), sign("server key"))
    }
}

impl User {
    fn new(name: &str, credential: Credential, iterations: u32, key: &BootKey) -> Result<Self, SaslError> {
        check_user_name(name)?;
        let verifier = match credential {
            Credential::Verifier(verifier) => verifier,
            Credential::Password(password) => {
                // Derived as a decoy's is, so that the two cannot be told apart.
                let salt = key.sign("salt", &[name.as_bytes()]);
                let salt = salt.into_iter().take(SALT_BYTES_DEFAULT).collect();
                Verifier::derive(&password, salt, iterations)?
            }
        };
        Ok(Self { name: name.into(), verifier, accepted: OnceLock::new() })
    }
}

/// Whether the peer is on this machine. An IPv6 socket shows IPv4 peers as `::ffff:127.0.0.1`; taken literally
/// that is no loopback address.
fn is_this_machine(peer: SocketAddr) -> bool {
    peer.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_credentials_are_not_hashed_again_and_rejected_ones_are_not_kept() {
        let users = Users::new(UsersConfig::default(), BootKey::from_bytes(&[7; 64])).unwrap();
        let here = SocketAddr::from(([127, 0, 0, 1], 1));
        let credentials = |password: &str| PlainCredentials { user: GUEST.into(), password: password.into() };
        assert!(users.check_plain(&credentials("wrong"), here).is_err());
        assert_eq!(users.users[0].accepted.get(), None);

        // An acceptance planted for another password shows that it is looked at before any hashing.
        let stored_key = users.users[0].verifier.stored_key();
        let planted = users.key.sign("accepted", &[GUEST.as_bytes(), b"planted", stored_key]);
        users.users[0].accepted.set(planted).unwrap();
        assert!(users.check_plain(&credentials("planted"), here).is_ok());
        assert!(users.check_plain(&credentials("wrong"), here).is_err());
        assert!(users.check_plain(&credentials(GUEST), here).is_ok());
        let there = SocketAddr::from(([192, 0, 2, 1], 1));
        assert!(users.check_plain(&credentials("planted"), there).is_err());
    }
}
