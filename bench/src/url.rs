//! Where a broker is, and who asks.

use anyhow::{Context, ensure};

/// A parsed `amqp://user:password@host:port/vhost`, or the same with `leveret://`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    /// Host and port.
    pub(crate) address: String,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) vhost: String,
}

impl Url {
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let (scheme, rest) = text.split_once("://").with_context(|| format!("{text} is no URL"))?;
        let port = match scheme {
            "amqp" => "5672",
            "leveret" => "7672",
            other => anyhow::bail!("{other}:// is not known: amqp:// and leveret:// are"),
        };
        let (authority, vhost) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, host) = authority.rsplit_once('@').unwrap_or(("guest:guest", authority));
        let (user, password) = user.split_once(':').unwrap_or((user, ""));
        ensure!(!host.is_empty(), "{text} names no host");
        let address = if host.contains(':') { host.to_owned() } else { format!("{host}:{port}") };
        let vhost = match vhost {
            "" => "/".to_owned(),
            vhost => vhost.replace("%2f", "/").replace("%2F", "/"),
        };
        Ok(Self { address, user: user.to_owned(), password: password.to_owned(), vhost })
    }

    /// The port.
    pub(crate) fn port(&self) -> Option<u16> {
        self.address.rsplit_once(':')?.1.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let url = Url::parse("amqp://me:secret@broker:5673/%2f").unwrap();
        let expected = ("broker:5673", "me", "secret", "/");
        assert_eq!((&*url.address, &*url.user, &*url.password, &*url.vhost), expected);
        let url = Url::parse("leveret://127.0.0.1:1/work").unwrap();
        assert_eq!((&*url.user, &*url.vhost, url.port()), ("guest", "work", Some(1)));
        assert_eq!(Url::parse("amqp://localhost").unwrap().address, "localhost:5672");
        for bad in ["localhost:5672", "http://localhost", "amqp:///x"] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
    }
}
