//! 1 · Sockets: accept, within limits.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use crate::connection::{self, Context, Dialect};
use crate::queue::ConnectionId;

/// How many clients there may be.
#[derive(Debug, Clone, Copy)]
pub struct ListenerLimits {
    /// All clients together.
    pub connections_max: usize,
    /// Those that have not been let in yet.
    pub connections_unauthenticated_max: usize,
}

/// Accepts clients on any number of sockets; the limits are for all of them together.
pub struct Listener {
    context: Arc<Context>,
    next_connection: AtomicU64,
    connections: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    tasks: TaskTracker,
}

/// After an accept that failed (no more file descriptors, say): trying again at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Listener {
    /// A listener whose connections are among `tasks`.
    pub fn new(context: Arc<Context>, limits: ListenerLimits, tasks: TaskTracker) -> Arc<Self> {
        Arc::new(Self {
            context,
            next_connection: AtomicU64::new(1),
            connections: Arc::new(Semaphore::new(limits.connections_max)),
            strangers: Arc::new(Semaphore::new(limits.connections_unauthenticated_max)),
            tasks,
        })
    }

    /// Accepts on all sockets until the broker stops.
    ///
    /// One after the other, because who waits for a client already has a place for it: were each socket to wait by
    /// itself, the last place might be kept on one where nobody comes.
    pub async fn run(self: Arc<Self>, sockets: Vec<(TcpListener, Dialect)>) {
        let mut next = 0;
        loop {
            // Over a limit nobody is accepted: the backlog of the kernel is where newcomers wait.
            let permits = tokio::select! {
                permits = self.permits() => permits,
                () = self.context.stopping.cancelled() => return,
            };
            let Some((connection, stranger)) = permits else { return };
            let accepted = tokio::select! {
                accepted = accept(&sockets, next) => accepted,
                () = self.context.stopping.cancelled() => return,
            };
            next = next.wrapping_add(1);
            match accepted {
                (Ok((socket, peer)), dialect) => self.attend(dialect, (socket, peer), connection, stranger),
                (Err(error), _) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn permits(&self) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let connection = Arc::clone(&self.connections).acquire_owned().await.ok()?;
        let stranger = Arc::clone(&self.strangers).acquire_owned().await.ok()?;
        Some((connection, stranger))
    }

    fn attend(
        &self,
        dialect: Dialect,
        (socket, peer): (TcpStream, SocketAddr),
        connection: OwnedSemaphorePermit,
        stranger: OwnedSemaphorePermit,
    ) {
        let id = ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed));
        let context = Arc::clone(&self.context);
        self.tasks.spawn(async move {
            connection::serve(dialect, socket, peer, id, context, move || drop(stranger)).await;
            drop(connection);
        });
    }
}

/// The next client of any socket. All are looked at, another one first each time, so that none is passed over.
async fn accept(
    sockets: &[(TcpListener, Dialect)],
    first: usize,
) -> (io::Result<(TcpStream, SocketAddr)>, Dialect) {
    let count = sockets.len();
    poll_fn(|context| {
        for (socket, dialect) in sockets.iter().cycle().skip(first % count.max(1)).take(count) {
            if let Poll::Ready(accepted) = socket.poll_accept(context) {
                return Poll::Ready((accepted, *dialect));
            }
        }
        Poll::Pending
    })
    .await
}
