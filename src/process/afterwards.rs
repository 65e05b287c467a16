//! What a thread puts off until it has answered: a client need not wait for what is only given back.

use std::cell::Cell;

type Job = Box<dyn FnOnce()>;

thread_local! {
    /// None where nothing may be put off.
    static PUT_OFF: Cell<Option<Vec<Job>>> = const { Cell::new(None) };
}

/// While there is one, what is put off on this thread waits; then it is done.
pub(crate) struct Undone {
    /// One within another leaves all to that.
    is_outer: bool,
}

impl Undone {
    pub(crate) fn begin() -> Self {
        let before = PUT_OFF.take();
        let is_outer = before.is_none();
        PUT_OFF.set(Some(before.unwrap_or_default()));
        Self { is_outer }
    }
}

impl Drop for Undone {
    fn drop(&mut self) {
        if self.is_outer {
            for job in PUT_OFF.take().unwrap_or_default() {
                job();
            }
        }
    }
}

/// Whether this thread is about to answer somebody, and what is given back may wait until it has.
pub(crate) fn is_answering() -> bool {
    let put_off = PUT_OFF.take();
    let is_answering = put_off.is_some();
    PUT_OFF.set(put_off);
    is_answering
}

/// Does this when the thread has answered; at once where it answers nobody.
pub(crate) fn put_off(job: impl FnOnce() + 'static) {
    match PUT_OFF.take() {
        None => job(),
        Some(mut jobs) => {
            jobs.push(Box::new(job));
            PUT_OFF.set(Some(jobs));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    #[test]
    fn what_is_put_off_is_done_when_the_thread_has_answered() {
        let done = Rc::new(RefCell::new(Vec::new()));
        let later = |what: &'static str| {
            let done = done.clone();
            put_off(move || done.borrow_mut().push(what));
        };
        assert!(!is_answering());
        later("at once");
        let outer = Undone::begin();
        let inner = Undone::begin();
        later("in both");
        drop(inner);
        assert!(is_answering());
        later("in one");
        assert_eq!(*done.borrow(), ["at once"]);
        drop(outer);
        assert_eq!(*done.borrow(), ["at once", "in both", "in one"]);
        assert!(!is_answering());
    }

    #[test]
    fn what_that_puts_off_itself_is_done_at_once() {
        let done = Rc::new(Cell::new(false));
        let told = done.clone();
        let undone = Undone::begin();
        put_off(move || put_off(move || told.set(true)));
        drop(undone);
        assert!(done.get());
    }
}
