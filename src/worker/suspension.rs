//! Standing still and going on: from when to when nothing was captured is itself recorded, and a
//! crash in between forgets nothing.

use jiff::Timestamp;
use matrix_sdk::{
    config::{SyncSettings, SyncToken},
    deserialized_responses::TimelineEvent,
    ruma::{presence::PresenceState, uint},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    backoff::Backoff,
    board::Board,
    book,
    capture::{CURSOR, last_event_cursor, sync_filter},
    convert::diff,
    plan::summary,
    ports::InstructionsReceiver,
    recorder::{Recorder, Stop},
    records,
    session::{Session, classify},
};
use crate::{
    domain::{
        BotName, Failure,
        worker::{Check, Instructions, SuspendCapture},
    },
    store::Batch,
};

/// Cursor that says since when the bot is suspended, in milliseconds; empty when it is not.
const SUSPENDED: &str = "worker:suspended";
/// Cursor that keeps the configuration that was last recorded.
const CONFIGURATION: &str = "worker:configuration";

/// What was last recorded of the custom resource.
#[derive(Serialize, Deserialize)]
struct Recorded {
    /// Which state of it, as requests to change it name it.
    applied: Option<String>,
    /// What it says.
    summary: Value,
}

/// Notes that the Matrix side stands still from now on (or since it did before a restart).
pub(super) async fn begin(
    recorder: &Recorder,
    board: &Board,
    cancel: &CancellationToken,
) -> Result<(), Stop> {
    if since(recorder, cancel).await?.is_none() {
        let now = recorder.clock().now().as_millisecond().to_string();
        // What happens meanwhile, sync may never tell.
        let cursors = vec![(SUSPENDED.to_owned(), now), book::reopened()];
        let batch = Batch { cursors, ..Batch::default() };
        recorder.append(&batch, cancel).await?;
    }
    board.set(|report| {
        report.suspended = true;
        let check = || Check::unknown("Suspended", "spec.suspend stops the Matrix side of the bot");
        report.encryption = check();
        report.recording = check();
        report.rooms_covered = check();
        report.module = check();
    });
    Ok(())
}

async fn since(recorder: &Recorder, cancel: &CancellationToken) -> Result<Option<i64>, Stop> {
    let value = recorder.cursor(SUSPENDED, cancel).await?;
    Ok(value.and_then(|value| value.parse().ok()))
}

/// Goes on after a suspension, if there was one: with what happened meanwhile, or without.
pub(super) async fn resume(
    recorder: &Recorder,
    board: &Board,
    session: &Session,
    bot: &BotName,
    instructions: &InstructionsReceiver,
    cancel: &CancellationToken,
) -> Result<(), Stop> {
    let Some(from) = since(recorder, cancel).await? else { return Ok(()) };
    let told = instructions.borrow().clone();
    let mut cursors = Vec::new();
    // Whoever never synced has nothing to skip.
    let synced = recorder.cursor(CURSOR, cancel).await?.is_some();
    if told.suspend_capture == SuspendCapture::Skip && synced {
        cursors = skip_to_now(board, session, cancel).await?;
    }
    let mut batch = ended(bot, from, &told, recorder.clock().now());
    batch.cursors.extend(cursors);
    recorder.append(&batch, cancel).await.map(drop)
}

/// What ends a suspension, if there is one, of a bot that does not go on.
pub(super) async fn end(
    recorder: &Recorder,
    bot: &BotName,
    told: &Instructions,
    cancel: &CancellationToken,
) -> Result<Batch, Stop> {
    let from = since(recorder, cancel).await?;
    let now = recorder.clock().now();
    Ok(from.map(|from| ended(bot, from, told, now)).unwrap_or_default())
}

fn ended(bot: &BotName, from: i64, told: &Instructions, now: Timestamp) -> Batch {
    Batch {
        drafts: vec![records::suspended(bot, from, told, now)],
        cursors: vec![(SUSPENDED.to_owned(), String::new())],
        ..Batch::default()
    }
}

/// The cursors of this moment. Keys that were sent meanwhile are received all the same.
async fn skip_to_now(
    board: &Board,
    session: &Session,
    cancel: &CancellationToken,
) -> Result<Vec<(String, String)>, Stop> {
    let mut filter = sync_filter();
    filter.room.timeline.limit = Some(uint!(1));
    let mut backoff = Backoff::default();
    loop {
        let settings = SyncSettings::new()
            .token(SyncToken::NoToken)
            .filter(filter.clone().into())
            .timeout(std::time::Duration::ZERO)
            .set_presence(PresenceState::Offline);
        let response = tokio::select! {
            response = session.client.sync_once(settings) => response,
            () = cancel.cancelled() => return Err(Stop::Cancelled),
        };
        match response {
            Ok(response) => {
                let mut cursors = vec![(CURSOR.to_owned(), response.next_batch)];
                for (room, update) in response.rooms.joined {
                    let newest = update.timeline.events.iter().rev().find_map(TimelineEvent::event_id);
                    cursors.extend(newest.map(|id| (last_event_cursor(room.as_str()), id.to_string())));
                }
                return Ok(cursors);
            }
            Err(error) => {
                let error = classify(&error);
                board.set(|report| {
                    report.recording = Check::failed("SyncFailing", error.check().message);
                });
                if !backoff.wait(error.retry(), cancel).await {
                    return Err(Stop::Cancelled);
                }
            }
        }
    }
}

/// Records what changed in the configuration since it was last recorded.
pub(super) async fn note_configuration(
    recorder: &Recorder,
    bot: &BotName,
    instructions: &Instructions,
    cancel: &CancellationToken,
) -> Result<(), Stop> {
    let known = recorder.cursor(CONFIGURATION, cancel).await?;
    let known: Option<Recorded> = known.and_then(|text| serde_json::from_str(&text).ok());
    let (before, applied) = known.map_or((None, None), |known| (Some(known.summary), known.applied));
    let now = summary(instructions);
    let changes = diff("/spec", before.as_ref(), Some(&now));
    let time = recorder.clock().now();
    let mut batch = Batch::default();
    // A file has no life of its own that somebody could ask to change.
    let change = (!instructions.uid.is_empty()).then(|| instructions.change());
    if change.is_some() && applied != change {
        batch.drafts.push(records::applied(bot, applied.as_deref(), instructions, time));
    }
    if !changes.is_empty() {
        batch.drafts.push(records::configured(bot, instructions.generation, changes, time));
    }
    if batch.drafts.is_empty() {
        return Ok(());
    }
    let kept = serde_json::to_string(&Recorded { applied: change, summary: now }).unwrap_or_default();
    batch.cursors = vec![(CONFIGURATION.to_owned(), kept)];
    recorder.append(&batch, cancel).await.map(drop)
}
