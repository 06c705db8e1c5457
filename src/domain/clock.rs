//! Time as a parameter, so that tests decide what time it is.

use jiff::Timestamp;

/// Source of the current time.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The current instant.
    fn now(&self) -> Timestamp;
}

/// The clock of the machine; the only place that may ask it.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place where ambient time enters")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
