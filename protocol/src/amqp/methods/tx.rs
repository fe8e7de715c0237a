//! Class 90: transactions.

use super::methods;

methods! {
    /// Methods on transactions.
    90 "tx" Tx;

    /// Makes the channel transactional.
    10 "select" Select {}

    /// It is.
    11 "select-ok" SelectOk {}

    /// Does what was gathered.
    20 "commit" Commit {}

    /// It is done.
    21 "commit-ok" CommitOk {}

    /// Forgets what was gathered.
    30 "rollback" Rollback {}

    /// It is forgotten.
    31 "rollback-ok" RollbackOk {}
}
