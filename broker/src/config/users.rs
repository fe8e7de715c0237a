//! Users as they were written: tables with `name` and `password` or `verifier`, or `name:password`.
//!
//! No message here repeats what was written for a password or a verifier.

use leveret_protocol::sasl::{Secret, Verifier, check_user_name, encode_plain};

use super::value::{Data, Kind, Value, Wrong};
use crate::auth::Credential;

/// What a verifier begins with, as in PostgreSQL; a password in a flag or variable cannot.
const VERIFIER_PREFIX: &str = "SCRAM-SHA-256$";

const RIGHT: &str = "a user is name:password, or name:SCRAM-SHA-256$... with a verifier";

/// Names with their credentials.
pub(super) struct UserList;

impl Kind for UserList {
    type Of = Vec<(String, Credential)>;
    const NAME: &'static str = "NAME:PASSWORD";
    /// A space, because generated passwords have every other character.
    const SEPARATOR: Option<char> = Some(' ');

    fn read(value: Value) -> Result<Self::Of, Wrong> {
        value.list().iter().map(user).collect()
    }

    fn show(users: &Self::Of) -> String {
        users.iter().map(|(name, _)| format!("{name}:...")).collect::<Vec<_>>().join(" ")
    }
}

fn user(value: &Value) -> Result<(String, Credential), Wrong> {
    match &value.data {
        Data::Text(text) => {
            let (name, secret) = text.split_once(':').ok_or_else(|| value.wrong(RIGHT))?;
            if secret.starts_with(VERIFIER_PREFIX) {
                with_verifier(value, name, secret)
            } else {
                with_password(value, name, secret)
            }
        }
        Data::Table(entries) => from_table(value, entries),
        other => Err(value.wrong(format!(
            "{} stands here; write [[users]] with a name and a password below it",
            other.name()
        ))),
    }
}

fn from_table(table: &Value, entries: &[(String, Value)]) -> Result<(String, Credential), Wrong> {
    let (mut name, mut password, mut verifier) = (None, None, None);
    for (key, value) in entries {
        let place = match key.as_str() {
            "name" => &mut name,
            "password" => &mut password,
            "verifier" => &mut verifier,
            _ => {
                return Err(
                    value.wrong(format!("a user has no {key}; it has a name, and a password or a verifier"))
                );
            }
        };
        *place = Some(value);
    }
    let name = name.ok_or_else(|| table.wrong("this user has no name; add name = \"...\""))?;
    match (password, verifier) {
        (Some(password), None) => with_password(password, name.text()?, password.text()?),
        (None, Some(verifier)) => with_verifier(verifier, name.text()?, verifier.text()?),
        (None, None) => Err(table.wrong("this user has neither a password nor a verifier; add one of them")),
        (Some(_), Some(_)) => {
            Err(table
                .wrong("this user has a password and a verifier, and needs one of them; remove the other"))
        }
    }
}

fn with_password(value: &Value, name: &str, password: &str) -> Result<(String, Credential), Wrong> {
    let password = Secret::from(password);
    // What a client could not send at its log-in must not be configured.
    encode_plain(name, &password).map_err(|error| value.wrong(error.to_string()))?;
    Ok((name.to_owned(), Credential::Password(password)))
}

fn with_verifier(value: &Value, name: &str, verifier: &str) -> Result<(String, Credential), Wrong> {
    check_user_name(name).map_err(|error| value.wrong(error.to_string()))?;
    let verifier = Verifier::parse(verifier).map_err(|error| value.wrong(error.to_string()))?;
    Ok((name.to_owned(), Credential::Verifier(verifier)))
}
