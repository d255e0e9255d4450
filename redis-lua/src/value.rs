//! A Redis reply, independent of protocol version and client library, and the faults that it can have.

use std::fmt;

/// One reply of Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A nil bulk string or array.
    Nil,
    /// An integer.
    Int(i64),
    /// A binary-safe string.
    Bulk(Vec<u8>),
    /// A status line such as `OK`.
    Status(String),
    /// A list of replies.
    Array(Vec<Value>),
    /// An error line, such as `NOSCRIPT No matching script.`
    Error(String),
}

impl Value {
    /// Whether Redis does not know the script. It is the one error with a remedy: send
    /// [`ScriptCall::eval`](crate::ScriptCall::eval).
    pub fn is_noscript(&self) -> bool {
        matches!(self, Value::Error(text) if text.starts_with("NOSCRIPT"))
    }
}

/// A reply that does not have the form that the script documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyError {
    /// Redis answered with an error; this is its text.
    Redis(String),
    /// The reply has another form than the script's header documents.
    Malformed {
        /// The wrong part, as the script's header calls it.
        expected: &'static str,
    },
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplyError::Redis(text) => write!(f, "redis refused the script: {text}"),
            ReplyError::Malformed { expected } => {
                write!(f, "malformed script reply: expected {expected}")
            }
        }
    }
}

impl std::error::Error for ReplyError {}

/// Reads a reply from front to back; every step names what it expects.
pub(crate) struct Elements(std::vec::IntoIter<Value>);

impl Elements {
    pub(crate) fn of(reply: Value) -> Result<Self, ReplyError> {
        match reply {
            Value::Array(elements) => Ok(Self(elements.into_iter())),
            Value::Error(text) => Err(ReplyError::Redis(text)),
            _ => Err(malformed("an array")),
        }
    }

    pub(crate) fn int(&mut self, expected: &'static str) -> Result<i64, ReplyError> {
        match self.0.next() {
            Some(Value::Int(number)) => Ok(number),
            _ => Err(malformed(expected)),
        }
    }

    pub(crate) fn natural(&mut self, expected: &'static str) -> Result<u64, ReplyError> {
        u64::try_from(self.int(expected)?).map_err(|_| malformed(expected))
    }

    pub(crate) fn text(&mut self, expected: &'static str) -> Result<String, ReplyError> {
        match self.0.next() {
            Some(Value::Bulk(bytes)) => String::from_utf8(bytes).map_err(|_| malformed(expected)),
            _ => Err(malformed(expected)),
        }
    }

    pub(crate) fn bytes_or_nil(
        &mut self,
        expected: &'static str,
    ) -> Result<Option<Vec<u8>>, ReplyError> {
        match self.0.next() {
            Some(Value::Bulk(bytes)) => Ok(Some(bytes)),
            Some(Value::Nil) => Ok(None),
            _ => Err(malformed(expected)),
        }
    }

    /// Whether any element is left.
    pub(crate) fn more(&self) -> bool {
        self.0.len() > 0
    }

    pub(crate) fn end(mut self) -> Result<(), ReplyError> {
        match self.0.next() {
            None => Ok(()),
            Some(_) => Err(malformed("the end of the array")),
        }
    }
}

pub(crate) fn malformed(expected: &'static str) -> ReplyError {
    ReplyError::Malformed { expected }
}
