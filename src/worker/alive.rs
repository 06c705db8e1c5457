//! Times in which nothing could be recorded, and that recording goes on although nothing happens.
//!
//! Once a minute it is noted that the worker is alive: after a crash the trail can say since when it was
//! not. While the database cannot be reached this is known only afterwards.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{
    board::Board,
    recorder::{Recorder, Stop},
    records,
};
use crate::{domain::BotName, store::Batch};

/// Cursor: when the worker was last known to be alive, in milliseconds since 1970.
pub(super) const CURSOR: &str = "worker:alive";
/// Cursor: the versions that were last recorded.
const VERSIONS: &str = "worker:versions";

const EVERY: Duration = Duration::from_mins(1);

/// The part of the worker that notes it.
pub(super) struct Alive {
    pub(super) bot: BotName,
    pub(super) recorder: Recorder,
    pub(super) board: Board,
    /// Programs and their versions, for example of the operator that made this pod.
    pub(super) versions: BTreeMap<&'static str, String>,
    /// The database may be away for less without a record.
    pub(super) moment: Duration,
}

impl Alive {
    /// Runs until cancelled, or until this process must end.
    pub(super) async fn run(self, cancel: CancellationToken) -> Result<(), Stop> {
        match cancel.run_until_cancelled(self.note(&cancel)).await {
            None | Some(Err(Stop::Cancelled) | Ok(())) => Ok(()),
            Some(Err(stop)) => Err(stop),
        }
    }

    fn now(&self) -> Timestamp {
        self.recorder.clock().now()
    }

    async fn note(&self, cancel: &CancellationToken) -> Result<(), Stop> {
        self.began(cancel).await?;
        // A beat waits for the database; that it is away is to be seen all the same.
        tokio::try_join!(self.beats(cancel), self.outages(cancel)).map(drop)
    }

    async fn beats(&self, cancel: &CancellationToken) -> Result<(), Stop> {
        let mut minutes = tokio::time::interval(EVERY);
        // After an outage of the database one beat is as good as many.
        minutes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            minutes.tick().await;
            self.beat(cancel).await?;
        }
    }

    async fn outages(&self, cancel: &CancellationToken) -> Result<(), Stop> {
        let mut reports = self.board.subscribe();
        let mut away_since: Option<Timestamp> = None;
        while reports.changed().await.is_ok() {
            let is_there = reports.borrow_and_update().database.ok != Some(false);
            match (away_since, is_there) {
                (None, false) => away_since = Some(self.now()),
                (Some(since), true) => {
                    self.was_away(since, cancel).await?;
                    away_since = None;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What was between the end of the worker before and this one.
    async fn began(&self, cancel: &CancellationToken) -> Result<(), Stop> {
        let mut batch = Batch::default();
        let last = self.recorder.cursor(CURSOR, cancel).await?;
        let now = self.now();
        if let Some(last) = last.and_then(|text| text.parse().ok()) {
            batch.drafts.push(records::interrupted(&self.bot, last, "the worker did not run", now));
        }
        let known = self.recorder.cursor(VERSIONS, cancel).await?;
        let known: BTreeMap<String, String> =
            known.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        for (program, version) in &self.versions {
            let before = known.get(*program).map(String::as_str);
            if before != Some(version) {
                batch.drafts.push(records::version_changed(&self.bot, program, before, version, now));
            }
        }
        let versions = serde_json::to_string(&self.versions).unwrap_or_default();
        batch.cursors =
            vec![(CURSOR.to_owned(), now.as_millisecond().to_string()), (VERSIONS.to_owned(), versions)];
        self.recorder.append(&batch, cancel).await.map(drop)
    }

    /// The record of an hour is there once, however often it is written.
    async fn beat(&self, cancel: &CancellationToken) -> Result<(), Stop> {
        let now = self.now();
        let batch = Batch {
            drafts: vec![records::heartbeat(&self.bot, now)],
            cursors: vec![(CURSOR.to_owned(), now.as_millisecond().to_string())],
            ..Batch::default()
        };
        self.recorder.append(&batch, cancel).await.map(drop)
    }

    async fn was_away(&self, since: Timestamp, cancel: &CancellationToken) -> Result<(), Stop> {
        let now = self.now();
        if now.duration_since(since).unsigned_abs() < self.moment {
            return Ok(());
        }
        let since = since.as_millisecond();
        let draft = records::interrupted(&self.bot, since, "the database could not be written to", now);
        self.recorder.append(&Batch { drafts: vec![draft], ..Batch::default() }, cancel).await.map(drop)
    }
}
