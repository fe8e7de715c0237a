use zeroize::Zeroizing;

use super::text::{check_password, check_user_name, message_text};
use super::{SaslError, Secret};

/// What a PLAIN message says (RFC 4616): `[authorization identity] NUL user NUL password`.
#[derive(Debug)]
pub struct PlainCredentials {
    /// The user that the client claims to be.
    pub user: String,
    /// The password, as it was sent.
    pub password: Secret,
}

impl PlainCredentials {
    /// Reads the client's only message. An authorization identity is accepted only if it is the user itself,
    /// which is what some clients send.
    pub fn decode(message: &[u8]) -> Result<Self, SaslError> {
        let form = SaslError::Form { what: "PLAIN message", form: "NUL user NUL password" };
        let mut parts = message_text(message)?.split('\0');
        let (Some(identity), Some(user), Some(password), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(form);
        };
        if !identity.is_empty() && identity != user {
            return Err(SaslError::AuthorizationIdentity);
        }
        check_user_name(user)?;
        let password = Secret::from(password);
        check_password(&password)?;
        Ok(Self { user: user.to_owned(), password })
    }
}

/// The client's only message.
pub fn encode_plain(user: &str, password: &Secret) -> Result<Zeroizing<Vec<u8>>, SaslError> {
    check_user_name(user)?;
    check_password(password)?;
    let password = password.expose();
    // Reserved in one piece: a buffer that grows leaves copies of the password behind.
    let mut message = Zeroizing::new(Vec::with_capacity(user.len() + password.len() + 2));
    message.push(0);
    message.extend_from_slice(user.as_bytes());
    message.push(0);
    message.extend_from_slice(password.as_bytes());
    Ok(message)
}
