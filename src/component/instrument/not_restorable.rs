//! Why instances of a component cannot be put back.

use wasmparser::BinaryReaderError;

/// Names in core modules, and of components, that begin like this are ours.
const OURS: [&str; 2] = ["wasgi:", "wasgi-restore-"];

/// Why instances of a component cannot be put back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotRestorable {
    #[error("it is malformed: {0}")]
    Malformed(String),
    #[error("a component inside of it has core modules of its own")]
    Nested,
    #[error("it has a core instance of a module that is not its own")]
    Module,
    #[error("a function changes a table or drops a segment (`{0}`)")]
    Operator(&'static str),
    #[error("it has a memory that is {0}")]
    Memory(&'static str),
    #[error("it has a mutable global of references")]
    Reference,
    #[error("it defines resources, whose handles the host cannot number anew")]
    Resources,
    #[error("it uses the name `{0}`")]
    Name(String),
}

impl From<BinaryReaderError> for NotRestorable {
    fn from(error: BinaryReaderError) -> Self {
        Self::Malformed(error.message().into())
    }
}

/// Refuses names that begin as ours do.
pub(super) fn check_name(name: &str) -> Result<(), NotRestorable> {
    match OURS.iter().any(|ours| name.starts_with(ours)) {
        true => Err(NotRestorable::Name(name.chars().take(100).collect())),
        false => Ok(()),
    }
}
