//! `leveret://user:password@host:port/vhost`.

use std::fmt;

use leveret_protocol::sasl::Secret;
use leveret_protocol::{NameError, VhostName};

/// The port that a URL without one means.
pub const PORT_DEFAULT: u16 = 7672;

/// The user, and the password, that a URL without them means. A broker lets this user in only from its own host.
const USER_DEFAULT: &str = "guest";

/// Why a URL is not one of a broker. Nothing here repeats the URL, since it holds a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UriError {
    /// It does not begin with `leveret://`.
    #[error(
        "a broker's URL is `leveret://user:password@host:port/vhost`, and this one does not begin with `leveret://`"
    )]
    Scheme,
    /// The AMQP scheme, which this client does not speak.
    #[error("`amqp://` is the URL of an AMQP client; this client's begin with `leveret://`")]
    Amqp,
    /// No host.
    #[error("the URL names no host")]
    NoHost,
    /// A port that is not 1 to 65535.
    #[error("the URL's port is not a number from 1 to 65535")]
    Port,
    /// A `%` without two hexadecimal digits, or bytes that are not UTF-8.
    #[error("the URL's {part} has a `%` that is not followed by two hexadecimal digits of UTF-8")]
    PercentEncoding {
        /// `user`, `password`, `host` or `vhost`.
        part: &'static str,
    },
    /// A further `/`, `?` or `#`, which would have to be percent-encoded.
    #[error("the URL's {part} has a `{found}`, which is written as `%{:02X}`", u32::from(*.found))]
    Reserved {
        /// `vhost` or `host`.
        part: &'static str,
        /// The character.
        found: char,
    },
    /// A vhost that cannot be one.
    #[error(transparent)]
    Vhost(#[from] NameError),
}

/// Where to connect, and as whom.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: Secret,
    pub(crate) vhost: VhostName,
}

impl Target {
    pub(crate) fn parse(uri: &str) -> Result<Self, UriError> {
        let rest = match uri.split_once("://") {
            Some(("leveret", rest)) => rest,
            Some(("amqp" | "amqps", _)) => return Err(UriError::Amqp),
            _ => return Err(UriError::Scheme),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // The last `@`, since people forget to encode the ones in their passwords.
        let (login, address) = match authority.rsplit_once('@') {
            Some((login, address)) => (Some(login), address),
            None => (None, authority),
        };
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
            Some((user, password)) => (decode("user", user)?, decode("password", password)?),
            None => (USER_DEFAULT.to_owned(), USER_DEFAULT.to_owned()),
        };
        let (host, port) = parse_address(address)?;
        if let Some(found) = path.chars().find(|character| matches!(character, '/' | '?' | '#')) {
            return Err(UriError::Reserved { part: "vhost", found });
        }
        let vhost = if path.is_empty() { "/".to_owned() } else { decode("vhost", path)? };
        Ok(Self { host, port, user, password: Secret::from(password), vhost: VhostName::new(vhost)? })
    }

    /// Host and port, for people.
    pub(crate) fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "leveret://{}@{}/{}", self.user, self.address(), self.vhost)
    }
}

fn parse_address(address: &str) -> Result<(String, u16), UriError> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or(UriError::NoHost)?;
            match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => return Err(UriError::Port),
            }
        }
        None => match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    if host.is_empty() {
        return Err(UriError::NoHost);
    }
    if let Some(found) = host.chars().find(|character| matches!(character, '?' | '#')) {
        return Err(UriError::Reserved { part: "host", found });
    }
    let port = match port {
        None => PORT_DEFAULT,
        Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or(UriError::Port)?,
    };
    Ok((decode("host", host)?, port))
}

fn decode(part: &'static str, text: &str) -> Result<String, UriError> {
    let invalid = UriError::PercentEncoding { part };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2).ok_or(invalid.clone())?;
        let digit = |at: usize| digits.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(0), digit(1)) else { return Err(invalid) };
        bytes.push((high * 16 + low) as u8);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(uri: &str) -> Result<String, UriError> {
        Target::parse(uri).map(|target| {
            let Target { host, port, user, password, vhost } = target;
            format!("{user}|{}|{host}|{port}|{vhost}", password.expose())
        })
    }

    #[test]
    fn urls_mean_what_they_say() {
        let cases = [
            ("leveret://localhost", "guest|guest|localhost|7672|/"),
            ("leveret://localhost/", "guest|guest|localhost|7672|/"),
            ("leveret://app:secret@broker:9000/shop", "app|secret|broker|9000|shop"),
            ("leveret://app:p%40ss%2Fw%C3%B6rd@h/%2F", "app|p@ss/wörd|h|7672|/"),
            ("leveret://app:p@ss@h", "app|p@ss|h|7672|/"),
            ("leveret://app@[::1]:7000/a%20b", "app||::1|7000|a b"),
        ];
        for (uri, expected) in cases {
            assert_eq!(parts(uri).as_deref(), Ok(expected), "{uri}");
        }
    }

    #[test]
    fn wrong_urls_are_refused_with_the_reason() {
        let cases = [
            ("localhost:7672", UriError::Scheme),
            ("amqp://localhost", UriError::Amqp),
            ("leveret://", UriError::NoHost),
            ("leveret://app:secret@/shop", UriError::NoHost),
            ("leveret://h:0", UriError::Port),
            ("leveret://h:70000", UriError::Port),
            ("leveret://[::1]7672", UriError::Port),
            ("leveret://a%4:b@h", UriError::PercentEncoding { part: "user" }),
            ("leveret://h/%FF", UriError::PercentEncoding { part: "vhost" }),
            ("leveret://h/a/b", UriError::Reserved { part: "vhost", found: '/' }),
            ("leveret://h/a?heartbeat=5", UriError::Reserved { part: "vhost", found: '?' }),
        ];
        for (uri, expected) in cases {
            assert_eq!(parts(uri), Err(expected), "{uri}");
        }
    }

    #[test]
    fn a_target_never_shows_its_password() {
        let target = Target::parse("leveret://app:hush@h/shop").unwrap();
        assert_eq!(format!("{target:?}"), "leveret://app@h:7672/shop");
    }
}
