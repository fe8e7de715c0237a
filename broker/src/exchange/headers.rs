//! The headers exchange: the message's headers match the binding's arguments.

use std::ops::Deref;
use std::sync::Arc;

use leveret_protocol::{Table, Value};

use super::binding::Binding;
use super::error::ExchangeError;
use super::route::Found;
use super::targets::{BindingId, Target};

/// The binding argument that says how many of the others have to match.
const X_MATCH: &str = "x-match";

/// How many of a binding's arguments have to match, and which of them count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Match {
    /// All arguments whose names do not begin with `x-`. The default.
    All,
    /// At least one of them.
    Any,
    /// All arguments but `x-match` itself.
    AllWithX,
    /// At least one of them.
    AnyWithX,
}

impl Match {
    fn of(arguments: &Table) -> Result<Self, ExchangeError> {
        let Some(value) = arguments.get(X_MATCH) else {
            return Ok(Self::All);
        };
        match value.as_text() {
            Some("all") => Ok(Self::All),
            Some("any") => Ok(Self::Any),
            Some("all-with-x") => Ok(Self::AllWithX),
            Some("any-with-x") => Ok(Self::AnyWithX),
            _ => Err(ExchangeError::InvalidArgument {
                argument: X_MATCH,
                received: value.to_string(),
                expected: "all, any, all-with-x or any-with-x",
            }),
        }
    }

    fn counts(self, argument: &str) -> bool {
        match self {
            Self::All | Self::Any => !argument.starts_with("x-"),
            Self::AllWithX | Self::AnyWithX => argument != X_MATCH,
        }
    }

    /// With nothing that counts, the "all" kinds match every message and the "any" kinds none.
    fn matches(self, arguments: &Table, headers: &Table) -> bool {
        let mut asked = arguments.iter().filter(|(name, _)| self.counts(name));
        let fits =
            |(name, value): (&String, &Value)| headers.get(name).is_some_and(|it| value_fits(value, it));
        match self {
            Self::All | Self::AllWithX => asked.all(fits),
            Self::Any | Self::AnyWithX => asked.any(fits),
        }
    }
}

/// Whether a header is what a binding asks for: present if it asks for nothing more, and otherwise equal
/// without any conversion of numbers. Text and bytes are compared by content, as AMQP's type tags do not
/// count.
fn value_fits(asked: &Value, header: &Value) -> bool {
    match (asked, header) {
        (Value::Null, _) => true,
        (Value::Text(text), Value::Bytes(bytes)) | (Value::Bytes(bytes), Value::Text(text)) => {
            text.as_bytes() == bytes.as_slice()
        }
        (asked, header) => asked == header,
    }
}

#[derive(Debug)]
struct Rule {
    id: BindingId,
    target: Target,
    mode: Match,
    binding: Arc<Binding>,
}

/// The bindings of a headers exchange. Each is looked at for each message, as in RabbitMQ.
#[derive(Debug, Default)]
pub(super) struct HeadersTable(Vec<Rule>);

impl HeadersTable {
    /// Adds a binding and returns its place.
    pub(super) fn insert(
        &mut self,
        binding: &Arc<Binding>,
        id: BindingId,
        target: Target,
    ) -> Result<usize, ExchangeError> {
        let mode = Match::of(&binding.arguments)?;
        self.0.push(Rule { id, target, mode, binding: Arc::clone(binding) });
        Ok(self.0.len() - 1)
    }

    /// Removes a binding and returns the one that has moved to its place.
    pub(super) fn remove(&mut self, place: usize) -> Option<BindingId> {
        if place < self.0.len() {
            self.0.swap_remove(place);
        }
        self.0.get(place).map(|moved| moved.id)
    }

    /// Does not ask for the headers if there is no binding to compare them with.
    pub(super) fn collect(&self, headers: &dyn Deref<Target = Table>, found: &mut Found) {
        if self.0.is_empty() {
            return;
        }
        found.used_headers(self.0.len());
        let headers: &Table = headers;
        for rule in &self.0 {
            if rule.mode.matches(&rule.binding.arguments, headers) {
                found.add(rule.target);
            }
        }
    }
}
