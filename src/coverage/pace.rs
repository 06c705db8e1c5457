//! How fast rooms are settled.

use std::collections::VecDeque;

use tokio::time::{Duration, Instant};

use crate::domain::worker::Pace;

/// What happened longer ago says nothing about now.
const WINDOW: Duration = Duration::from_mins(1);
/// A shorter time says nothing yet.
const SHORTEST: Duration = Duration::from_secs(5);

/// When rooms were settled: that is, visited for the first time since they appeared, to the end.
#[derive(Debug)]
pub(super) struct Pacer {
    since: Instant,
    settled: VecDeque<Instant>,
}

impl Pacer {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, settled: VecDeque::new() }
    }

    pub(super) fn settled(&mut self, now: Instant) {
        self.settled.push_back(now);
    }

    /// The pace, while rooms are pending and it can be told.
    pub(super) fn pace(&mut self, pending: u64, now: Instant) -> Option<Pace> {
        while self.settled.front().is_some_and(|at| now.duration_since(*at) > WINDOW) {
            self.settled.pop_front();
        }
        let span = now.duration_since(self.since).min(WINDOW);
        let settled = u128::try_from(self.settled.len()).unwrap_or_default();
        if pending == 0 || settled == 0 || span < SHORTEST {
            return None;
        }
        let per_minute = settled * 60_000 / span.as_millis();
        let remaining = u128::from(pending) * span.as_millis() / settled / 1000;
        let whole = |number: u128| u64::try_from(number).unwrap_or(u64::MAX);
        Some(Pace { per_minute: whole(per_minute), remaining_seconds: whole(remaining) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_minute_tells_how_long_the_rest_takes() {
        let start = Instant::now();
        let at = |second: u64| start + Duration::from_secs(second);
        let mut pacer = Pacer::new(start);
        for second in 0..120 {
            assert_eq!(pacer.pace(0, at(second)), None, "nothing to do");
            // Two a second in the first minute, one in the second.
            for _ in 0..if second < 60 { 2 } else { 1 } {
                pacer.settled(at(second));
            }
        }
        let pace = pacer.pace(300, at(120)).unwrap();
        assert!((58..=61).contains(&pace.per_minute), "{pace:?}");
        assert!((295..=310).contains(&pace.remaining_seconds), "{pace:?}");
        assert_eq!(pacer.pace(300, at(400)), None, "it has come to a stop");
        assert_eq!(Pacer::new(start).pace(300, at(4)), None, "too early to tell");
    }
}
