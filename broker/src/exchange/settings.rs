//! What an exchange is declared to be.

use std::fmt;
use std::str::FromStr;

use leveret_protocol::{ExchangeName, Table, Value};

use super::error::ExchangeError;

/// The argument of a declaration that names the alternate exchange.
const ALTERNATE_EXCHANGE: &str = "alternate-exchange";

/// By what rule an exchange picks among its bindings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExchangeKind {
    /// The routing key equals the binding's key.
    Direct,
    /// Every binding.
    Fanout,
    /// The routing key matches the binding's pattern of words, `*` (one word) and `#` (any number of words).
    Topic,
    /// The message's headers match the binding's arguments.
    Headers,
}

impl ExchangeKind {
    /// The names of all kinds, as declarations spell them.
    pub const NAMES: [&'static str; 4] = ["direct", "fanout", "topic", "headers"];

    /// The name, as declarations spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
        }
    }
}

impl FromStr for ExchangeKind {
    type Err = ExchangeError;

    fn from_str(name: &str) -> Result<Self, ExchangeError> {
        match name {
            "direct" => Ok(Self::Direct),
            "fanout" => Ok(Self::Fanout),
            "topic" => Ok(Self::Topic),
            "headers" => Ok(Self::Headers),
            unknown => Err(ExchangeError::UnknownKind(unknown.to_owned())),
        }
    }
}

impl fmt::Display for ExchangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an exchange is declared to be. Two declarations are equivalent if all of this is equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExchangeSettings {
    /// How it routes.
    pub kind: ExchangeKind,
    /// Whether it survives a restart.
    pub durable: bool,
    /// Whether it is deleted once the last binding from it goes. (Never before it had one.)
    pub auto_delete: bool,
    /// Whether clients may not publish to it.
    pub internal: bool,
    /// Where messages go that no binding of this exchange takes. It need not exist.
    pub alternate: Option<ExchangeName>,
}

impl ExchangeSettings {
    /// A durable exchange that stays, takes messages from clients and has no alternate.
    pub fn new(kind: ExchangeKind) -> Self {
        Self { kind, durable: true, auto_delete: false, internal: false, alternate: None }
    }

    /// Takes over the arguments that an exchange knows; all others are ignored, as in RabbitMQ.
    pub fn with_arguments(mut self, arguments: &Table) -> Result<Self, ExchangeError> {
        if let Some(value) = arguments.get(ALTERNATE_EXCHANGE) {
            self.alternate = Some(alternate_name(value)?);
        }
        Ok(self)
    }

    /// The arguments that [`ExchangeSettings::with_arguments`] takes over, as a definition carries them.
    pub fn arguments(&self) -> Table {
        let alternate = self.alternate.as_ref().map(|name| name.as_str().into());
        alternate.map(|name| (ALTERNATE_EXCHANGE.to_owned(), name)).into_iter().collect()
    }

    /// Checks a declaration against the exchange that exists; the first difference is the error.
    pub(super) fn check_equivalent(
        &self,
        exchange: &ExchangeName,
        received: &Self,
    ) -> Result<(), ExchangeError> {
        let check = |argument, received: &dyn fmt::Display, current: &dyn fmt::Display, equal: bool| {
            if equal {
                return Ok(());
            }
            let (received, current) = (format!("'{received}'"), format!("'{current}'"));
            Err(ExchangeError::Inequivalent { exchange: exchange.clone(), argument, received, current })
        };
        check("type", &received.kind, &self.kind, received.kind == self.kind)?;
        check("durable", &received.durable, &self.durable, received.durable == self.durable)?;
        check(
            "auto_delete",
            &received.auto_delete,
            &self.auto_delete,
            received.auto_delete == self.auto_delete,
        )?;
        check("internal", &received.internal, &self.internal, received.internal == self.internal)?;
        if received.alternate == self.alternate {
            return Ok(());
        }
        // As RabbitMQ puts it: with its type, if the other side has no value at all.
        let one_is_absent = received.alternate.is_none() || self.alternate.is_none();
        let text = |name: &Option<ExchangeName>| match name {
            None => "none".to_owned(),
            Some(name) if one_is_absent => format!("the value '{name}' of type 'longstr'"),
            Some(name) => format!("'{name}'"),
        };
        Err(ExchangeError::Inequivalent {
            exchange: exchange.clone(),
            argument: ALTERNATE_EXCHANGE,
            received: text(&received.alternate),
            current: text(&self.alternate),
        })
    }
}

fn alternate_name(value: &Value) -> Result<ExchangeName, ExchangeError> {
    let invalid = |received| ExchangeError::InvalidArgument {
        argument: ALTERNATE_EXCHANGE,
        received,
        expected: "the name of an exchange, as text",
    };
    let name = value.as_text().ok_or_else(|| invalid(value.kind().to_owned()))?;
    ExchangeName::new(name).map_err(|error| invalid(error.to_string()))
}
