//! What an error came from: kept beside its sentence, for whoever shows the chain.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::http::error_code::ErrorCode;

/// An error of a library's or the system's, shared by the copies of ours.
type Source = Arc<dyn StdError + Send + Sync>;

/// A sentence, and the error that it tells of, if there was one.
#[derive(Clone, Debug)]
pub struct Reason {
    text: String,
    source: Option<Source>,
}

impl Reason {
    /// With its source.
    pub fn new(text: impl Into<String>, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { text: text.into(), source: Some(source.into().into()) }
    }

    /// The same in other words.
    pub fn worded(self, words: impl FnOnce(&str) -> String) -> Self {
        Self { text: words(&self.text), source: self.source }
    }
}

impl From<String> for Reason {
    fn from(text: String) -> Self {
        Self { text, source: None }
    }
}

impl From<&str> for Reason {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl StdError for Reason {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// An error-code, and the failure that it stands for, if that was the host's to see. A guest is told the code only.
#[derive(Clone, Debug)]
pub struct CodeError {
    /// What the guest is told.
    pub code: ErrorCode,
    source: Option<Source>,
}

impl CodeError {
    /// With its source.
    pub fn new(code: ErrorCode, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { code, source: Some(source.into().into()) }
    }
}

impl From<ErrorCode> for CodeError {
    fn from(code: ErrorCode) -> Self {
        Self { code, source: None }
    }
}

impl fmt::Display for CodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.code.fmt(f)
    }
}

impl StdError for CodeError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
