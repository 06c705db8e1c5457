//! Waiting between attempts: longer with every failure in a row, as asked for by the other side,
//! and never past a cancellation.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::domain::Retry;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_mins(1);
/// However long the other side asks for: nothing is captured meanwhile, and it may be mistaken.
const LONGEST_ASKED: Duration = Duration::from_mins(5);
/// A person has to do something, and nothing will tell us when: look again now and then.
const HOPELESS: Duration = Duration::from_mins(1);

/// Counts the failures in a row.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// So many failures in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// The time to wait after one more failure.
    pub(crate) fn next(&mut self, retry: Retry) -> Duration {
        let grown = FIRST.saturating_mul(2_u32.saturating_pow(self.failures)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        match retry {
            Retry::Never => HOPELESS,
            Retry::Backoff => grown,
            Retry::After(asked) => asked.clamp(FIRST, LONGEST_ASKED),
        }
    }

    /// Waits; `false` if cancelled meanwhile.
    pub(crate) async fn wait(&mut self, retry: Retry, cancel: &CancellationToken) -> bool {
        let delay = self.next(retry);
        tokio::select! {
            () = tokio::time::sleep(delay) => true,
            () = cancel.cancelled() => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_up_to_a_minute_and_does_as_asked_within_reason() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next(Retry::Backoff), Duration::from_millis(500));
        assert_eq!(backoff.next(Retry::Backoff), Duration::from_secs(1));
        assert_eq!(backoff.next(Retry::After(Duration::from_secs(7))), Duration::from_secs(7));
        assert_eq!(backoff.next(Retry::After(Duration::from_hours(24))), LONGEST_ASKED);
        for _ in 0..40 {
            assert!(backoff.next(Retry::Backoff) <= LONGEST);
        }
        backoff.reset();
        assert_eq!(backoff.next(Retry::Backoff), FIRST);
        assert_eq!(backoff.next(Retry::Never), HOPELESS);
        assert_eq!(backoff.next(Retry::After(Duration::ZERO)), FIRST);
    }
}
