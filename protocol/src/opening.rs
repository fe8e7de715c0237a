//! The first eight bytes of a connection, in both directions.

/// `LVRT`, then the major and the minor version, then two zeros.
pub const OPENING_BYTES: usize = 8;

/// The version of the protocol that this crate speaks: (major, minor).
///
/// Peers with the same major version talk, whatever their minor versions are.
///
/// 1.1 added [`PublishingPaused`](crate::PublishingPaused), [`PublishingResumed`](crate::PublishingResumed) and the reply
/// code 507.
pub const VERSION: (u8, u8) = (1, 1);

const MAGIC: &[u8; 4] = b"LVRT";

/// What this side sends first.
pub fn opening() -> [u8; OPENING_BYTES] {
    let [l, v, r, t] = *MAGIC;
    [l, v, r, t, VERSION.0, VERSION.1, 0, 0]
}

/// Why a connection does not begin as this protocol does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpeningError {
    /// Another protocol.
    #[error("this port speaks the Leveret protocol, which opens with {:?}, and got \"{}\"{}", "LVRT", got.escape_ascii(), hint(*.got))]
    OtherProtocol {
        /// The first eight bytes that came.
        got: [u8; OPENING_BYTES],
    },
    /// A version of the protocol that this side does not speak.
    #[error("this side speaks version {}.{} of the Leveret protocol, and the peer asks for {major}.{minor}", VERSION.0, VERSION.1)]
    OtherVersion {
        /// The peer's major version.
        major: u8,
        /// The peer's minor version.
        minor: u8,
    },
}

fn hint(got: [u8; OPENING_BYTES]) -> &'static str {
    match &got {
        [b'A', b'M', b'Q', b'P', ..] => "; AMQP 0-9-1 has a listener of its own",
        _ if is_http(got) => "; HTTP is not spoken here",
        [0x16, 0x03, ..] => "; this looks like TLS, and the port is plain TCP",
        _ => "",
    }
}

/// Checks the peer's opening; gives its minor version.
pub fn check_opening(got: [u8; OPENING_BYTES]) -> Result<u8, OpeningError> {
    let [l, v, r, t, major, minor, ..] = got;
    if [l, v, r, t] != *MAGIC {
        return Err(OpeningError::OtherProtocol { got });
    }
    if major != VERSION.0 {
        return Err(OpeningError::OtherVersion { major, minor });
    }
    Ok(minor)
}

/// Whether the peer speaks HTTP, so that a refusal can be one that its user sees.
pub fn is_http(got: [u8; OPENING_BYTES]) -> bool {
    matches!(
        &got,
        [b'G', b'E', b'T', b' ', ..]
            | [b'P', b'O', b'S', b'T', ..]
            | [b'P', b'U', b'T', b' ', ..]
            | [b'H', b'E', b'A', b'D', ..]
            | [b'O', b'P', b'T', b'I', ..]
            | [b'D', b'E', b'L', b'E', ..]
            | [b'P', b'A', b'T', b'C', ..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openings_are_told_apart() {
        assert_eq!(check_opening(opening()), Ok(1));
        assert_eq!(check_opening(*b"LVRT\x01\0\0\0"), Ok(0), "and so is an older one");
        assert_eq!(check_opening(*b"LVRT\x01\x07\0\0"), Ok(7), "a newer minor version is welcome");
        let error = check_opening(*b"LVRT\x02\0\0\0").unwrap_err();
        assert!(error.to_string().contains("2.0"), "{error}");
        let error = check_opening(*b"AMQP\0\0\x09\x01").unwrap_err();
        assert!(error.to_string().contains("listener of its own"), "{error}");
        assert!(is_http(*b"GET / HT"));
        let text = check_opening(*b"DELETE /").unwrap_err().to_string();
        assert!(text.contains("got \"DELETE /\"; HTTP is not spoken here"), "{text}");
        let text = check_opening(*b"\x16\x03\x01\x02\0\n\x01\0").unwrap_err().to_string();
        assert!(text.contains("TLS") && !text.contains('\n'), "one line, whatever came: {text}");
    }
}
