//! What asking costs the homeserver.

use std::collections::VecDeque;

use tokio::time::Duration;

use super::LONGEST_POLL;

/// So many answers tell the price.
const ANSWERS: usize = 8;

/// How long the homeserver took for the last answers to one kind of question. The shortest of these times is what the
/// question costs; the rest was waiting for others, which asking less would not change.
#[derive(Debug, Default)]
pub(super) struct Price(VecDeque<Duration>);

impl Price {
    /// A question was answered in this time. The pause until the next one, so that asking takes a tenth of the homeserver's
    /// time at most, once the last answers tell what it costs.
    pub(super) fn pause(&mut self, took: Duration, least: Duration) -> Duration {
        self.0.push_front(took);
        self.0.truncate(ANSWERS);
        let cost = self.0.iter().min().copied().unwrap_or_default();
        least.max(cost.saturating_mul(9).min(LONGEST_POLL))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_takes_a_tenth_of_the_time_and_one_slow_answer_is_no_price() {
        let ms = Duration::from_millis;
        let mut price = Price::default();
        assert_eq!(price.pause(ms(10), ms(300)), ms(300));
        assert_eq!(price.pause(ms(100), ms(300)), ms(300), "somebody else was first");
        for _ in 0..6 {
            price.pause(ms(100), ms(300));
        }
        assert_eq!(price.pause(ms(100), ms(300)), ms(900), "it has become dearer");
        assert_eq!(price.pause(ms(20), ms(300)), ms(300), "or cheaper");
        assert_eq!(Price::default().pause(Duration::from_hours(1), ms(300)), LONGEST_POLL);
    }
}
