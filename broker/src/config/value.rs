//! Values as they were written, and the kinds of value that a setting can have.

use std::fmt::Display;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use leveret_protocol::VhostName;

use crate::logs::LogFilter;

/// A value as it was written. It has no `Debug`, because it may be a password.
pub(super) struct Value {
    /// Where it begins in the file, in bytes; 0 in flags and variables.
    pub(super) at: usize,
    pub(super) data: Data,
}

/// What was written. Flags and variables hold only texts and lists of texts.
pub(super) enum Data {
    Text(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<Value>),
    Table(Vec<(String, Value)>),
    /// Anything that no setting takes, with what TOML calls it.
    Other(&'static str),
}

/// Why a value was refused, and where in the file it begins.
pub(super) struct Wrong {
    pub(super) at: usize,
    pub(super) reason: String,
}

/// A kind of value: how it is read and how it is shown.
pub(super) trait Kind {
    type Of;
    /// What stands for a value in the help.
    const NAME: &'static str;
    /// What separates the values of a flag or variable that takes several.
    const SEPARATOR: Option<char> = None;
    fn read(value: Value) -> Result<Self::Of, Wrong>;
    /// Shows a value in the form that `read` takes.
    fn show(value: &Self::Of) -> String;
}

impl Value {
    pub(super) fn wrong(&self, reason: impl Into<String>) -> Wrong {
        Wrong { at: self.at, reason: reason.into() }
    }

    /// The text, or what is there instead. The message never repeats the value, which may be a password.
    pub(super) fn text(&self) -> Result<&str, Wrong> {
        match &self.data {
            Data::Text(text) => Ok(text),
            other => Err(self.wrong(format!("{} stands here; write a text in quotes", other.name()))),
        }
    }

    /// Reads the text with `parse`; `right` says in the message what a text should look like.
    fn parse<T>(&self, parse: impl FnOnce(&str) -> Option<T>, right: &str) -> Result<T, Wrong> {
        let text = match &self.data {
            Data::Text(text) => text.clone(),
            Data::Integer(number) => number.to_string(),
            Data::Boolean(truth) => truth.to_string(),
            other => return Err(self.wrong(format!("{} stands here; write {right}", other.name()))),
        };
        parse(&text).ok_or_else(|| match &self.data {
            Data::Text(text) => self.wrong(format!("{text:?} is not right; write {right}")),
            _ => self.wrong(format!("{text} is not right; write {right}")),
        })
    }

    /// The elements; a single value is a list of one.
    pub(super) fn list(self) -> Vec<Self> {
        match self.data {
            Data::List(values) => values,
            _ => vec![self],
        }
    }
}

impl Data {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Integer(_) => "a number",
            Self::Boolean(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(name) => name,
        }
    }
}

/// A whole number.
pub(super) struct Count<T>(PhantomData<T>);

impl<T: TryFrom<i64> + Display> Kind for Count<T> {
    type Of = T;
    const NAME: &'static str = "NUMBER";

    fn read(value: Value) -> Result<T, Wrong> {
        value.parse(
            |text| text.parse::<i64>().ok().and_then(|number| T::try_from(number).ok()),
            "a whole number, such as 256",
        )
    }

    fn show(value: &T) -> String {
        value.to_string()
    }
}

/// A number of bytes.
pub(super) struct Bytes;

impl Bytes {
    /// The largest first, so that `show` finds the shortest exact form.
    const BINARY: [(&str, u64); 5] =
        [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
    const DECIMAL: [(&str, u64); 4] =
        [("TB", 10_u64.pow(12)), ("GB", 10_u64.pow(9)), ("MB", 1_000_000), ("kB", 1_000)];

    fn parse(text: &str) -> Option<usize> {
        let text = text.trim();
        let unit_at = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at_checked(unit_at)?;
        let unit = if unit.is_empty() { "B" } else { unit.trim_start() };
        let (_, factor) = Self::BINARY.iter().chain(&Self::DECIMAL).find(|(name, _)| *name == unit)?;
        usize::try_from(number.parse::<u64>().ok()?.checked_mul(*factor)?).ok()
    }
}

impl Kind for Bytes {
    type Of = usize;
    const NAME: &'static str = "SIZE";

    fn read(value: Value) -> Result<usize, Wrong> {
        let right =
            "a whole number with B, KiB, MiB or GiB (or kB, MB, GB for powers of 1000), such as \"64 MiB\"";
        value.parse(Self::parse, right)
    }

    fn show(value: &usize) -> String {
        let value = *value as u64;
        let unit = Self::BINARY.iter().find(|(_, factor)| value > 0 && value.is_multiple_of(*factor));
        let (name, factor) = unit.unwrap_or(&("B", 1));
        format!("{} {name}", value / factor)
    }
}

/// A length of time.
pub(super) struct Time;

impl Kind for Time {
    type Of = Duration;
    const NAME: &'static str = "TIME";

    fn read(value: Value) -> Result<Duration, Wrong> {
        // A bare number, even 0, is refused: nobody would see whether it is seconds or milliseconds.
        let has_unit = |text: &str| text.contains(|character: char| character.is_ascii_alphabetic());
        value.parse(
            |text| {
                Some(text).filter(|text| has_unit(text)).and_then(|text| humantime::parse_duration(text).ok())
            },
            "a number with its unit, such as \"30 s\", \"500 ms\" or \"2 min\"",
        )
    }

    fn show(value: &Duration) -> String {
        humantime::format_duration(*value).to_string()
    }
}

/// Yes or no.
pub(super) struct Switch;

impl Kind for Switch {
    type Of = bool;
    const NAME: &'static str = "true|false";

    fn read(value: Value) -> Result<bool, Wrong> {
        value.parse(|text| text.parse().ok(), "true or false")
    }

    fn show(value: &bool) -> String {
        value.to_string()
    }
}

/// A folder.
pub(super) struct Folder;

impl Kind for Folder {
    type Of = PathBuf;
    const NAME: &'static str = "FOLDER";

    fn read(value: Value) -> Result<PathBuf, Wrong> {
        match value.text()? {
            "" => Err(value.wrong("the path is empty; write a folder, such as \"/var/lib/leveret\"")),
            path => Ok(PathBuf::from(path)),
        }
    }

    fn show(value: &PathBuf) -> String {
        value.display().to_string()
    }
}

/// Addresses to listen on, or `none`.
pub(super) struct Addresses;

impl Kind for Addresses {
    type Of = Vec<SocketAddr>;
    const NAME: &'static str = "IP:PORT";
    const SEPARATOR: Option<char> = Some(',');

    fn read(value: Value) -> Result<Vec<SocketAddr>, Wrong> {
        let values = value.list();
        if let [only] = values.as_slice()
            && matches!(&only.data, Data::Text(text) if text == "none")
        {
            return Ok(Vec::new());
        }
        let right =
            "an IP address with a port, such as \"127.0.0.1:7672\" or \"[::1]:7672\", or only \"none\"";
        values.iter().map(|value| value.parse(|text| text.parse().ok(), right)).collect()
    }

    fn show(value: &Vec<SocketAddr>) -> String {
        if value.is_empty() { "none".to_owned() } else { joined(value) }
    }
}

/// Names of virtual hosts.
pub(super) struct Vhosts;

impl Kind for Vhosts {
    type Of = Vec<VhostName>;
    const NAME: &'static str = "NAME";
    const SEPARATOR: Option<char> = Some(',');

    fn read(value: Value) -> Result<Vec<VhostName>, Wrong> {
        let name =
            |value: Value| VhostName::new(value.text()?).map_err(|error| value.wrong(error.to_string()));
        value.list().into_iter().map(name).collect()
    }

    fn show(value: &Vec<VhostName>) -> String {
        joined(value)
    }
}

/// What is logged.
pub(super) struct Filter;

impl Kind for Filter {
    type Of = LogFilter;
    const NAME: &'static str = "FILTER";

    fn read(value: Value) -> Result<LogFilter, Wrong> {
        value.text()?.parse::<LogFilter>().map_err(|error| value.wrong(error.to_string()))
    }

    fn show(value: &LogFilter) -> String {
        value.to_string()
    }
}

fn joined<T: Display>(values: &[T]) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read<K: Kind>(text: &str) -> Result<K::Of, String> {
        K::read(Value { at: 0, data: Data::Text(text.to_owned()) }).map_err(|wrong| wrong.reason)
    }

    #[test]
    fn sizes_have_units() {
        let right = [
            ("0", 0),
            ("512", 512),
            ("512 B", 512),
            ("64 MiB", 64 << 20),
            ("64MiB", 64 << 20),
            ("1 TiB", 1 << 40),
            ("5 kB", 5_000),
            ("64 MB", 64_000_000),
        ];
        for (text, bytes) in right {
            assert_eq!(read::<Bytes>(text), Ok(bytes), "{text:?}");
        }
        for text in ["", "MiB", "64 M", "64 mb", "1.5 GiB", "-1 MiB", "1 MiB 2", "99999999999 GiB"] {
            let reason = read::<Bytes>(text).unwrap_err();
            assert!(
                reason.starts_with(&format!("{text:?} is not right; write a whole number with B")),
                "{reason}"
            );
        }
    }

    #[test]
    fn times_have_units() {
        let right = [("30 s", 30_000), ("30s", 30_000), ("500 ms", 500), ("1h 30m", 5_400_000), ("0 s", 0)];
        for (text, milliseconds) in right {
            assert_eq!(read::<Time>(text), Ok(Duration::from_millis(milliseconds)), "{text:?}");
        }
        for text in ["", "0", "30", "s", "30 parsecs", "-1 s"] {
            assert!(read::<Time>(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_as_the_same(bytes in any::<usize>(), shift in 0..40, milliseconds in any::<u32>()) {
            let bytes = bytes >> shift;
            prop_assert_eq!(read::<Bytes>(&Bytes::show(&bytes)), Ok(bytes));
            let time = Duration::from_millis(milliseconds.into());
            prop_assert_eq!(read::<Time>(&Time::show(&time)), Ok(time));
        }

        #[test]
        fn no_text_makes_a_reader_panic(text in "\\PC*") {
            let _ = (read::<Bytes>(&text), read::<Time>(&text), read::<Addresses>(&text), read::<Filter>(&text));
        }
    }
}
