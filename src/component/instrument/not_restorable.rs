//! Why instances of a component cannot be put back.

use wasmparser::BinaryReaderError;

/// Names in core modules, and of components, that begin like this are ours.
const OURS: [&str; 2] = ["wasgi:", "wasgi-restore-"];

/// Why instances of a component cannot be put back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotRestorable {
    #[error("it is malformed: {0}")]
    Malformed(String),
    #[error("it has a core instance of a module that is not its own")]
    Module,
    #[error("it has an instance of a component that it was given")]
    Component,
    #[error("it has more than {0} component instances with core modules")]
    Instances(usize),
    #[error("one of the components that it is composed of lends another one handles")]
    Lent,
    #[error("the types of one of the components that it is composed of are of no meaning outside of it ({0})")]
    Types(String),
    #[error("a function changes a table or drops a segment (`{0}`)")]
    Operator(&'static str),
    #[error("it has a memory that is {0}")]
    Memory(&'static str),
    #[error("it has a mutable global of references")]
    Reference,
    #[error("it defines resources, whose handles the host cannot number anew")]
    Resources,
    /// They fill a table of handles that no core module of the same component could empty.
    #[error("one of the components that it is composed of has functions, and no core module that they are of")]
    BuiltIns,
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
