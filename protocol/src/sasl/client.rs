use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::text::{
    check_nonce, check_own_nonce, check_password, check_user_name, decode_base64, decode_key, encode_base64,
    escape_user, message_text,
};
use super::verifier::{Key, Keys, check_iterations, hash, sign, xor};
use super::{SaslError, Secret};

/// The client's end of SCRAM-SHA-256, waiting for the server's first message.
#[derive(Debug)]
pub struct ScramClient {
    password: Secret,
    nonce: String,
    first_bare: String,
}

impl ScramClient {
    /// Begins, and returns the first message to send. The nonce must be fresh and unpredictable: 16 to 128
    /// printable ASCII characters without a comma, such as the base64 of 18 random bytes.
    pub fn new(user: &str, password: Secret, nonce: &str) -> Result<(Self, Vec<u8>), SaslError> {
        check_user_name(user)?;
        check_password(&password)?;
        check_own_nonce(nonce)?;
        let first_bare = format!("n={},r={nonce}", escape_user(user));
        let first = format!("n,,{first_bare}").into_bytes();
        Ok((Self { password, nonce: nonce.to_owned(), first_bare }, first))
    }

    /// Answers the server's first message with the proof of the password, the last message to send.
    ///
    /// Expensive: the server chooses how often the password is hashed, up to
    /// [`ITERATIONS_MAX`](super::ITERATIONS_MAX) times, so an async caller runs this off its runtime's threads.
    pub fn respond(self, server_first: &[u8]) -> Result<(ScramClientProved, Vec<u8>), SaslError> {
        let text = message_text(server_first)?;
        let ServerFirst { nonce, salt, iterations } = ServerFirst::parse(text)?;
        check_nonce(nonce)?;
        // Equal is not enough: a server that adds nothing could be replaying an older exchange.
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(SaslError::NonceMismatch);
        }
        check_iterations(iterations)?;

        let without_proof = format!("c={},r={nonce}", encode_base64("n,,"));
        let exchange = format!("{},{text},{without_proof}", self.first_bare);
        let keys = Keys::derive(&self.password, &salt, iterations);
        let signature = sign(&hash(&keys.client), exchange.as_bytes());
        let proof = encode_base64(xor(&keys.client, &signature));
        let server_signature = Zeroizing::new(sign(&keys.server, exchange.as_bytes()));
        Ok((ScramClientProved { server_signature }, format!("{without_proof},p={proof}").into_bytes()))
    }
}

/// The client's end after its proof, waiting for the server's.
pub struct ScramClientProved {
    server_signature: Zeroizing<Key>,
}

impl ScramClientProved {
    /// Checks the server's last message. Only after this does the client know that it talks to a server that
    /// holds the user's verifier, so nothing may be sent before.
    pub fn verify(self, server_final: &[u8]) -> Result<(), SaslError> {
        let text = message_text(server_final)?;
        if text.starts_with("e=") {
            return Err(SaslError::RefusedByServer);
        }
        let signature = text
            .strip_prefix("v=")
            .and_then(|rest| rest.split(',').next())
            .ok_or(SaslError::Form { what: "server-final message", form: "v=<server signature>" })?;
        let signature: Key = decode_key("server signature", signature)?;
        if signature.ct_eq(&*self.server_signature).into() {
            Ok(())
        } else {
            Err(SaslError::WrongServerSignature)
        }
    }
}

impl fmt::Debug for ScramClientProved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramClientProved").finish_non_exhaustive()
    }
}

struct ServerFirst<'a> {
    nonce: &'a str,
    salt: Vec<u8>,
    iterations: u32,
}

impl<'a> ServerFirst<'a> {
    /// Extensions after the three fields are ignored, as RFC 5802 asks, except a mandatory one before them.
    fn parse(text: &'a str) -> Result<Self, SaslError> {
        let form =
            || SaslError::Form { what: "server-first message", form: "r=<nonce>,s=<salt>,i=<iterations>" };
        if text.starts_with("m=") {
            return Err(SaslError::MandatoryExtension);
        }
        let mut fields = text.split(',');
        let mut field = |name| fields.next().and_then(|field| field.strip_prefix(name)).ok_or_else(form);
        let (nonce, salt, iterations) = (field("r=")?, field("s=")?, field("i=")?);
        let salt = decode_base64("salt", salt)?;
        if salt.is_empty() {
            return Err(form());
        }
        Ok(Self { nonce, salt, iterations: iterations.parse().map_err(|_| form())? })
    }
}
