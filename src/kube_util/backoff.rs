//! Exponential backoff per object (no I/O; the random part of a delay is a parameter).

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// How often something has failed in a row, per key; the number of keys is bounded.
#[derive(Debug)]
pub struct Backoff<K> {
    base: Duration,
    max: Duration,
    capacity: usize,
    entries: Mutex<Entries<K>>,
}

#[derive(Debug)]
struct Entries<K> {
    failures: HashMap<K, Entry>,
    tick: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    failures: u32,
    last: u64,
}

impl<K: Eq + Hash + Clone> Backoff<K> {
    /// The first delay is `base`, each further one twice that, up to `max`.
    pub fn new(base: Duration, max: Duration, capacity: usize) -> Self {
        let entries = Mutex::new(Entries { failures: HashMap::new(), tick: 0 });
        Self { base, max, capacity: capacity.max(1), entries }
    }

    /// Counts a failure and says how long to wait: half of the delay is fixed, the other half is
    /// multiplied with `jitter` (0 to 1), so that objects that failed together do not return together.
    pub fn failed(&self, key: &K, jitter: f64) -> Duration {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.tick += 1;
        let tick = entries.tick;
        if entries.failures.len() >= self.capacity && !entries.failures.contains_key(key) {
            let oldest = entries.failures.iter().min_by_key(|(_, e)| e.last).map(|(k, _)| k.clone());
            if let Some(oldest) = oldest {
                entries.failures.remove(&oldest);
            }
        }
        let entry = entries.failures.entry(key.clone()).or_insert(Entry { failures: 0, last: tick });
        let doublings = entry.failures.min(30);
        entry.failures += 1;
        entry.last = tick;
        let full = self.base.saturating_mul(1 << doublings).min(self.max);
        full / 2 + (full / 2).mul_f64(jitter.clamp(0.0, 1.0))
    }

    /// Forgets the failures.
    pub fn succeeded(&self, key: &K) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).failures.remove(key);
    }

    /// Keys that failed last.
    pub fn len(&self) -> usize {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).failures.len()
    }

    /// Nothing has failed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff() -> Backoff<&'static str> {
        Backoff::new(Duration::from_secs(1), Duration::from_mins(1), 2)
    }

    #[test]
    fn delays_double_up_to_the_limit() {
        let backoff = backoff();
        let delays: Vec<u64> = (0..8).map(|_| backoff.failed(&"a", 1.0).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn the_jitter_takes_away_up_to_half() {
        let backoff = backoff();
        assert_eq!(backoff.failed(&"a", 0.0), Duration::from_millis(500));
        assert_eq!(backoff.failed(&"b", 0.5), Duration::from_millis(750));
    }

    #[test]
    fn keys_are_independent_and_a_success_starts_anew() {
        let backoff = backoff();
        backoff.failed(&"a", 1.0);
        backoff.failed(&"a", 1.0);
        assert_eq!(backoff.failed(&"b", 1.0).as_secs(), 1);
        backoff.succeeded(&"a");
        assert_eq!(backoff.failed(&"a", 1.0).as_secs(), 1);
    }

    #[test]
    fn the_number_of_keys_is_bounded_and_the_oldest_goes_first() {
        let backoff = backoff();
        for key in ["a", "b", "a", "c"] {
            backoff.failed(&key, 1.0);
        }
        assert_eq!(backoff.len(), 2);
        assert_eq!(backoff.failed(&"a", 1.0).as_secs(), 4, "a is still known");
    }

    #[test]
    fn a_very_long_series_does_not_overflow() {
        let backoff = backoff();
        for _ in 0..100 {
            assert!(backoff.failed(&"a", 1.0).as_secs() <= 60);
        }
    }
}
