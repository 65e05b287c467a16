//! What an app grants its guests.

use std::path::PathBuf;

use crate::guest::process_stdio::ProcessStdio;
use crate::simulation::environment::Simulation;

/// What a guest may see: nothing unless it is listed here.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// Arguments of its command line.
    pub args: Vec<String>,
    /// Directories of the host.
    pub dirs: Vec<DirGrant>,
    /// Clocks and randomness that are not the machine's.
    pub simulation: Option<Simulation>,
    /// The process's own stdin, stdout and stderr. Without them there is no stdin, and lines that it prints are its host's.
    pub stdio: Option<ProcessStdio>,
}

/// A directory of the host's that the guest sees as `guest`.
#[derive(Clone, Debug)]
pub struct DirGrant {
    /// Its path in the guest.
    pub guest: String,
    /// Its path on the host.
    pub host: PathBuf,
    /// Whether the guest may change what is in it.
    pub write: bool,
}
