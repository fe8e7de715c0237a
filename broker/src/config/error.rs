use std::fmt;
use std::io;
use std::path::PathBuf;

use super::check::Conflict;

/// Where a setting was written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// A line of the configuration file, counted from 1.
    File {
        /// The file, as it was named.
        path: PathBuf,
        /// The line.
        line: usize,
    },
    /// An environment variable.
    Variable(String),
    /// A flag, with its dashes.
    Flag(String),
    /// Nowhere: the default.
    Default,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Default => f.write_str("the defaults"),
        }
    }
}

/// Why a configuration was refused. No variant holds a password, so all of them can be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{place}: {reason}")]
    Syntax {
        /// The line.
        place: Place,
        /// What the reader of TOML says.
        reason: String,
    },
    /// The file sets something that does not exist.
    #[error("{place}: there is no setting {key}; {hint}")]
    Unknown {
        /// The line.
        place: Place,
        /// What it sets, with its table.
        key: String,
        /// What was probably meant.
        hint: String,
    },
    /// A value that is not of the setting's kind.
    #[error("{place}: {key}: {reason}")]
    Value {
        /// Where it stands.
        place: Place,
        /// The setting.
        key: &'static str,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A value that the rest of the configuration rules out.
    #[error("{place}: {conflict}")]
    Conflict {
        /// Where the setting was written that is to blame.
        place: Place,
        /// What is wrong and what would be right.
        conflict: Conflict,
    },
}
