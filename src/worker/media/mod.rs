//! The attachments of messages: what was queued with a message's record is fetched beside capture,
//! measured, kept where the custom resource says, and recorded. What cannot be had now is tried again
//! later, for a month.

mod bucket;
mod content;
mod fetch;
mod keep;
mod outcome;
mod pace;
mod standing;
mod wanted;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

pub use self::bucket::{Bucket, BucketError, BucketSettings};
use self::{
    fetch::Repository,
    outcome::{Failed, Measured, Miss},
    pace::{Pace, Tried, delay},
    standing::Progress,
    wanted::Wanted,
};
use super::{
    metrics::Metrics,
    ports::InstructionsReceiver,
    recorder::{Recorder, Stop},
    session::Session,
    sources::{Source, Sources},
};
use crate::{
    domain::{
        BotName,
        record::RecordDraft,
        worker::{MediaMode, MediaPolicy},
    },
    store::{Batch, NewAttachment, QueuedAttachment, Turn},
};

/// Attachments that are fetched at the same time; each is held in memory.
const AT_ONCE: usize = 2;
/// Of these, attachments that failed before: whoever sends what never comes must not hold up the rest.
const AGAIN_AT_ONCE: usize = 1;
/// Attachments that are asked for: those that are under way are still in the queue.
const DUE: u32 = 4;
/// The queue is looked at this often, even if nobody says that there is something.
const LOOK: Duration = Duration::from_secs(30);
/// What waits is counted this often while something is fetched.
const COUNT: Duration = Duration::from_secs(1);
/// So many are counted as seldom as the queue is looked at: each of them is read for it.
const SLOW_TO_COUNT: u64 = 1000;
/// So many tries that failed are worth telling.
const FAILING: u32 = 4;

/// Which attachments are wanted.
#[derive(Clone)]
pub(crate) struct Wants {
    instructions: InstructionsReceiver,
}

impl Wants {
    pub(crate) fn new(instructions: InstructionsReceiver) -> Self {
        Self { instructions }
    }

    fn policy(&self) -> Option<MediaPolicy> {
        self.instructions.borrow().media.clone()
    }

    fn is_any(&self) -> bool {
        self.instructions.borrow().media.is_some()
    }

    /// The attachments of a record's message, to be queued with it.
    pub(crate) fn of(&self, draft: &RecordDraft) -> Vec<NewAttachment> {
        if self.is_any() { wanted::attachments(draft) } else { Vec::new() }
    }
}

/// What the part is made of.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) bot: BotName,
    pub(crate) recorder: Recorder,
    pub(crate) metrics: Metrics,
    pub(crate) sources: Sources,
    pub(crate) wants: Wants,
    /// Where the content goes, if not into the database.
    pub(crate) bucket: Option<Bucket>,
}

/// The part of the worker that fetches attachments.
#[derive(Clone)]
pub(crate) struct Keeper {
    parts: Parts,
    repository: Repository,
    progress: Arc<Mutex<Progress>>,
    /// One content at a time goes to the database or the bucket, which copies it.
    storing: Arc<Semaphore>,
}

impl Keeper {
    /// `http` leads to the homeserver as the session's own client does.
    pub(crate) fn new(parts: Parts, session: &Session, http: reqwest::Client) -> Self {
        let client = session.client.clone();
        let repository = Repository { http, homeserver: client.homeserver(), client };
        Self { parts, repository, progress: Arc::default(), storing: Arc::new(Semaphore::new(1)) }
    }

    /// Notes what is known now, and lets the source stand accordingly.
    fn note<T>(&self, change: impl FnOnce(&mut Progress) -> T) -> T {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = change(&mut progress);
        self.parts.sources.set(Source::Attachments, progress.standing(self.parts.wants.is_any()));
        noted
    }

    /// Runs until cancelled, or until this process must end.
    pub(crate) async fn run(self, cancel: CancellationToken) -> Result<(), Stop> {
        let mut tries = JoinSet::new();
        let result = self.follow(&mut tries, &cancel).await;
        // They see the cancellation, too, and finish what they record.
        if result.is_err() {
            tries.abort_all();
        }
        while tries.join_next().await.is_some() {}
        match result {
            Err(Stop::Cancelled) => Ok(()),
            other => other,
        }
    }

    async fn follow(
        &self,
        tries: &mut JoinSet<(i64, Result<Tried, Stop>)>,
        cancel: &CancellationToken,
    ) -> Result<(), Stop> {
        let (mut busy, mut pace) = (BTreeMap::new(), Pace::new());
        let mut count = Instant::now();
        loop {
            let mut next = pace.paused_until;
            if next <= Instant::now() {
                let now = self.parts.recorder.clock().now();
                self.begin(tries, &mut busy, now, cancel).await?;
                if count <= Instant::now() || (tries.is_empty() && count <= Instant::now() + COUNT) {
                    count = self.count(cancel).await?;
                }
                next = self.next(now, cancel).await?;
                if !tries.is_empty() {
                    next = next.min(count);
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                Some(ended) = tries.join_next() => {
                    let (id, result) = ended.map_err(|error| Stop::Broken(error.to_string()))?;
                    busy.remove(&id);
                    let outcome = result?;
                    if outcome == Tried::Recorded {
                        self.note(Progress::kept);
                    }
                    pace.tried(outcome, Instant::now());
                }
                () = self.parts.recorder.attachments_queued() => {}
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    /// Begins with as many as there are places.
    async fn begin(
        &self,
        tries: &mut JoinSet<(i64, Result<Tried, Stop>)>,
        busy: &mut BTreeMap<i64, Turn>,
        now: Timestamp,
        cancel: &CancellationToken,
    ) -> Result<(), Stop> {
        for (turn, most) in [(Turn::Again, AGAIN_AT_ONCE), (Turn::First, AT_ONCE)] {
            let has_place = |busy: &BTreeMap<i64, Turn>| {
                busy.len() < AT_ONCE && busy.values().filter(|other| **other == turn).count() < most
            };
            if !has_place(busy) {
                continue;
            }
            for item in self.parts.recorder.attachments(now, turn, DUE, cancel).await? {
                if has_place(busy) && !busy.contains_key(&item.id) {
                    busy.insert(item.id, turn);
                    let (keeper, cancel) = (self.clone(), cancel.clone());
                    let attend = async move { (item.id, keeper.attend(item, &cancel).await) };
                    tries.spawn(attend.in_current_span());
                }
            }
        }
        Ok(())
    }

    /// Counts what waits; the result is when to count again.
    async fn count(&self, cancel: &CancellationToken) -> Result<Instant, Stop> {
        let totals = self.parts.recorder.attachment_totals(FAILING, cancel).await?;
        self.note(|progress| progress.counted(totals, Instant::now()));
        self.parts.metrics.attachments_waiting(totals.waiting, totals.failing);
        Ok(Instant::now() + if totals.waiting < SLOW_TO_COUNT { COUNT } else { LOOK })
    }

    /// When to look again: when the first is due that was not at this time. For those that were there is a place
    /// when a try ends.
    async fn next(&self, now: Timestamp, cancel: &CancellationToken) -> Result<Instant, Stop> {
        let next = self.parts.recorder.next_attachment(now, cancel).await?;
        let now = self.parts.recorder.clock().now();
        let due = next.map(|next| Duration::try_from(next.duration_since(now)).unwrap_or_default());
        Ok(Instant::now() + due.unwrap_or(LOOK).min(LOOK))
    }

    async fn attend(&self, item: QueuedAttachment, cancel: &CancellationToken) -> Result<Tried, Stop> {
        let policy = self.parts.wants.policy();
        let wanted: Option<Wanted> = serde_json::from_str(&item.wanted).ok();
        let found = match (&policy, &wanted) {
            (Some(policy), Some(wanted)) => self.obtain(wanted, policy, item.tries, cancel).await?,
            (None, _) => Err(Miss::Policy.into()),
            (_, None) => Err(Miss::Unreadable.into()),
        };
        let age = self.parts.recorder.clock().now().duration_since(item.queued_at);
        let found = match found {
            Ok(measured) => Ok(measured),
            Err(failed) => match failed.last(item.tries, age) {
                Some(miss) => Err(miss),
                None => return self.postpone(&item, failed, cancel).await,
            },
        };
        let mode = policy.map_or(MediaMode::Content, |policy| policy.mode);
        let wanted =
            wanted.unwrap_or_else(|| Wanted { source_id: format!("queue:{}", item.id), ..Wanted::default() });
        self.record(item.id, &wanted, mode, found, cancel).await
    }

    /// Fetches an attachment and keeps it as the policy says.
    async fn obtain(
        &self,
        wanted: &Wanted,
        policy: &MediaPolicy,
        tries: u32,
        cancel: &CancellationToken,
    ) -> Result<Result<Measured, Failed>, Stop> {
        if self.waits_for_its_bucket(policy) {
            return Ok(Err(Failed::outage("the worker waits for the bucket of the custom resource")));
        }
        let fetch = self.repository.fetch(&wanted.mxc, policy.maximum_bytes, tries);
        let content = match cancel.run_until_cancelled(fetch).await.ok_or(Stop::Cancelled)? {
            Ok(content) => content,
            Err(failed) => return Ok(Err(failed)),
        };
        let (file, keep) = (wanted.file.clone(), policy.mode == MediaMode::Content);
        let opened = tokio::task::spawn_blocking(move || content::open(content, file.as_deref(), keep));
        let opened = match opened.await.map_err(|error| Stop::Broken(error.to_string()))? {
            Ok(opened) => opened,
            Err(failed) => return Ok(Err(failed)),
        };
        if keep { self.keep(opened, cancel).await } else { Ok(Ok(opened.measured)) }
    }

    async fn postpone(
        &self,
        item: &QueuedAttachment,
        failed: Failed,
        cancel: &CancellationToken,
    ) -> Result<Tried, Stop> {
        let (why, asked, outage) = match failed {
            Failed::Later { why, asked, outage } => (why, asked, outage),
            Failed::Never(miss) | Failed::Perhaps(miss) => (miss.reason().to_owned(), None, false),
        };
        tracing::debug!(why, tries = item.tries, "an attachment cannot be fetched yet");
        let recorder = &self.parts.recorder;
        // It is not this attachment's fault that there is an outage: its own delay does not grow.
        let wait = if outage { pace::during_outage(asked) } else { delay(item.tries, asked) };
        let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
        let until = recorder.clock().now().saturating_add(wait).unwrap_or(Timestamp::MAX);
        recorder.postpone_attachment(item.id, until, !outage, cancel).await?;
        if !outage {
            return Ok(Tried::Postponed);
        }
        if self.note(|progress| progress.hindered(why.clone(), Instant::now())) {
            tracing::warn!(why, "attachments cannot be fetched now");
        }
        Ok(Tried::Outage(asked))
    }

    async fn record(
        &self,
        id: i64,
        wanted: &Wanted,
        mode: MediaMode,
        found: Result<Measured, Miss>,
        cancel: &CancellationToken,
    ) -> Result<Tried, Stop> {
        let recorder = &self.parts.recorder;
        let draft = outcome::record(&self.parts.bot, wanted, mode, found, recorder.clock().now());
        let batch = Batch { drafts: vec![draft], attended: vec![id], ..Batch::default() };
        recorder.append(&batch, cancel).await?;
        self.parts.metrics.attachment(outcome::verb(mode, found).action);
        // That something cannot be had does not say that anything else can.
        Ok(if found.is_ok() { Tried::Recorded } else { Tried::Missed })
    }
}
