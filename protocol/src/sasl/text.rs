//! What the mechanisms' messages are made of.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{MESSAGE_BYTES_MAX, PASSWORD_BYTES_MAX, SaslError, Secret};
use crate::{NameError, check_name};

/// A message as text, if it is short enough to look at.
pub(super) fn message_text(message: &[u8]) -> Result<&str, SaslError> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(SaslError::TooLong(message.len()));
    }
    std::str::from_utf8(message).map_err(|_| SaslError::NotUtf8)
}

/// Checks a user name: 1 to [`NAME_BYTES_MAX`](crate::NAME_BYTES_MAX) bytes, no control characters.
pub fn check_user_name(user: &str) -> Result<(), SaslError> {
    if user.is_empty() {
        return Err(NameError::Empty { what: "user name" }.into());
    }
    Ok(check_name("user name", user)?)
}

pub(super) fn check_password(password: &Secret) -> Result<(), SaslError> {
    let text = password.expose();
    let fits = !text.is_empty() && text.len() <= PASSWORD_BYTES_MAX && !text.chars().any(char::is_control);
    if fits { Ok(()) } else { Err(SaslError::Password) }
}

/// Checks the nonce that our own side adds. The minimum catches a caller that passes an empty or a constant
/// one; an exchange without a fresh nonce could be replayed.
pub(super) fn check_own_nonce(nonce: &str) -> Result<(), SaslError> {
    if !(16..=128).contains(&nonce.len()) {
        return Err(SaslError::Nonce);
    }
    check_nonce(nonce)
}

/// Checks the form of a nonce (RFC 5802, section 7: printable without a comma).
pub(super) fn check_nonce(nonce: &str) -> Result<(), SaslError> {
    let printable = !nonce.is_empty() && nonce.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',');
    if printable { Ok(()) } else { Err(SaslError::Nonce) }
}

/// Writes a user name as a `saslname` (RFC 5802, section 5.1): a comma would end the field.
pub(super) fn escape_user(user: &str) -> String {
    user.replace('=', "=3D").replace(',', "=2C")
}

/// Reads a `saslname`.
pub(super) fn unescape_user(escaped: &str) -> Result<String, SaslError> {
    let mut parts = escaped.split('=');
    let mut user = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (character, rest) = if let Some(rest) = part.strip_prefix("2C") {
            (',', rest)
        } else if let Some(rest) = part.strip_prefix("3D") {
            ('=', rest)
        } else {
            return Err(SaslError::UserEscape);
        };
        user.push(character);
        user.push_str(rest);
    }
    check_user_name(&user)?;
    Ok(user)
}

pub(super) fn encode_base64(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

pub(super) fn decode_base64(what: &'static str, text: &str) -> Result<Vec<u8>, SaslError> {
    STANDARD.decode(text).map_err(|_| SaslError::Base64(what))
}

pub(super) fn decode_key<const N: usize>(what: &'static str, text: &str) -> Result<[u8; N], SaslError> {
    decode_base64(what, text)?.try_into().map_err(|_| SaslError::Base64(what))
}
