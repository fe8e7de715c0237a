//! Class 20: channels begin, pause and end.

use super::methods;

methods! {
    /// Methods of a channel itself.
    20 "channel" Channel<'a>;

    /// Opens the channel that the frame names.
    10 "open" Open {} [&str]

    /// It is open.
    11 "open-ok" OpenOk {} [&[u8]]

    /// Pauses or resumes the peer's content.
    20 "flow" Flow {
        /// Whether content may be sent.
        active: bool,
    }

    /// The peer pauses or goes on.
    21 "flow-ok" FlowOk {
        /// Whether content will be sent.
        active: bool,
    }

    /// Ends the channel, from either side.
    40 "close" Close<'a> {
        /// Why, as a number.
        reply_code: u16,
        /// Why, in words.
        reply_text: &'a str,
        /// The class of the method that failed, or 0.
        class_id: u16,
        /// The method that failed, or 0.
        method_id: u16,
    }

    /// The other side knows.
    41 "close-ok" CloseOk {}
}
