//! A brake for an object that somebody else changes as often as it is put right (no I/O; the time is a parameter).

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// So often an object is put right at once, if it happens within [`WINDOW`].
const FREE: u32 = 5;
/// Who has not interfered for so long has stopped.
const WINDOW: Duration = Duration::from_mins(1);
/// The first delay; each further one is twice that.
const FIRST: Duration = Duration::from_secs(30);

/// When objects were put right, by their descriptions.
#[derive(Debug)]
pub struct Brake {
    max: Duration,
    capacity: usize,
    entries: Mutex<HashMap<String, Entry>>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// What was wanted, as a hash: to want something else is no fight.
    wanted: u64,
    /// How often the same was put right in a row.
    restores: u32,
    began: Instant,
    /// Not again before this.
    until: Instant,
}

impl Brake {
    /// Delays grow up to `max`. Of more than `capacity` objects those are forgotten that are left in peace.
    pub fn new(max: Duration, capacity: usize) -> Self {
        Self { max, capacity, entries: Mutex::default() }
    }

    /// For how long the object is not to be written, although it is not as it is wanted; `None` if it is to be now.
    pub fn wait(&self, object: &str, wanted: u64, now: Instant) -> Option<Duration> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(object).filter(|entry| entry.wanted == wanted && now < entry.until)?;
        Some(entry.until - now)
    }

    /// The object was put right. A write that failed is none: it is the API server that then sets the pace.
    pub fn wrote(&self, object: &str, wanted: u64, now: Instant) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= self.capacity && !entries.contains_key(object) {
            entries.retain(|_, entry| !entry.is_over(now));
        }
        let new = Entry { wanted, restores: 0, began: now, until: now };
        let entry = entries.entry(object.to_owned()).or_insert(new);
        if entry.wanted != wanted || entry.is_over(now) {
            *entry = new;
        }
        entry.restores += 1;
        if let Some(doublings) = entry.restores.checked_sub(FREE) {
            entry.until = now + FIRST.saturating_mul(1 << doublings.min(16)).min(self.max);
        }
    }
}

impl Entry {
    fn is_over(&self, now: Instant) -> bool {
        now >= self.began.max(self.until) + WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// After how many seconds each of `count` writes is made, of an object that somebody changes back at once.
    fn writes(brake: &Brake, mut now: Instant, count: usize) -> Vec<u64> {
        let start = now;
        let write = |_| {
            now += SECOND;
            while let Some(wait) = brake.wait("it", 1, now) {
                now += wait;
            }
            brake.wrote("it", 1, now);
            (now - start).as_secs()
        };
        (0..count).map(write).collect()
    }

    #[tokio::test]
    async fn a_fight_gets_slower_and_slower() {
        let (brake, start) = (Brake::new(Duration::from_secs(100), 9), Instant::now());
        assert_eq!(writes(&brake, start, 9), [1, 2, 3, 4, 5, 35, 95, 195, 295]);
    }

    #[tokio::test]
    async fn who_stops_for_a_minute_has_stopped() {
        let (brake, start) = (Brake::new(Duration::from_secs(100), 9), Instant::now());
        writes(&brake, start, 5);
        assert_eq!(brake.wait("it", 1, start + 6 * SECOND), Some(29 * SECOND));
        // The brake lets go after 35 seconds, and a minute later all is well.
        assert_eq!(writes(&brake, start + 95 * SECOND, 5), [1, 2, 3, 4, 5]);
    }

    #[tokio::test]
    async fn what_happens_rarely_is_no_fight() {
        let (brake, start) = (Brake::new(Duration::from_secs(100), 9), Instant::now());
        for turn in 0..50 {
            let now = start + turn * 20 * SECOND;
            assert_eq!(brake.wait("it", 1, now), None);
            brake.wrote("it", 1, now);
        }
    }

    #[tokio::test]
    async fn to_want_something_else_is_no_fight_and_objects_do_not_share() {
        let (brake, start) = (Brake::new(Duration::from_secs(100), 2), Instant::now());
        writes(&brake, start, 5);
        assert_eq!(brake.wait("another", 1, start + 6 * SECOND), None);
        for wanted in 2..20 {
            assert_eq!(brake.wait("it", wanted, start + 6 * SECOND), None);
            brake.wrote("it", wanted, start + 6 * SECOND);
        }
    }

    #[tokio::test]
    async fn only_objects_in_peace_are_forgotten() {
        let (brake, start) = (Brake::new(Duration::from_secs(100), 2), Instant::now());
        brake.wrote("quiet", 1, start);
        writes(&brake, start + 59 * SECOND, 5);
        brake.wrote("another", 1, start + 65 * SECOND);
        let entries = brake.entries.lock().unwrap();
        assert!(!entries.contains_key("quiet") && entries.contains_key("it"), "{entries:?}");
    }
}
