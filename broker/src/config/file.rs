//! What the user wrote into the file, and where it was wrong.

use std::fs;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Place};
use super::settings::{self, Setting};
use super::value::{Data, Value, Wrong};

/// A value of the file, and the setting that it is for.
pub(super) struct Entry {
    pub(super) setting: &'static Setting,
    /// Where its name begins, in bytes.
    pub(super) at: usize,
    pub(super) value: Value,
}

/// A file that has been read.
pub(super) struct File<'a> {
    path: &'a Path,
    text: String,
}

impl<'a> File<'a> {
    pub(super) fn read(path: &'a Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        Ok(Self { path, text })
    }

    /// What the file sets. Every key is known, the values are as written.
    pub(super) fn entries(&self) -> Result<Vec<Entry>, ConfigError> {
        // Only the message is shown: the error's own form repeats the line, and with it a password.
        let document = DeTable::parse(&self.text).map_err(|error| ConfigError::Syntax {
            place: self.place(error.span().map_or(0, |span| span.start)),
            reason: error.message().replace('\n', ", "),
        })?;
        let mut entries = Vec::new();
        self.collect("", document.get_ref(), &mut entries)?;
        Ok(entries)
    }

    pub(super) fn place(&self, at: usize) -> Place {
        let before = self.text.get(..at).unwrap_or(&self.text);
        let line = before.matches('\n').count() + 1;
        Place::File { path: self.path.to_owned(), line }
    }

    pub(super) fn error(&self, setting: &Setting, wrong: Wrong) -> ConfigError {
        ConfigError::Value { place: self.place(wrong.at), key: setting.key, reason: wrong.reason }
    }

    fn collect(
        &self,
        table: &str,
        values: &DeTable<'_>,
        entries: &mut Vec<Entry>,
    ) -> Result<(), ConfigError> {
        for (name, written) in values {
            let key = if table.is_empty() {
                name.get_ref().to_string()
            } else {
                format!("{table}.{}", name.get_ref())
            };
            let is_table =
                table.is_empty() && settings::SETTINGS.iter().any(|setting| setting.table() == key);
            match (settings::find(&key), written.get_ref()) {
                (Some(setting), _) => {
                    entries.push(Entry { setting, at: name.span().start, value: value(written) });
                }
                (None, DeValue::Table(inner)) if is_table => self.collect(&key, inner, entries)?,
                (None, other) => {
                    let hint = match other {
                        _ if is_table => format!("{key} is a table; write [{key}] and its settings below it"),
                        DeValue::Table(_) => "the tables are [limits], [journal] and [[users]]".to_owned(),
                        _ => settings::hint(&key),
                    };
                    return Err(ConfigError::Unknown { place: self.place(name.span().start), key, hint });
                }
            }
        }
        Ok(())
    }
}

fn value(written: &Spanned<DeValue<'_>>) -> Value {
    let data = match written.get_ref() {
        DeValue::String(text) => Data::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Data::Other("a huge number"), Data::Integer),
        DeValue::Float(_) => Data::Other("a fraction"),
        DeValue::Boolean(truth) => Data::Boolean(*truth),
        DeValue::Datetime(_) => Data::Other("a date"),
        DeValue::Array(values) => Data::List(values.iter().map(value).collect()),
        DeValue::Table(entries) => Data::Table(
            entries.iter().map(|(name, written)| (name.get_ref().to_string(), value(written))).collect(),
        ),
    };
    Value { at: written.span().start, data }
}
