use super::{ITERATIONS_MAX, ITERATIONS_MIN, MESSAGE_BYTES_MAX, PASSWORD_BYTES_MAX, SALT_BYTES};
use crate::NameError;

/// Why an authentication did not succeed.
///
/// No variant holds anything secret, so all of them may be logged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SaslError {
    /// More than [`MESSAGE_BYTES_MAX`] bytes.
    #[error("an authentication message has at most {MESSAGE_BYTES_MAX} bytes, and this one has {0}")]
    TooLong(usize),
    /// Bytes that are not UTF-8.
    #[error("an authentication message is UTF-8, and this one is not")]
    NotUtf8,
    /// A message of another form.
    #[error("this is not a {what}, which has the form `{form}`")]
    Form {
        /// What was expected, as in "client-first message".
        what: &'static str,
        /// Its form.
        form: &'static str,
    },
    /// A field that is not the base64 of the right number of bytes.
    #[error("the {0} is not the base64 of as many bytes as it has")]
    Base64(&'static str),
    /// A user name that cannot be one.
    #[error(transparent)]
    User(#[from] NameError),
    /// A `=` in a user name that begins neither `=2C` nor `=3D` (RFC 5802, section 5.1).
    #[error("a user name writes `,` as `=2C` and `=` as `=3D`, and has no other `=`")]
    UserEscape,
    /// A password that cannot be one.
    #[error("a password has 1 to {PASSWORD_BYTES_MAX} bytes and no control characters")]
    Password,
    /// A nonce that cannot be one; the nonces of our own side have a minimum besides.
    #[error("a nonce is printable ASCII without a comma, and our own has 16 to 128 characters")]
    Nonce,
    /// The other end's nonce does not continue ours, as in a replayed exchange.
    #[error("the nonce is not the one of this exchange")]
    NonceMismatch,
    /// The client insists on channel binding, or its two messages disagree on it.
    #[error("channel binding is not offered: begin with `n,,` or `y,,`, and repeat it as it was")]
    ChannelBinding,
    /// The client wants to act as another user.
    #[error("acting as another user is not offered: leave the authorization identity empty")]
    AuthorizationIdentity,
    /// An extension that may not be ignored (`m=`).
    #[error("the mandatory extension `m=` is not supported")]
    MandatoryExtension,
    /// A number of iterations that protects too little, or that keeps the client busy for too long.
    #[error("an iteration count is {ITERATIONS_MIN} to {ITERATIONS_MAX}, and this one is {0}")]
    Iterations(u32),
    /// A verifier's salt that is too short or too long.
    #[error("a salt has {min} to {max} bytes, and this one has {0}", min = SALT_BYTES.start(), max = SALT_BYTES.end())]
    Salt(usize),
    /// The client's proof does not fit the verifier: the password or the user is wrong.
    #[error("the proof of the password is wrong")]
    WrongProof,
    /// The server could not prove that it knows the user's verifier: it is not the server, or somebody sits
    /// in between.
    #[error("the server's signature is wrong: it does not know this user's password verifier")]
    WrongServerSignature,
    /// The server answered with an error (`e=`).
    #[error("the server refused the proof of the password")]
    RefusedByServer,
}
