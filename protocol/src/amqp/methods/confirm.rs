//! Class 85, RabbitMQ's: publisher confirms.

use super::methods;

methods! {
    /// Methods on confirms.
    85 "confirm" Confirm;

    /// Turns confirms on for the channel.
    10 "select" Select {
        /// Whether no answer is wanted.
        nowait: bool,
    }

    /// They are on.
    11 "select-ok" SelectOk {}
}
