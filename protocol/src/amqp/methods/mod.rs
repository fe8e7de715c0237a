//! Methods: what the peers ask of each other. One file for each class; a method's fields are stated once there, and
//! reading and writing follow from them.
//!
//! All of them borrow from the payload, so that reading allocates nothing. Both directions are here: a client needs
//! what a broker sends, and tests need both.

pub mod basic;
pub mod channel;
pub mod confirm;
pub mod connection;
pub mod exchange;
pub mod queue;
pub mod tx;

use bytes::{BufMut, BytesMut};

use super::wire::{FieldError, FieldProblem, FieldReader, FieldWriter};
use crate::codes::ReplyCode;

/// A method of any class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method<'a> {
    /// Class 10.
    Connection(connection::Connection<'a>),
    /// Class 20.
    Channel(channel::Channel<'a>),
    /// Class 40.
    Exchange(exchange::Exchange<'a>),
    /// Class 50.
    Queue(queue::Queue<'a>),
    /// Class 60.
    Basic(basic::Basic<'a>),
    /// Class 85.
    Confirm(confirm::Confirm),
    /// Class 90.
    Tx(tx::Tx),
}

/// Why a payload is not a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MethodError {
    /// Not even the two numbers that say which method it is.
    #[error("a method frame that ends before its fields")]
    NoIds,
    /// No method has these numbers.
    #[error("there is no method {method_id} in class {class_id}")]
    Unknown {
        /// The class.
        class_id: u16,
        /// The method.
        method_id: u16,
    },
    /// A field that cannot be read.
    #[error("cannot decode {method}: {error}")]
    Malformed {
        /// The class.
        class_id: u16,
        /// The method.
        method_id: u16,
        /// The method's name, such as `basic.publish`.
        method: &'static str,
        /// Which field, and what is wrong with it.
        error: FieldError,
    },
    /// Something follows where nothing may.
    #[error("cannot decode {method}: {bytes} bytes too many")]
    Overlong {
        /// The class.
        class_id: u16,
        /// The method.
        method_id: u16,
        /// The method's name, such as `basic.publish`.
        method: &'static str,
        /// How many.
        bytes: usize,
    },
}

impl MethodError {
    /// The code to close the connection with.
    pub fn reply_code(self) -> ReplyCode {
        match self {
            Self::NoIds | Self::Malformed { .. } | Self::Overlong { .. } => ReplyCode::SyntaxError,
            Self::Unknown { .. } => ReplyCode::NotImplemented,
        }
    }

    /// The class and the method for the close frame; zeros if they are not known.
    pub fn ids(self) -> (u16, u16) {
        match self {
            Self::NoIds => (0, 0),
            Self::Unknown { class_id, method_id }
            | Self::Malformed { class_id, method_id, .. }
            | Self::Overlong { class_id, method_id, .. } => (class_id, method_id),
        }
    }
}

/// What one method is made of; implemented by [`methods!`].
trait MethodFields<'a>: Sized {
    const IDS: (u16, u16);
    const NAME: &'static str;

    fn read(reader: &mut FieldReader<'a>) -> Result<Self, FieldError>;
    fn write(&self, writer: &mut FieldWriter<'_>);

    fn decode(fields: &'a [u8]) -> Result<Self, MethodError> {
        let ((class_id, method_id), method) = (Self::IDS, Self::NAME);
        let mut reader = FieldReader::new(fields);
        let decoded = Self::read(&mut reader).map_err(|error| MethodError::Malformed {
            class_id,
            method_id,
            method,
            error,
        })?;
        match reader.rest().len() {
            0 => Ok(decoded),
            bytes => Err(MethodError::Overlong { class_id, method_id, method, bytes }),
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        let mut writer = FieldWriter::new(out);
        self.write(&mut writer);
        writer.finish();
    }
}

/// What all methods of one class have in common; implemented by [`methods!`].
trait Class<'a>: Sized {
    fn decode(method_id: u16, fields: &'a [u8]) -> Result<Self, MethodError>;
    fn encode(&self, out: &mut BytesMut);
    fn ids(&self) -> (u16, u16);
    fn name(&self) -> &'static str;
}

/// Declares a class: its number, its AMQP name and its enum; then each method with its number, its AMQP name, its
/// struct and its fields. Types in brackets before or behind the fields are reserved ones: they are read over, and
/// written as zeros or as empty. `bool` is a bit, `&str` a short string, `&[u8]` a long one.
macro_rules! methods {
    (
        $(#[$class_doc:meta])*
        $class_id:literal $class_name:literal $class:ident $(<$class_life:lifetime>)?;
        $(
            $(#[$doc:meta])*
            $id:literal $name:literal $method:ident $(<$life:lifetime>)? $([$($front:ty),+])? {
                $($(#[$field_doc:meta])* $field:ident: $type:ty),* $(,)?
            } $([$($back:ty),+])?
        )+
    ) => {
        $(#[$class_doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $class $(<$class_life>)? {
            $($(#[$doc])* $method($method $(<$life>)?),)+
        }

        impl<'a> $crate::amqp::methods::Class<'a> for $class $(<$class_life>)? {
            fn decode(
                method_id: u16,
                fields: &'a [u8],
            ) -> Result<Self, $crate::amqp::methods::MethodError> {
                use $crate::amqp::methods::MethodFields;
                match method_id {
                    $($id => $method::decode(fields).map(Self::$method),)+
                    _ => Err($crate::amqp::methods::MethodError::Unknown { class_id: $class_id, method_id }),
                }
            }

            fn encode(&self, out: &mut bytes::BytesMut) {
                use $crate::amqp::methods::MethodFields;
                match self {
                    $(Self::$method(method) => method.encode(out),)+
                }
            }

            fn ids(&self) -> (u16, u16) {
                match self {
                    $(Self::$method(_) => ($class_id, $id),)+
                }
            }

            fn name(&self) -> &'static str {
                match self {
                    $(Self::$method(_) => concat!($class_name, ".", $name),)+
                }
            }
        }

        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
            pub struct $method $(<$life>)? {
                $($(#[$field_doc])* pub $field: $type,)*
            }

            impl<'a> $crate::amqp::methods::MethodFields<'a> for $method $(<$life>)? {
                const IDS: (u16, u16) = ($class_id, $id);
                const NAME: &'static str = concat!($class_name, ".", $name);

                fn read(
                    _reader: &mut $crate::amqp::wire::FieldReader<'a>,
                ) -> Result<Self, $crate::amqp::wire::FieldError> {
                    #[allow(unused_imports, reason = "not every method has fields")]
                    use $crate::amqp::methods::{read_field, read_reserved};
                    $($(read_reserved::<$front>(_reader)?;)+)?
                    $(let $field = read_field(_reader, stringify!($field))?;)*
                    $($(read_reserved::<$back>(_reader)?;)+)?
                    Ok(Self { $($field),* })
                }

                fn write(&self, _writer: &mut $crate::amqp::wire::FieldWriter<'_>) {
                    #[allow(unused_imports, reason = "not every method has fields")]
                    use $crate::amqp::wire::Field;
                    $($(<$front>::default().write(_writer);)+)?
                    $(self.$field.write(_writer);)*
                    $($(<$back>::default().write(_writer);)+)?
                }
            }

            impl<'a> From<$method $(<$life>)?> for $crate::amqp::methods::Method<'a> {
                fn from(method: $method $(<$life>)?) -> Self {
                    Self::$class($class::$method(method))
                }
            }
        )+
    };
}
use methods;

/// The `basic.publish` that a payload is, if it is one and right.
pub(super) fn publish_in(payload: &[u8]) -> Option<basic::Publish<'_>> {
    let (&[c0, c1, m0, m1], fields) = payload.split_first_chunk()?;
    let ids = (u16::from_be_bytes([c0, c1]), u16::from_be_bytes([m0, m1]));
    if ids != basic::Publish::IDS {
        return None;
    }
    basic::Publish::decode(fields).ok()
}

fn read_field<'a, F: super::wire::Field<'a>>(
    reader: &mut FieldReader<'a>,
    field: &'static str,
) -> Result<F, FieldError> {
    F::read(reader).map_err(|problem| problem.of(field))
}

fn read_reserved<'a, F: super::wire::Field<'a>>(reader: &mut FieldReader<'a>) -> Result<(), FieldError> {
    match F::read(reader) {
        // What nobody uses may be any bytes.
        Ok(_) | Err(FieldProblem::NotUtf8) => Ok(()),
        Err(problem) => Err(problem.of("reserved")),
    }
}

macro_rules! every_class {
    ($method:expr, $inner:ident => $each:expr) => {
        match $method {
            Method::Connection($inner) => $each,
            Method::Channel($inner) => $each,
            Method::Exchange($inner) => $each,
            Method::Queue($inner) => $each,
            Method::Basic($inner) => $each,
            Method::Confirm($inner) => $each,
            Method::Tx($inner) => $each,
        }
    };
}

impl<'a> Method<'a> {
    /// Reads a method frame's payload. Strings and tables are borrowed from it.
    pub fn decode(payload: &'a [u8]) -> Result<Self, MethodError> {
        let Some((&[c0, c1, m0, m1], fields)) = payload.split_first_chunk() else {
            return Err(MethodError::NoIds);
        };
        let (class_id, method_id) = (u16::from_be_bytes([c0, c1]), u16::from_be_bytes([m0, m1]));
        match class_id {
            10 => Class::decode(method_id, fields).map(Self::Connection),
            20 => Class::decode(method_id, fields).map(Self::Channel),
            40 => Class::decode(method_id, fields).map(Self::Exchange),
            50 => Class::decode(method_id, fields).map(Self::Queue),
            60 => Class::decode(method_id, fields).map(Self::Basic),
            85 => Class::decode(method_id, fields).map(Self::Confirm),
            90 => Class::decode(method_id, fields).map(Self::Tx),
            _ => Err(MethodError::Unknown { class_id, method_id }),
        }
    }

    /// Appends a method frame's payload. Names longer than 255 bytes are cut: check them before.
    pub fn encode(&self, out: &mut BytesMut) {
        let (class_id, method_id) = self.ids();
        out.put_u16(class_id);
        out.put_u16(method_id);
        every_class!(self, method => method.encode(out));
    }

    /// The numbers of the class and of the method.
    pub fn ids(&self) -> (u16, u16) {
        every_class!(self, method => method.ids())
    }

    /// The name, such as `basic.publish`.
    pub fn name(&self) -> &'static str {
        every_class!(self, method => method.name())
    }

    /// Whether a content header and a body follow.
    pub fn has_content(&self) -> bool {
        use basic::Basic;
        matches!(
            self,
            Self::Basic(Basic::Publish(_) | Basic::Return(_) | Basic::Deliver(_) | Basic::GetOk(_))
        )
    }
}
