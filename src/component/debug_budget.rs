//! What reading a component's debug information may cost, and what is said of one that would cost more.

use crate::error::Error;

/// After so many steps it is asked whether somebody still waits.
const ASK: u64 = 1 << 16;

/// Why debug information is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    Large,
    Deep,
    Shared,
    Malformed,
}

impl Harm {
    /// What is said of it.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Large => "it is larger than 64 MiB",
            Self::Deep => "its entries are nested more than 128 deep",
            Self::Shared => "it would take too long to read",
            Self::Malformed => "it is malformed",
        }
    }
}

/// Why it is not looked at further.
pub(super) enum Stop {
    Harm(Harm),
    /// Nobody waits any more, or not for so long.
    Ended(Error),
}

impl From<Harm> for Stop {
    fn from(harm: Harm) -> Self {
        Self::Harm(harm)
    }
}

impl From<gimli::Error> for Stop {
    fn from(_: gimli::Error) -> Self {
        Self::Harm(Harm::Malformed)
    }
}

/// What may still be spent on a component.
pub(super) struct Budget<'a> {
    pub bytes: u64,
    pub steps: u64,
    pub until_asked: u64,
    pub go_on: &'a dyn Fn() -> Result<(), Error>,
}

impl Budget<'_> {
    pub(super) fn spend(&mut self, steps: u64) -> Result<(), Stop> {
        spend(&mut self.steps, steps)?;
        match self.until_asked.checked_sub(steps) {
            Some(left) => self.until_asked = left,
            None => {
                self.until_asked = ASK;
                (self.go_on)().map_err(Stop::Ended)?;
            }
        }
        Ok(())
    }
}

pub(super) fn spend(left: &mut u64, cost: u64) -> Result<(), Harm> {
    *left = left.checked_sub(cost).ok_or(Harm::Shared)?;
    Ok(())
}
