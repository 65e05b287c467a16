//! What an app grants its guests.

use std::path::PathBuf;

use crate::simulation::environment::Simulation;

/// What a guest may see: nothing unless it is listed here.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    pub env: Vec<(String, String)>,
    pub args: Vec<String>,
    pub dirs: Vec<DirGrant>,
    /// Clocks and randomness that are not the machine's.
    pub simulation: Option<Simulation>,
}

/// A directory of the host's that the guest sees as `guest`.
#[derive(Clone, Debug)]
pub struct DirGrant {
    pub guest: String,
    pub host: PathBuf,
    pub write: bool,
}
