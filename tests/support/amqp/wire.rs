//! Values and tables of AMQP 0-9-1 as bytes, written from the specification and from nothing of ours: a mistake of the
//! broker's codec cannot hide behind the same mistake here.

/// A value of a field table. The letter is the tag that RabbitMQ gives it, which differs from the specification's for
/// some.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `t`
    Bool(bool),
    /// `b`
    I8(i8),
    /// `B`
    U8(u8),
    /// `s`
    I16(i16),
    /// `u`
    U16(u16),
    /// `I`
    I32(i32),
    /// `i`
    U32(u32),
    /// `l`
    I64(i64),
    /// `f`
    F32(f32),
    /// `d`
    F64(f64),
    /// `D`: digits behind the point, and the number without it.
    Decimal(u8, u32),
    /// `S`
    Text(String),
    /// `x`
    Bytes(Vec<u8>),
    /// `A`
    Array(Vec<Value>),
    /// `T`: seconds since 1970.
    Time(u64),
    /// `F`
    Table(Table),
    /// `V`
    Void,
}

/// A field table, in the order of the wire.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table(pub Vec<(String, Value)>);

impl Table {
    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// A table within this one.
    pub fn table(&self, name: &str) -> &Table {
        match self.get(name) {
            Some(Value::Table(table)) => table,
            other => panic!("{name} is {other:?} in {self:?}"),
        }
    }

    /// The names, in the order of the wire.
    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }
}

macro_rules! value_from {
    ($($from:ty => $variant:ident),*) => {
        $(impl From<$from> for Value {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        })*
    };
}

value_from! {
    bool => Bool, i8 => I8, u8 => U8, i16 => I16, u16 => U16, i32 => I32, u32 => U32, i64 => I64, f32 => F32, f64 => F64,
    &str => Text, String => Text, &String => Text, Vec<Value> => Array, Table => Table
}

/// A table from literals: `amqp_table! { "x-max-length" => 1, "x-overflow" => "reject-publish" }`. An integer without
/// a suffix has 32 bits.
#[macro_export]
macro_rules! amqp_table {
    ($($name:literal => $value:expr),* $(,)?) => {
        $crate::amqp::Table(vec![$(($name.to_owned(), $crate::amqp::Value::from($value))),*])
    };
}

/// An array from literals.
#[macro_export]
macro_rules! amqp_array {
    ($($value:expr),* $(,)?) => { $crate::amqp::Value::Array(vec![$($crate::amqp::Value::from($value)),*]) };
}

pub(super) fn put_short_text(out: &mut Vec<u8>, text: &str) {
    out.push(u8::try_from(text.len()).expect("a short string has at most 255 bytes"));
    out.extend(text.as_bytes());
}

pub(super) fn put_long(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend(bytes);
}

/// A table with its length before it.
pub fn put_table(out: &mut Vec<u8>, table: &Table) {
    let mut body = Vec::new();
    for (name, value) in &table.0 {
        put_short_text(&mut body, name);
        put_value(&mut body, value);
    }
    put_long(out, &body);
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    let mut tagged = |tag: u8, bytes: &[u8]| {
        out.push(tag);
        out.extend(bytes);
    };
    match value {
        Value::Bool(value) => tagged(b't', &[u8::from(*value)]),
        Value::I8(value) => tagged(b'b', &value.to_be_bytes()),
        Value::U8(value) => tagged(b'B', &value.to_be_bytes()),
        Value::I16(value) => tagged(b's', &value.to_be_bytes()),
        Value::U16(value) => tagged(b'u', &value.to_be_bytes()),
        Value::I32(value) => tagged(b'I', &value.to_be_bytes()),
        Value::U32(value) => tagged(b'i', &value.to_be_bytes()),
        Value::I64(value) => tagged(b'l', &value.to_be_bytes()),
        Value::F32(value) => tagged(b'f', &value.to_be_bytes()),
        Value::F64(value) => tagged(b'd', &value.to_be_bytes()),
        Value::Decimal(digits, number) => {
            tagged(b'D', &[*digits]);
            out.extend(number.to_be_bytes());
        }
        Value::Time(seconds) => tagged(b'T', &seconds.to_be_bytes()),
        Value::Void => tagged(b'V', &[]),
        Value::Text(text) => {
            out.push(b'S');
            put_long(out, text.as_bytes());
        }
        Value::Bytes(bytes) => {
            out.push(b'x');
            put_long(out, bytes);
        }
        Value::Array(values) => {
            let mut body = Vec::new();
            for value in values {
                put_value(&mut body, value);
            }
            out.push(b'A');
            put_long(out, &body);
        }
        Value::Table(table) => {
            out.push(b'F');
            put_table(out, table);
        }
    }
}

/// Reads what the broker sent; bytes that are missing or of no known kind are a broken promise.
pub(super) struct Reading<'a>(pub(super) &'a [u8]);

impl Reading<'_> {
    pub(super) fn take(&mut self, count: usize) -> &[u8] {
        assert!(self.0.len() >= count, "{count} bytes are missing of {:?}", self.0);
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    pub(super) fn array<const N: usize>(&mut self) -> [u8; N] {
        self.take(N).try_into().unwrap()
    }

    pub(super) fn octet(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub(super) fn short(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    pub(super) fn long(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    pub(super) fn longlong(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    pub(super) fn short_text(&mut self) -> String {
        let length = self.octet();
        String::from_utf8(self.take(length.into()).to_vec()).unwrap()
    }

    pub(super) fn long_bytes(&mut self) -> Vec<u8> {
        let length = self.long();
        self.take(length as usize).to_vec()
    }

    pub(super) fn long_text(&mut self) -> String {
        String::from_utf8(self.long_bytes()).unwrap()
    }

    pub(super) fn table(&mut self) -> Table {
        let body = self.long_bytes();
        let mut body = Reading(&body);
        let mut table = Table::default();
        while !body.0.is_empty() {
            let name = body.short_text();
            table.0.push((name, body.value()));
        }
        table
    }

    fn value(&mut self) -> Value {
        match self.octet() {
            b't' => Value::Bool(self.octet() != 0),
            b'b' => Value::I8(i8::from_be_bytes(self.array())),
            b'B' => Value::U8(self.octet()),
            b's' => Value::I16(i16::from_be_bytes(self.array())),
            b'u' => Value::U16(self.short()),
            b'I' => Value::I32(i32::from_be_bytes(self.array())),
            b'i' => Value::U32(self.long()),
            b'l' => Value::I64(i64::from_be_bytes(self.array())),
            b'f' => Value::F32(f32::from_be_bytes(self.array())),
            b'd' => Value::F64(f64::from_be_bytes(self.array())),
            b'D' => Value::Decimal(self.octet(), self.long()),
            b'S' => Value::Text(self.long_text()),
            b'x' => Value::Bytes(self.long_bytes()),
            b'T' => Value::Time(self.longlong()),
            b'F' => Value::Table(self.table()),
            b'V' => Value::Void,
            b'A' => {
                let body = self.long_bytes();
                let mut body = Reading(&body);
                let mut values = Vec::new();
                while !body.0.is_empty() {
                    values.push(body.value());
                }
                Value::Array(values)
            }
            tag => panic!("no type of a value is {:?}", char::from(tag)),
        }
    }
}
