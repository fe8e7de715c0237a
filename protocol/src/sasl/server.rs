use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::text::{check_nonce, check_own_nonce, decode_key, encode_base64, message_text, unescape_user};
use super::verifier::{hash, sign, xor};
use super::{SaslError, Verifier};

/// The server's end of SCRAM-SHA-256, which has read the client's first message and waits for the verifier of
/// the user that it names.
#[derive(Debug)]
pub struct ScramServer {
    user: String,
    header: &'static str,
    first_bare: String,
    nonce: String,
}

impl ScramServer {
    /// Reads the client's first message. The nonce must be fresh and unpredictable: 16 to 128 printable ASCII
    /// characters without a comma, such as the base64 of 18 random bytes.
    pub fn new(nonce: &str, client_first: &[u8]) -> Result<Self, SaslError> {
        check_own_nonce(nonce)?;
        let form = || SaslError::Form { what: "client-first message", form: "n,,n=<user>,r=<nonce>" };
        let text = message_text(client_first)?;
        let (header, rest) = match (text.strip_prefix("n,"), text.strip_prefix("y,")) {
            (Some(rest), _) => ("n,,", rest),
            // The client could bind to the channel and believes that we cannot. It is right.
            (_, Some(rest)) => ("y,,", rest),
            _ if text.starts_with("p=") => return Err(SaslError::ChannelBinding),
            _ => return Err(form()),
        };
        let (identity, first_bare) = rest.split_once(',').ok_or_else(form)?;
        if !identity.is_empty() {
            return Err(SaslError::AuthorizationIdentity);
        }
        if first_bare.starts_with("m=") {
            return Err(SaslError::MandatoryExtension);
        }
        let mut fields = first_bare.split(',');
        let mut field = |name| fields.next().and_then(|field| field.strip_prefix(name)).ok_or_else(form);
        let (user, client_nonce) = (unescape_user(field("n=")?)?, field("r=")?);
        check_nonce(client_nonce)?;
        let nonce = format!("{client_nonce}{nonce}");
        Ok(Self { user, header, first_bare: first_bare.to_owned(), nonce })
    }

    /// The user that the client claims to be, whose verifier [`challenge`](Self::challenge) needs.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Returns the message that asks the client for its proof. For an unknown user the caller makes up a
    /// verifier that stays the same for that name; otherwise this message would tell who exists.
    pub fn challenge(self, verifier: Verifier) -> (ScramServerChallenged, Vec<u8>) {
        let salt = encode_base64(&verifier.salt);
        let server_first = format!("r={},s={salt},i={}", self.nonce, verifier.iterations);
        let message = server_first.clone().into_bytes();
        let exchange = format!("{},{server_first}", self.first_bare);
        (ScramServerChallenged { header: self.header, nonce: self.nonce, exchange, verifier }, message)
    }
}

/// The server's end after its challenge, waiting for the client's proof.
#[derive(Debug)]
pub struct ScramServerChallenged {
    header: &'static str,
    nonce: String,
    exchange: String,
    verifier: Verifier,
}

impl ScramServerChallenged {
    /// Checks the client's last message, and returns the server's proof to send. The form is checked before
    /// the proof, so only [`SaslError::WrongProof`] depends on the verifier.
    pub fn finish(self, client_final: &[u8]) -> Result<Vec<u8>, SaslError> {
        let form = || SaslError::Form {
            what: "client-final message",
            form: "c=<channel binding>,r=<nonce>,p=<proof>",
        };
        let text = message_text(client_final)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or_else(form)?;
        let mut fields = without_proof.split(',');
        let mut field = |name| fields.next().and_then(|field| field.strip_prefix(name)).ok_or_else(form);
        let (binding, nonce) = (field("c=")?, field("r=")?);
        if binding != encode_base64(self.header) {
            return Err(SaslError::ChannelBinding);
        }
        if nonce != self.nonce {
            return Err(SaslError::NonceMismatch);
        }
        let proof = decode_key("proof", proof)?;

        let exchange = format!("{},{without_proof}", self.exchange);
        let signature = sign(&self.verifier.stored_key, exchange.as_bytes());
        let client_key = Zeroizing::new(xor(&proof, &signature));
        if !bool::from(hash(&client_key).ct_eq(&self.verifier.stored_key)) {
            return Err(SaslError::WrongProof);
        }
        let signature = sign(&self.verifier.server_key, exchange.as_bytes());
        Ok(format!("v={}", encode_base64(signature)).into_bytes())
    }
}
