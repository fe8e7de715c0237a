//! Refusals in the form that RabbitMQ's clients know: `NOT_FOUND - no queue 'q' in vhost '/'`.

use crate::codes::ReplyCode;
use crate::name::{NAME_BYTES_MAX, floor_char_boundary};

/// What a text ends with that had to be cut.
const CUT: &str = "...";

/// The name that AMQP has for a reply code.
pub fn reply_name(code: ReplyCode) -> &'static str {
    match code {
        ReplyCode::Ok => "OK",
        ReplyCode::ContentTooLarge => "CONTENT_TOO_LARGE",
        ReplyCode::NoRoute => "NO_ROUTE",
        ReplyCode::ConnectionForced => "CONNECTION_FORCED",
        ReplyCode::InvalidPath => "INVALID_PATH",
        ReplyCode::AccessRefused => "ACCESS_REFUSED",
        ReplyCode::NotFound => "NOT_FOUND",
        ReplyCode::ResourceLocked => "RESOURCE_LOCKED",
        ReplyCode::PreconditionFailed => "PRECONDITION_FAILED",
        ReplyCode::FrameError => "FRAME_ERROR",
        ReplyCode::SyntaxError => "SYNTAX_ERROR",
        ReplyCode::CommandInvalid => "COMMAND_INVALID",
        ReplyCode::ChannelError => "CHANNEL_ERROR",
        ReplyCode::UnexpectedFrame => "UNEXPECTED_FRAME",
        ReplyCode::ResourceError | ReplyCode::PublishingPaused => "RESOURCE_ERROR",
        ReplyCode::NotAllowed => "NOT_ALLOWED",
        ReplyCode::NotImplemented => "NOT_IMPLEMENTED",
        ReplyCode::InternalError | ReplyCode::Other(_) => "INTERNAL_ERROR",
    }
}

/// The text of a close: the name, a dash and the explanation, cut to the 255 bytes of a short string.
pub fn reply_text(code: ReplyCode, explanation: &str) -> String {
    let mut text = format!("{} - {explanation}", reply_name(code));
    if text.len() > NAME_BYTES_MAX {
        text.truncate(floor_char_boundary(&text, NAME_BYTES_MAX - CUT.len()));
        text.push_str(CUT);
    }
    text
}
