//! How fast attachments are asked for, each by itself and all together.

use std::time::Duration;

use tokio::time::Instant;

use crate::{domain::Retry, worker::backoff::Backoff};

/// After so many failures in a row, of whatever attachments, there is a breath before the next try. It is not
/// longer: anybody can send what fails, and what others send must not wait for it.
const IN_A_ROW: u32 = 5;
const BREATH: Duration = Duration::from_millis(100);
/// Between two tries of one attachment, at first and at most.
const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_hours(1);
/// Of one that met an outage, so that others try next whether it is over.
const OUTAGE_DELAY: Duration = Duration::from_secs(2);

/// When an attachment is tried again after so many tries.
pub(super) fn delay(tries: u32, asked: Option<Duration>) -> Duration {
    let grown = FIRST_DELAY.saturating_mul(2_u32.saturating_pow(tries));
    grown.max(asked.unwrap_or_default()).min(LONGEST_DELAY)
}

/// When one is tried again that met an outage; how long all of them wait is up to [`Pace`].
pub(super) fn during_outage(asked: Option<Duration>) -> Duration {
    OUTAGE_DELAY.max(asked.unwrap_or_default()).min(LONGEST_DELAY)
}

/// What a try did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tried {
    /// It was fetched, and recorded.
    Recorded,
    /// It is recorded that it cannot be had.
    Missed,
    Postponed,
    /// It failed as the others would.
    Outage(Option<Duration>),
}

/// How fast attachments are asked for.
pub(super) struct Pace {
    /// Nothing more is asked for until then.
    pub(super) paused_until: Instant,
    backoff: Backoff,
    failed: u32,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { paused_until: Instant::now(), backoff: Backoff::default(), failed: 0 }
    }

    pub(super) fn tried(&mut self, tried: Tried, now: Instant) {
        let pause = match tried {
            Tried::Recorded => {
                self.backoff.reset();
                self.failed = 0;
                return;
            }
            Tried::Missed => return,
            Tried::Postponed => {
                self.failed = self.failed.saturating_add(1);
                if self.failed < IN_A_ROW {
                    return;
                }
                BREATH
            }
            Tried::Outage(asked) => self.backoff.next(asked.map_or(Retry::Backoff, Retry::After)),
        };
        self.paused_until = self.paused_until.max(now + pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_up_to_an_hour_and_are_at_least_what_was_asked_for() {
        let seconds = |tries, asked: Option<u64>| delay(tries, asked.map(Duration::from_secs)).as_secs();
        assert_eq!([0, 1, 5, 11, 12, 400].map(|tries| seconds(tries, None)), [1, 2, 32, 2048, 3600, 3600]);
        assert_eq!([seconds(0, Some(30)), seconds(9, Some(30)), seconds(0, Some(1 << 40))], [30, 512, 3600]);
        let outage = |asked: Option<u64>| during_outage(asked.map(Duration::from_secs)).as_secs();
        assert_eq!([outage(None), outage(Some(30)), outage(Some(1 << 40))], [2, 30, 3600]);
    }

    #[tokio::test(start_paused = true)]
    async fn only_an_outage_stops_everything() {
        let (mut pace, start) = (Pace::new(), Instant::now());
        let mut pause = |tried, times: usize| {
            (0..times).for_each(|_| pace.tried(tried, start));
            let paused = pace.paused_until - start;
            pace.paused_until = start;
            paused
        };
        assert_eq!(pause(Tried::Postponed, 4), Duration::ZERO, "that happens");
        assert_eq!(pause(Tried::Postponed, 1000), BREATH);
        assert_eq!(pause(Tried::Outage(None), 1), Duration::from_millis(500));
        assert_eq!(pause(Tried::Outage(None), 20), Duration::from_mins(1));
        assert_eq!(pause(Tried::Missed, 1), Duration::ZERO);
        assert_eq!(pause(Tried::Outage(None), 1), Duration::from_mins(1), "a miss is no sign of its end");
        assert_eq!(pause(Tried::Recorded, 1), Duration::ZERO);
        assert_eq!(pause(Tried::Outage(None), 1), Duration::from_millis(500));
        assert_eq!(pause(Tried::Outage(Some(Duration::from_secs(40))), 1), Duration::from_secs(40));
    }
}
