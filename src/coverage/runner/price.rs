//! What asking costs the homeserver.

use std::collections::VecDeque;

use tokio::time::Duration;

use super::LONGEST_POLL;

/// So many answers tell the price.
const ANSWERS: usize = 8;

/// How long the homeserver took for the last answers to one kind of question. The shortest of these times is what the
/// question costs; the rest was waiting for others, which asking less would not change.
#[derive(Debug)]
pub(super) struct Price {
    /// Asking may take one of so many parts of the homeserver's time.
    parts: u32,
    answers: VecDeque<Duration>,
}

impl Price {
    pub(super) fn one_part_of(parts: u32) -> Self {
        Self { parts, answers: VecDeque::new() }
    }

    /// A question was answered in this time. The pause until the next one, so that asking takes no more than its part, once the
    /// last answers tell what it costs.
    pub(super) fn pause(&mut self, took: Duration, least: Duration) -> Duration {
        self.answers.push_front(took);
        self.answers.truncate(ANSWERS);
        let cost = self.answers.iter().min().copied().unwrap_or_default();
        least.max(cost.saturating_mul(self.parts.saturating_sub(1)).min(LONGEST_POLL))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_takes_its_part_of_the_time_and_one_slow_answer_is_no_price() {
        let ms = Duration::from_millis;
        let mut price = Price::one_part_of(10);
        assert_eq!(price.pause(ms(10), ms(300)), ms(300));
        assert_eq!(price.pause(ms(100), ms(300)), ms(300), "somebody else was first");
        for _ in 0..6 {
            price.pause(ms(100), ms(300));
        }
        assert_eq!(price.pause(ms(100), ms(300)), ms(900), "it has become dearer");
        assert_eq!(price.pause(ms(20), ms(300)), ms(300), "or cheaper");
        assert_eq!(Price::one_part_of(20).pause(ms(100), ms(300)), ms(1_900));
        assert_eq!(Price::one_part_of(10).pause(Duration::from_hours(1), ms(300)), LONGEST_POLL);
    }
}
