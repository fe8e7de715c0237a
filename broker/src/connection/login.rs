//! Who is let in, whatever the protocol: hashing off the runtime, the brake on guessing, and a refusal that arrives.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use leveret_protocol::OpeningError;
use leveret_protocol::amqp::ProtocolHeaderError;
use leveret_protocol::sasl::Mechanism;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Context, Violation};
use crate::auth::{self, Authenticator, Outcome, Refusal};

/// Why a client was not let in.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("it went away: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Opening(#[from] OpeningError),
    #[error(transparent)]
    ProtocolHeader(#[from] ProtocolHeaderError),
    #[error(transparent)]
    Authentication(#[from] Refusal),
    #[error(transparent)]
    Violation(#[from] Violation),
}

/// What a client's message comes to, once its turn to be answered has come.
pub(super) enum Verdict {
    /// Send this, and give the answer to [`Authenticator::step`].
    Challenge { message: Vec<u8>, next: Authenticator },
    /// It is who it says it is; `server_final` is the broker's own proof.
    Accepted { user: Arc<str>, server_final: Vec<u8> },
}

/// How much a client that was refused may still send before the socket is closed on it, in bytes. Closing on unread
/// bytes would reset the connection, and the refusal might never be read.
const LINGER_BYTES_MAX: usize = 64 * 1024;
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// Takes a client's first message of a mechanism.
pub(super) async fn begin(
    context: &Context,
    peer: SocketAddr,
    mechanism: Mechanism,
    initial: Vec<u8>,
) -> Result<Verdict, Refused> {
    let nonce = auth::nonce()?;
    let users = Arc::clone(&context.users);
    let begin = move || Authenticator::begin(&users, mechanism, peer, &initial, &nonce);
    if mechanism != Mechanism::Plain {
        return judge(context, peer, begin()).await;
    }
    // PLAIN hashes the password, which takes a processor for a while: not on the runtime's threads, and not for
    // everybody at once.
    let permit = context.hashing.acquire().await;
    let outcome = tokio::task::spawn_blocking(begin).await.map_err(std::io::Error::other)?;
    drop(permit);
    judge(context, peer, outcome).await
}

/// Waits for as long as guesses have made it necessary.
pub(super) async fn judge(context: &Context, peer: SocketAddr, outcome: Outcome) -> Result<Verdict, Refused> {
    match outcome {
        Outcome::Challenge { message, next } => Ok(Verdict::Challenge { message, next }),
        Outcome::Done { user, server_final } => {
            let now_ms = context.clock.now_ms();
            let wait_ms = context.throttle.lock().succeeded(peer.ip(), &user, now_ms);
            let wait_ms = wait_ms.ok_or_else(|| Refusal::Credentials { user: Arc::clone(&user) })?;
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            Ok(Verdict::Accepted { user, server_final })
        }
        Outcome::Refused(refusal) => {
            if let Some(user) = refusal.user() {
                let now_ms = context.clock.now_ms();
                let wait_ms = context.throttle.lock().failed(peer.ip(), user, now_ms);
                tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            }
            Err(refusal.into())
        }
    }
}

/// Reads what a refused client still sends, for a moment and up to a limit.
pub(super) async fn linger(socket: &mut TcpStream) {
    let read_all = async {
        let mut sink = [0; 4096];
        let mut read = 0;
        let _ = socket.shutdown().await;
        while let Ok(bytes @ 1..) = socket.read(&mut sink).await {
            read += bytes;
            if read > LINGER_BYTES_MAX {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(LINGER_TIMEOUT, read_all).await;
}
