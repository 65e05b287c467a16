//! What may be computed on prompt threads before it belongs on those of lower priority.

use std::time::{Duration, Instant};

use crate::process::fork::PerProcess;

/// Of one guest.
pub(super) const OF_GUEST: Duration = Duration::from_millis(2);

/// One part in so many of the time that it waits is what it earns.
pub(super) const EARNS: u32 = 10;

/// Of an app, for each processor: as much as some guests have that come at once.
const OF_APP: Duration = Duration::from_millis(8);

/// One part in so many of each processor's time is what an app earns, however many guests it has.
const APP_EARNS: u32 = 4;

/// CPU time that may be spent, and is earned as time passes.
pub(super) struct Credit {
    left: Duration,
    most: Duration,
    /// What was spent beyond that, and is to be earned first. A guest is not held to it: it is its component that is, and its app.
    owes: Option<Duration>,
    /// What is earned of the time that passes: so many parts of so many.
    earns: (u32, u32),
    at: Instant,
}

impl Credit {
    pub(super) fn of_guest(computes: bool) -> Self {
        let left = if computes { Duration::ZERO } else { OF_GUEST };
        Self { left, most: OF_GUEST, owes: None, earns: (1, EARNS), at: Instant::now() }
    }

    pub(super) fn of_app() -> Self {
        let processors = processors();
        let most = OF_APP.saturating_mul(processors);
        Self { left: most, most, owes: Some(Duration::ZERO), earns: (processors, APP_EARNS), at: Instant::now() }
    }

    pub(super) fn spend(&mut self, took: Duration) {
        if let Some(owes) = &mut self.owes {
            *owes = owes.saturating_add(took.saturating_sub(self.left));
        }
        self.left = self.left.saturating_sub(took);
    }

    /// What follows is no time in which anything is earned: only a guest that waits earns, not in its turn, nor while it is in a queue.
    pub(super) fn begin_to_earn(&mut self) {
        self.at = Instant::now();
    }

    pub(super) fn earn(&mut self) {
        let now = Instant::now();
        let (parts, of) = self.earns;
        let mut earned = now.duration_since(self.at) * parts / of;
        if let Some(owes) = &mut self.owes {
            let paid = earned.min(*owes);
            *owes -= paid;
            earned -= paid;
        }
        self.left = self.left.saturating_add(earned).min(self.most);
        self.at = now;
    }

    /// Whether nothing of it was spent that has not been earned again.
    #[cfg(test)]
    pub(crate) fn is_whole(&self) -> bool {
        self.left == self.most
    }

    /// A little is not: a guest would change threads at each turn.
    pub(super) fn is_enough(&self) -> bool {
        self.left >= self.most / 8
    }
}

/// How many processors this process has.
pub(super) fn processors() -> u32 {
    static FOUND: PerProcess<u32> = PerProcess::new();
    let find =
        || std::thread::available_parallelism().map_or(1, |found| u32::try_from(found.get()).unwrap_or(u32::MAX));
    *FOUND.get(find)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_computes_is_not_prompt_until_it_has_waited() {
        let mut credit = Credit::of_guest(false);
        assert!(credit.is_enough());
        credit.spend(OF_GUEST);
        assert!(!credit.is_enough());
        credit.at -= OF_GUEST * EARNS;
        credit.earn();
        assert!(credit.is_enough());
    }

    #[test]
    fn guests_of_an_app_earn_together_what_one_part_of_the_processors_gives() {
        let mut credit = Credit::of_app();
        credit.spend(credit.most);
        assert!(!credit.is_enough());
        credit.at -= Duration::from_millis(4);
        credit.earn();
        let earned = Duration::from_millis(1) * processors();
        assert!(credit.left >= earned, "{:?}", credit.left);
    }

    #[test]
    fn what_an_app_has_had_beyond_its_share_it_earns_first() {
        let mut credit = Credit::of_app();
        let owed = Duration::from_secs(60) * processors() / APP_EARNS;
        credit.spend(credit.most + owed);
        credit.at -= Duration::from_secs(30);
        credit.earn();
        assert!(!credit.is_enough());
        credit.at -= Duration::from_secs(31);
        credit.earn();
        assert!(credit.is_enough());
    }

    #[test]
    fn no_more_is_kept_than_its_most() {
        for mut credit in [Credit::of_guest(true), Credit::of_app()] {
            credit.at -= Duration::from_secs(60);
            credit.earn();
            assert_eq!(credit.left, credit.most);
        }
    }

    #[test]
    fn nothing_is_earned_before_a_guest_waits() {
        let mut credit = Credit::of_guest(true);
        credit.at -= Duration::from_secs(60);
        credit.begin_to_earn();
        credit.earn();
        assert!(!credit.is_enough());
    }

    #[test]
    fn an_app_has_its_credit_of_each_processor() {
        let processors = std::thread::available_parallelism().map_or(1, |found| found.get());
        assert_eq!(Credit::of_app().most, OF_APP * u32::try_from(processors).unwrap_or(1));
    }
}
