//! Names that have been checked once, at the edge, and need no check again.
//!
//! An AMQP "short string" holds at most 255 bytes, and both protocols of the broker carry names in a one-byte
//! length, so that is the limit here too. Control characters are refused: a name ends up in logs, in metrics
//! and on an operator's terminal.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest name, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 255;

/// Why a string is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// More than [`NAME_BYTES_MAX`] bytes.
    #[error("a {what} has at most {NAME_BYTES_MAX} bytes, and this one has {length}")]
    TooLong {
        /// The kind of name, as in "queue name".
        what: &'static str,
        /// Its length in bytes.
        length: usize,
    },
    /// A control character, such as a line break.
    #[error("a {what} has no control characters, and this one has {character:?} at byte {at}")]
    Control {
        /// The kind of name.
        what: &'static str,
        /// The character.
        character: char,
        /// Where it stands.
        at: usize,
    },
    /// A name that may not be empty.
    #[error("a {what} has at least one character")]
    Empty {
        /// The kind of name.
        what: &'static str,
    },
}

/// Checks what all names have in common; `what` goes into the error.
pub fn check_name(what: &'static str, name: &str) -> Result<(), NameError> {
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong { what, length: name.len() });
    }
    match name.char_indices().find(|(_, character)| character.is_control()) {
        Some((at, character)) => Err(NameError::Control { what, character, at }),
        None => Ok(()),
    }
}

/// Where to cut `text` to at most `bytes_max` bytes without splitting a character.
pub(crate) fn floor_char_boundary(text: &str, bytes_max: usize) -> usize {
    if text.len() <= bytes_max {
        return text.len();
    }
    (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default()
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, empty: $empty:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks a string: at most [`NAME_BYTES_MAX`] bytes, no control characters.
            pub fn new(name: impl AsRef<str>) -> Result<Self, NameError> {
                let name = name.as_ref();
                check_name($what, name)?;
                if !$empty && name.is_empty() {
                    return Err(NameError::Empty { what: $what });
                }
                Ok(Self(Arc::from(name)))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Whether this is the empty name.
            pub fn is_empty(&self) -> bool {
                self.0.is_empty()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<&str> for $name {
            type Error = NameError;
            fn try_from(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = String::deserialize(deserializer)?;
                Self::new(name).map_err(serde::de::Error::custom)
            }
        }
    };
}

name! {
    /// An exchange's name. The empty one is the default exchange.
    ExchangeName, "exchange name", empty: true
}
name! {
    /// A queue's name. In a declaration the empty one asks the broker to choose.
    QueueName, "queue name", empty: true
}
name! {
    /// A routing key, or the key of a binding.
    RoutingKey, "routing key", empty: true
}
name! {
    /// A virtual host's name, such as `/`.
    VhostName, "vhost name", empty: false
}

impl Default for ExchangeName {
    fn default() -> Self {
        Self(Arc::from(""))
    }
}

impl Default for RoutingKey {
    fn default() -> Self {
        Self(Arc::from(""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_once() {
        let long = "q".repeat(NAME_BYTES_MAX + 1);
        let cases: [(&str, Result<(), NameError>); 5] = [
            ("orders", Ok(())),
            ("", Ok(())),
            ("köln.paid", Ok(())),
            ("two\nlines", Err(NameError::Control { what: "queue name", character: '\n', at: 3 })),
            (&long, Err(NameError::TooLong { what: "queue name", length: 256 })),
        ];
        for (name, expected) in cases {
            assert_eq!(QueueName::new(name).map(drop), expected, "{name:?}");
        }
        assert_eq!(VhostName::new(""), Err(NameError::Empty { what: "vhost name" }));
    }
}
