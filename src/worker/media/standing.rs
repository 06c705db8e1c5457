//! What people are told of the attachments that wait (pure).

use std::time::Duration;

use tokio::time::Instant;

use crate::{store::AttachmentTotals, worker::sources::Standing};

/// So many that were just sent are more than a moment's work.
const MANY: u64 = 20;
/// An outage that nothing has met again for so long is over, even if nothing was fetched since.
const OVER: Duration = Duration::from_mins(10);

/// Why none can be had at the moment, and since when it was not met again.
#[derive(Debug)]
struct Outage {
    why: String,
    met: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Progress {
    totals: AttachmentTotals,
    outage: Option<Outage>,
}

impl Progress {
    /// What was counted.
    pub(super) fn counted(&mut self, totals: AttachmentTotals, now: Instant) {
        self.totals = totals;
        let is_over = |outage: &Outage| now.saturating_duration_since(outage.met) > OVER;
        if totals.waiting == 0 || self.outage.as_ref().is_some_and(is_over) {
            self.outage = None;
        }
    }

    /// One was fetched and kept: whatever hindered that does so no more.
    pub(super) fn kept(&mut self) {
        self.outage = None;
    }

    /// None can be had; `true` if that is news.
    pub(super) fn hindered(&mut self, why: String, now: Instant) -> bool {
        let is_news = self.outage.as_ref().is_none_or(|outage| outage.why != why);
        self.outage = Some(Outage { why, met: now });
        is_news
    }

    /// What can be had and waits, however small the part of it that cannot, is soon fetched; what fails is a
    /// number in a metric: anybody can send the address of a media that nobody has.
    pub(super) fn standing(&self, is_wanted: bool) -> Standing {
        let AttachmentTotals { waiting, failing } = self.totals;
        let wait = format!("{} wait", about(waiting));
        match &self.outage {
            Some(Outage { why, .. }) => Standing::Lagging(format!("{wait}: {why}")),
            None if waiting.saturating_sub(failing) >= MANY => Standing::Lagging(wait),
            None if is_wanted => Standing::On,
            None => Standing::Off("not asked for".to_owned()),
        }
    }
}

/// A number that moves seldom enough for a sentence that is reported at once.
fn about(number: u64) -> String {
    match number.checked_ilog10() {
        None | Some(0) => "a few".to_owned(),
        Some(digits) => format!("{} or more", 10_u64.pow(digits)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(waiting: u64, failing: u64) -> Progress {
        Progress { totals: AttachmentTotals { waiting, failing }, outage: None }
    }

    #[test]
    fn the_condition_moves_with_the_magnitude_only() {
        let say = |waiting, failing| progress(waiting, failing).standing(true);
        let lagging = |why: &str| Standing::Lagging(why.to_owned());
        assert_eq!(say(0, 0), Standing::On);
        assert_eq!(say(19, 0), Standing::On);
        assert_eq!(say(20, 0), say(99, 0));
        assert_eq!(say(123, 0), lagging("100 or more wait"));
        assert_eq!(progress(0, 0).standing(false).slug(), "off");
    }

    #[test]
    fn what_nobody_can_have_is_no_lag() {
        assert_eq!(progress(1, 1).standing(true), Standing::On);
        assert_eq!(progress(5000, 4990).standing(true), Standing::On);
        assert_eq!(progress(5000, 4980).standing(true).slug(), "lagging");
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_told_once_and_ends_with_a_success_or_when_nothing_meets_it_any_more() {
        let (mut progress, start) = (progress(3, 0), Instant::now());
        let why = || "the bucket refuses its keys".to_owned();
        assert!(progress.hindered(why(), start));
        assert!(!progress.hindered(why(), start));
        let lagging = Standing::Lagging("a few wait: the bucket refuses its keys".to_owned());
        assert_eq!(progress.standing(true), lagging);
        progress.counted(progress.totals, start + OVER);
        assert_eq!(progress.standing(true), lagging);
        progress.counted(progress.totals, start + OVER + Duration::from_secs(1));
        assert_eq!(progress.standing(true), Standing::On);
        assert!(progress.hindered(why(), start));
        progress.kept();
        assert_eq!(progress.standing(true), Standing::On);
        progress.hindered(why(), start);
        progress.counted(AttachmentTotals::default(), start);
        assert_eq!(progress.standing(true), Standing::On);
    }
}
