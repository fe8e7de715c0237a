use std::net::SocketAddr;
use std::sync::Arc;

use leveret_protocol::sasl::{Mechanism, PlainCredentials, SaslError, ScramServer, ScramServerChallenged};

use super::Users;

/// One authentication that waits for the client's answer to a challenge.
#[derive(Debug)]
pub struct Authenticator {
    exchange: ScramServerChallenged,
    /// The user that a right proof lets in; or why not even that would.
    user: Result<Arc<str>, Refusal>,
}

/// What follows from a client's message.
#[derive(Debug)]
pub enum Outcome {
    /// Send this, and give the client's answer to the authenticator.
    Challenge {
        /// The message to send.
        message: Vec<u8>,
        /// What takes the answer.
        next: Authenticator,
    },
    /// The client is who it says it is.
    Done {
        /// The user.
        user: Arc<str>,
        /// The server's own proof, to be sent with the good news; empty for PLAIN.
        server_final: Vec<u8>,
    },
    /// The client stays outside.
    Refused(Refusal),
}

/// Why a client was refused, for the log. The peer gets [`Refusal::PEER_TEXT`] whatever the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such user, or not this password. Which of the two is not even told to the log: users type passwords
    /// into the field for the name.
    #[error("the name or the password of user {user:?} is wrong")]
    Credentials {
        /// The user that the client named.
        user: Arc<str>,
    },
    /// The built-in user, from another machine.
    #[error(
        "user {user:?} may log in from this machine only; configure a user of its own for other machines"
    )]
    LoopbackOnly {
        /// The user that the client named.
        user: Arc<str>,
    },
    /// A message that is not one of the mechanism.
    #[error(transparent)]
    Malformed(#[from] SaslError),
}

impl Refusal {
    /// All that a refused peer is told; more would help to guess.
    pub const PEER_TEXT: &str = "authentication failed";

    /// The user that the client tried to be, for the [`Throttle`](super::Throttle); none if it could not be read.
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::Credentials { user } | Self::LoopbackOnly { user } => Some(user),
            Self::Malformed(_) => None,
        }
    }
}

impl Authenticator {
    /// Takes the client's first message. `peer` is the address that the client connects from, and `nonce` a
    /// fresh one of [`nonce`](super::nonce).
    ///
    /// For PLAIN this hashes the password, which blocks for a millisecond and more.
    pub fn begin(
        users: &Users,
        mechanism: Mechanism,
        peer: SocketAddr,
        initial: &[u8],
        nonce: &str,
    ) -> Outcome {
        let outcome = match mechanism {
            Mechanism::Plain => plain(users, peer, initial),
            Mechanism::ScramSha256 => scram(users, peer, initial, nonce),
        };
        outcome.unwrap_or_else(Outcome::Refused)
    }

    /// Takes the client's answer to the challenge. Cheap: the client has done the hashing.
    pub fn step(self, response: &[u8]) -> Outcome {
        match (self.exchange.finish(response), self.user) {
            (Ok(server_final), Ok(user)) => Outcome::Done { user, server_final },
            (Err(SaslError::WrongProof), Ok(user)) => Outcome::Refused(Refusal::Credentials { user }),
            // A user who may not log in has a verifier that no proof fits; should one fit, it counts for nothing.
            (Ok(_) | Err(SaslError::WrongProof), Err(refusal)) => Outcome::Refused(refusal),
            (Err(error), _) => Outcome::Refused(Refusal::Malformed(error)),
        }
    }
}

fn plain(users: &Users, peer: SocketAddr, initial: &[u8]) -> Result<Outcome, Refusal> {
    let credentials = PlainCredentials::decode(initial)?;
    let user = users.check_plain(&credentials, peer)?;
    Ok(Outcome::Done { user, server_final: Vec::new() })
}

fn scram(users: &Users, peer: SocketAddr, initial: &[u8], nonce: &str) -> Result<Outcome, Refusal> {
    let server = ScramServer::new(nonce, initial)?;
    let account = users.account(server.user(), peer);
    let (exchange, message) = server.challenge(account.verifier);
    let user = account.user.map(|user| user.name.clone());
    Ok(Outcome::Challenge { message, next: Authenticator { exchange, user } })
}
