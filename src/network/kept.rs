//! The connections that a pool has, by origin: those that lie there, and how many are open.

use std::collections::HashMap;
use std::time::Instant;

use crate::network::origin::Origin;
use crate::network::places::Places;

/// A connection, as far as that matters here.
pub(crate) trait PooledConnection: Sized + Send + 'static {
    /// Whether a request may be sent on it.
    fn is_usable(&self) -> bool;

    /// Whether nothing has come since it was idle, not even what its task has yet to read: that would be taken for the next
    /// request's response.
    fn is_quiet(&self) -> bool;

    fn born(&self) -> Instant;

    /// Whether many requests may be under way on it at once (HTTP/2).
    fn is_shared(&self) -> bool;

    /// One more handle to it, if there may be one more request.
    fn share(&self) -> Option<Self>;

    /// Whether there are other handles.
    fn is_in_use(&self) -> bool;
}

/// Those of one origin.
pub(super) struct Kept<K> {
    pub open: usize,
    pub dialling: usize,
    /// Since when; the one that was used last is the last.
    pub idle: Vec<(K, Instant)>,
    /// Those that many use, and since when nobody has.
    pub shared: Vec<(K, Instant)>,
    /// Whether the last connection could be shared.
    pub shares: Option<bool>,
    /// Connections that one request alone has, by app.
    pub places: Places,
}

impl<K> Kept<K> {
    pub(super) const NONE: Self =
        Self { open: 0, dialling: 0, idle: Vec::new(), shared: Vec::new(), shares: None, places: Places::NONE };

    pub(super) fn is_empty(&self) -> bool {
        self.open == 0 && self.dialling == 0 && self.idle.is_empty() && self.shared.is_empty() && self.places.is_empty()
    }
}

impl<K: PooledConnection> Kept<K> {
    /// Takes out those that one request at a time uses, if they are over; to be dropped without the pool's lock.
    pub(super) fn end_idle(&mut self, left: &mut Vec<K>, is_over: impl Fn(&K) -> bool) {
        left.extend(self.idle.extract_if(.., |(one, _)| is_over(one)).map(|(one, _)| one));
    }

    /// Takes out those that many use, if they are over.
    pub(super) fn end_shared(&mut self, left: &mut Vec<K>, is_over: impl Fn(&K) -> bool) {
        left.extend(self.shared.extract_if(.., |(one, _)| is_over(one)).map(|(one, _)| one));
    }
}

/// All of a pool.
pub(super) struct Origins<K>(pub HashMap<Origin, Kept<K>>);

impl<K: PooledConnection> Origins<K> {
    /// Whether connections lie there that may have to be ended some time.
    pub(super) fn has_something(&self) -> bool {
        self.0.values().any(|kept| !kept.idle.is_empty() || !kept.shared.is_empty())
    }

    pub(super) fn of(&mut self, origin: &Origin, change: impl FnOnce(&mut Kept<K>)) {
        let Some(kept) = self.0.get_mut(origin) else { return };
        change(kept);
        if kept.is_empty() {
            self.0.remove(origin);
        }
    }

    /// The one that has been idle for longest.
    pub(super) fn evict(&mut self) -> Option<K> {
        let mut oldest: Option<(Instant, Origin, bool, usize)> = None;
        for (origin, kept) in &self.0 {
            let idle = kept.idle.iter().enumerate().map(|(place, (_, since))| (*since, false, place));
            let free = kept.shared.iter().enumerate().filter(|(_, (one, _))| !one.is_in_use());
            for (since, is_shared, place) in idle.chain(free.map(|(place, (_, since))| (*since, true, place))) {
                if oldest.as_ref().is_none_or(|(than, ..)| since < *than) {
                    oldest = Some((since, origin.clone(), is_shared, place));
                }
            }
        }
        let (_, origin, is_shared, place) = oldest?;
        let kept = self.0.get_mut(&origin)?;
        let from = if is_shared { &mut kept.shared } else { &mut kept.idle };
        (place < from.len()).then(|| from.remove(place).0)
    }

    /// Takes out those that are over. Since when the oldest of the others has lain there.
    pub(super) fn reap(
        &mut self,
        now: Instant,
        is_over: impl Fn(&K, Instant) -> bool,
        left: &mut Vec<K>,
    ) -> Option<Instant> {
        let mut next = None;
        for kept in self.0.values_mut() {
            left.extend(kept.idle.extract_if(.., |(one, since)| is_over(one, *since)).map(|(one, _)| one));
            for (one, since) in &mut kept.shared {
                if one.is_in_use() {
                    *since = now;
                }
            }
            left.extend(kept.shared.extract_if(.., |(one, since)| is_over(one, *since)).map(|(one, _)| one));
            let oldest = kept.idle.iter().chain(&kept.shared).map(|(_, since)| *since).min();
            next = [next, oldest].into_iter().flatten().min();
        }
        self.0.retain(|_, kept| !kept.is_empty());
        next
    }
}
