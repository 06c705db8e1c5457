//! Carries what waits in the console's database on to the trails, when these can be reached. Every replica does:
//! a message that two of them carry is the same message, which its trail records once.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, error::Elapsed, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    config,
    estate::Estate,
    metrics::Metrics,
    ports::{Inboxes, NotTaken},
};
use crate::{
    domain::{BotName, Failure as _},
    store::{
        StoreError,
        platform::{Page, Patience, PlatformStore, Which},
    },
};

/// What is due is looked for this often; the trail of a bot that is being deleted always is. Its worker waits for some
/// of these looks before it writes the last record.
const EVERY: Duration = Duration::from_secs(2);
/// So many trails at the same time, each with a page of messages in memory. Most of them can be those that could not
/// be reached before, which take a carrier for as long as a try takes; these must not hold up the others.
const CARRIERS: usize = 24;
const FOR_SILENT: usize = 18;
const PAGE: u32 = 100;
/// How long finding an inbox may take, and each message.
const TIMEOUT: Duration = Duration::from_secs(4);
/// After that no more messages of a page are begun, so that a replica that ends has given all of them back.
const PAGE_TIME: Duration = Duration::from_secs(12);
/// After that another replica gets the messages of one that died.
const LEASE: Duration = Duration::from_mins(1);
/// The longest time between two tries.
const SLOWEST: Duration = Duration::from_mins(2);
/// Which bots there are is said this often, and what waits is counted.
const COUNT: Duration = Duration::from_secs(15);
/// What waits for bots that there are not is looked for this often.
const SWEEP: Duration = Duration::from_mins(5);
const PATIENCE: Patience =
    Patience { proven: Duration::from_hours(30 * 24), unproven: Duration::from_hours(24) };

/// The part of the console that carries messages on.
#[derive(Clone)]
pub struct Forwarder {
    /// Where from.
    pub platform: Arc<dyn PlatformStore>,
    /// Where to.
    pub inboxes: Arc<dyn Inboxes>,
    /// Which bots there are, and which of them are being deleted.
    pub estate: watch::Receiver<Arc<Estate>>,
    /// What is counted.
    pub metrics: Metrics,
}

/// What carries the messages of one trail each.
#[derive(Default)]
struct Carriers {
    all: JoinSet<(bool, Result<(), StoreError>)>,
    /// How many of them try a trail that could not be reached before.
    silent: usize,
}

impl Carriers {
    /// For which trails there is one more.
    fn free(&self) -> Option<Which> {
        match (self.all.len() < CARRIERS, self.silent < FOR_SILENT) {
            (false, _) => None,
            (true, true) => Some(Which::All),
            (true, false) => Some(Which::Answering),
        }
    }

    /// The next one to end.
    async fn next(&mut self) -> Option<Result<(), StoreError>> {
        let ended = self.all.join_next().await?;
        // One that panicked is none of the silent ones any more, whichever it was.
        let (was_silent, outcome) = ended.unwrap_or((self.silent > 0, Ok(())));
        self.silent -= usize::from(was_silent);
        Some(outcome)
    }
}

impl Forwarder {
    /// Runs until cancelled, and then finishes what is under way.
    pub async fn run(self, soft: CancellationToken) {
        let (mut look, mut count, mut sweep) = (interval(EVERY), interval(COUNT), interval(SWEEP));
        for tick in [&mut look, &mut count, &mut sweep] {
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let mut carriers = Carriers::default();
        loop {
            let outcome = tokio::select! {
                () = soft.cancelled() => break,
                _ = look.tick() => self.hurry().await,
                _ = count.tick() => self.count().await,
                _ = sweep.tick() => self.sweep(PATIENCE).await,
                Some(ended) = carriers.next() => ended,
            };
            let outcome = match outcome {
                Ok(()) => self.begin(&mut carriers).await,
                error => error,
            };
            if let Err(error) = outcome {
                tracing::warn!(category = error.category(), %error, sqlstate = error.sqlstate(), "console's database");
            }
        }
        while carriers.next().await.is_some() {}
    }

    /// Begins with all trails that are due, as far as there are carriers.
    async fn begin(&self, carriers: &mut Carriers) -> Result<(), StoreError> {
        while let Some(which) = carriers.free() {
            let Some(page) = self.platform.take(PAGE, LEASE, which).await? else { return Ok(()) };
            let (this, is_silent) = (self.clone(), page.tries > 0);
            carriers.silent += usize::from(is_silent);
            carriers.all.spawn(async move { (is_silent, this.carry(page).await) });
        }
        Ok(())
    }

    /// Carries the messages of one trail on that is due. Returns whether there was one.
    pub async fn page(&self) -> Result<bool, StoreError> {
        let Some(page) = self.platform.take(PAGE, LEASE, Which::All).await? else { return Ok(false) };
        self.carry(page).await?;
        Ok(true)
    }

    async fn carry(&self, page: Page) -> Result<(), StoreError> {
        let carried = self.put(&page).await;
        let (done, left) = page.messages.split_at(carried);
        if !done.is_empty() {
            let done: Vec<i64> = done.iter().map(|message| message.id).collect();
            self.platform.done(&done).await?;
            self.metrics.forwarded(done.len());
        }
        if done.is_empty() && !left.is_empty() {
            self.platform.release(page.trail, delay(page.tries), page.tries.saturating_add(1)).await
        } else {
            self.platform.release(page.trail, Duration::ZERO, 0).await
        }
    }

    /// Returns how many of them the inbox has.
    async fn put(&self, page: &Page) -> usize {
        let began = Instant::now();
        let inbox = match timeout(TIMEOUT, self.inboxes.find(&page.bot)).await {
            Ok(Ok(inbox)) => inbox,
            failed => return still_waits(&page.bot, 0, failed.map(|found| found.map(drop))),
        };
        for (carried, message) in page.messages.iter().enumerate() {
            if began.elapsed() > PAGE_TIME {
                return carried;
            }
            match timeout(TIMEOUT, inbox.put(message.counter, &message.body)).await {
                Ok(Ok(())) => {}
                failed => return still_waits(&page.bot, carried, failed),
            }
        }
        page.messages.len()
    }

    /// The trail of a bot that is being deleted is about to be closed.
    pub async fn hurry(&self) -> Result<(), StoreError> {
        let leaving: Vec<BotName> = self.estate.borrow().leaving().cloned().collect();
        if leaving.is_empty() { Ok(()) } else { self.platform.hurry(&leaving).await }
    }

    /// Counts what waits. No console may have run for a while, so which bots there are is said first.
    pub async fn count(&self) -> Result<(), StoreError> {
        let estate = self.estate.borrow().clone();
        if estate.is_complete {
            let bots: Vec<BotName> = estate.everybody().cloned().collect();
            self.platform.seen(&bots).await?;
        }
        self.metrics.waiting(self.platform.totals(estate.is_complete).await?);
        Ok(())
    }

    /// Gives up what has been waiting for so long for bots that there are not.
    pub async fn sweep(&self, patience: Patience) -> Result<(), StoreError> {
        let estate = self.estate.borrow().clone();
        // Before all bots were listed there would seem to be none.
        if !estate.is_complete {
            return Ok(());
        }
        let bots: Vec<BotName> = estate.everybody().cloned().collect();
        self.inboxes.keep_only(&bots);
        self.platform.forget_known(&config::names(&estate)).await?;
        self.platform.seen(&bots).await?;
        let expired = self.platform.expire(patience).await?;
        if !expired.is_empty() {
            let records: u64 = expired.iter().map(|(_, records)| records).sum();
            // Whoever proves nothing makes names up: a few of them tell enough.
            let some: Vec<String> = expired.iter().take(10).map(|(bot, _)| bot.to_string()).collect();
            tracing::warn!(
                records,
                bots = expired.len(),
                ?some,
                "gave up records for bots that there are not"
            );
            self.metrics.expired(records);
        }
        Ok(())
    }
}

/// Says why no more than these are carried.
fn still_waits(bot: &BotName, carried: usize, failed: Result<Result<(), NotTaken>, Elapsed>) -> usize {
    let why = match failed {
        Ok(Ok(())) => String::new(),
        Ok(Err(error)) => error.to_string(),
        Err(elapsed) => elapsed.to_string(),
    };
    tracing::debug!(%bot, why, "records still wait");
    carried
}

fn delay(tries: u32) -> Duration {
    EVERY.saturating_mul(1 << tries.min(10)).min(SLOWEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_delivered_is_tried_again_at_growing_distance() {
        assert_eq!(delay(0), Duration::from_secs(2));
        assert_eq!(delay(3), Duration::from_secs(16));
        assert_eq!(delay(u32::MAX), SLOWEST);
    }

    #[test]
    fn a_page_is_given_back_before_another_replica_gets_it_and_before_the_process_ends() {
        let longest = TIMEOUT + PAGE_TIME + TIMEOUT;
        assert!(longest < LEASE);
        assert!(longest < Duration::from_secs(25), "the time that a process has to end");
    }
}
