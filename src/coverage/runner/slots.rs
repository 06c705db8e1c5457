//! How many rooms are visited at once, and in a second: fewer at once while the homeserver is slow, since its users wait too.
//! Rooms that somebody waits for have slots of their own and do not wait for that: there are as many as its users make.

use tokio::time::{Duration, Instant};

use crate::coverage::schedule::Free;

/// An answer that takes longer than this means that the homeserver is busy: what is asked of it takes a tenth of that.
const SLOW: Duration = Duration::from_secs(1);
/// So long after a change the next one is made: answers of before say nothing about it.
const SETTLE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Slots {
    most: usize,
    number: usize,
    changed_at: Instant,
    /// Time that each visit to a room nobody waits for takes up, however short it is.
    share: Duration,
    /// Until when that time is taken up.
    taken_until: Instant,
}

impl Slots {
    pub(super) fn new(most: usize, a_second: u32, now: Instant) -> Self {
        let (most, share) = (most.max(1), Duration::from_secs(1) / a_second.max(1));
        Self { most, number: most, changed_at: now, share, taken_until: now }
    }

    /// How many more visits may begin while so many to urgent rooms and to others are under way.
    pub(super) fn free(&self, urgent: usize, ordinary: usize, now: Instant) -> Free {
        let is_time = now >= self.taken_until;
        let ordinary = if is_time { self.number.saturating_sub(ordinary) } else { 0 };
        Free { urgent: self.most.saturating_sub(urgent), ordinary }
    }

    /// A visit to a room that nobody waits for begins.
    pub(super) fn begun(&mut self, now: Instant) {
        self.taken_until = self.taken_until.max(now) + self.share;
    }

    /// When visits may begin again, if it is not time yet.
    pub(super) fn opens_at(&self, now: Instant) -> Option<Instant> {
        (self.taken_until > now).then_some(self.taken_until)
    }

    /// The homeserver answered.
    pub(super) fn answered_in(&mut self, took: Duration, now: Instant) {
        if now.duration_since(self.changed_at) < SETTLE {
            return;
        }
        let wanted = if took > SLOW { (self.number / 2).max(1) } else { (self.number + 1).min(self.most) };
        if wanted != self.number {
            self.number = wanted;
            self.changed_at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_homeserver_is_asked_less_and_a_quick_one_more_again() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (slow, quick) = (Duration::from_secs(3), Duration::from_millis(30));
        let mut slots = Slots::new(4, 50, start);
        let mut after = |took, second| {
            slots.answered_in(took, at(second));
            assert_eq!(slots.free(3, 9, start), Free { urgent: 1, ordinary: 0 });
            slots.free(9, 0, start).ordinary
        };
        assert_eq!(after(slow, 1), 4, "of before");
        assert_eq!(after(slow, 2), 2);
        assert_eq!(after(slow, 3), 2, "of before");
        assert_eq!(after(slow, 4), 1);
        assert_eq!(after(slow, 6), 1);
        assert_eq!(after(quick, 8), 2);
        assert_eq!(after(quick, 10), 3);
        assert_eq!(after(quick, 12), 4);
        assert_eq!(after(quick, 14), 4);
    }

    #[test]
    fn no_more_visits_begin_in_a_second_than_is_allowed_however_quick_they_are() {
        let start = Instant::now();
        let mut slots = Slots::new(4, 50, start);
        let (mut begun, mut now) = (0, start);
        while now < start + Duration::from_secs(10) {
            for _ in 0..slots.free(0, 0, now).ordinary {
                slots.begun(now);
                begun += 1;
            }
            assert_eq!(slots.free(0, 0, now), Free { urgent: 4, ordinary: 0 }, "somebody waits for those");
            now = slots.opens_at(now).unwrap();
        }
        assert_eq!(begun, 500);
        assert_eq!(slots.free(0, 0, now).ordinary, 4);
        assert_eq!(slots.opens_at(now), None);
    }
}
