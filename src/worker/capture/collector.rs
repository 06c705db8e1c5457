//! Events become records, and records become batches of bounded size.

use tokio_util::sync::CancellationToken;

use super::{
    Scope,
    lookup::{Lookup, Standpoint},
    received::{Received, Secrecy, session_of},
};
use crate::{
    domain::{EventId, RoomId, UserId, record::RecordDraft},
    store::{Batch, PendingEvent},
    worker::{
        convert::{convert, needs, read},
        media::Wants,
        ports::Presence,
        recorder::{Recorder, Stop},
    },
};

/// Records in one transaction, and bytes of their sources: memory is bounded by such batches, one of news and one of late
/// keys, and by one page of history.
const MAX_RECORDS: usize = 500;
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// What a record says whose source is not what was received.
const NO_CIPHERTEXT: &str = "the homeserver does not give the ciphertext: the source is the plaintext";

/// Why an event is told now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It has just happened, or since the last answer, or is so now.
    New,
    /// It has happened since the last answer, and sync left it out: it comes from the history.
    Missed,
    /// It is history to the bot, which was told how the room is when it came.
    Before,
    /// It was told before, and its key came only now.
    Late,
}

/// Where a part of a batch ends.
#[derive(Debug, Clone, Copy)]
struct End {
    drafts: usize,
    pending: usize,
    resolved: usize,
    attachments: usize,
}

impl End {
    fn of(batch: &Batch) -> Self {
        Self {
            drafts: batch.drafts.len(),
            pending: batch.pending.len(),
            resolved: batch.resolved.len(),
            attachments: batch.attachments.len(),
        }
    }
}

/// The parts of a batch, of which the last one has what follows the last end.
fn split(mut batch: Batch, ends: Vec<End>) -> Vec<Batch> {
    let mut parts = Vec::with_capacity(ends.len() + 1);
    for End { drafts, pending, resolved, attachments } in ends.into_iter().rev() {
        parts.push(Batch {
            drafts: batch.drafts.split_off(drafts),
            pending: batch.pending.split_off(pending),
            resolved: batch.resolved.split_off(resolved),
            attachments: batch.attachments.split_off(attachments),
            ..Batch::default()
        });
    }
    parts.push(batch);
    parts.reverse();
    parts
}

/// Gathers the records of one response.
pub(crate) struct Collector<'a> {
    recorder: &'a Recorder,
    lookup: &'a Lookup,
    presence: &'a dyn Presence,
    bot: &'a UserId,
    scope: Scope,
    media: &'a Wants,
    cancel: &'a CancellationToken,
    batch: Batch,
    bytes: usize,
    /// Somebody else writes what is gathered, all of it: where its parts end.
    parts: Option<Vec<End>>,
    /// With what is taken in, all of its room's conversation is read.
    pub(crate) is_end: bool,
    /// Rooms and sessions of events that miss their key: it may have come while the batch was written.
    pub(crate) incomplete: Vec<(RoomId, Option<String>)>,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(
        recorder: &'a Recorder,
        lookup: &'a Lookup,
        presence: &'a dyn Presence,
        bot: &'a UserId,
        scope: Scope,
        media: &'a Wants,
        cancel: &'a CancellationToken,
    ) -> Self {
        Self {
            recorder,
            lookup,
            presence,
            bot,
            scope,
            media,
            cancel,
            batch: Batch::default(),
            bytes: 0,
            parts: None,
            is_end: false,
            incomplete: Vec::new(),
        }
    }

    /// Writes nothing before [`Self::finish`]: for a page of history, which is never much larger than a batch.
    pub(crate) fn keeping(self) -> Self {
        Self { parts: Some(Vec::new()), ..self }
    }

    /// Takes one event in.
    pub(crate) async fn take(&mut self, received: &Received, arrival: Arrival) -> Result<(), Stop> {
        let event = read(&received.raw);
        let room = RoomId::parse(received.room.as_str()).ok();
        let ours = match &room {
            Some(room) => self.presence.is_ours(room, &event, self.cancel).await?,
            None => false,
        };
        if let Some(room) = &room
            && matches!(arrival, Arrival::New | Arrival::Missed)
        {
            self.presence.told(room, &event, self.cancel).await?;
        }
        let concerns_bot = ours || self.names_bot(&event);
        let is_ignored = room.as_ref().is_some_and(|room| self.presence.ignores(room));
        if (self.scope == Scope::OwnActs || is_ignored) && !concerns_bot {
            return Ok(());
        }
        let draft = self.convert(received, ours.then_some(self.bot.as_str()), arrival).await?;
        self.note_missing_key(received, room);
        if arrival == Arrival::Late
            && let Some(id) = received.event_id.as_deref().and_then(|id| EventId::parse(id).ok())
        {
            self.batch.resolved.push(id);
        }
        if self.scope == Scope::Everything {
            self.batch.attachments.extend(self.media.of(&draft));
        }
        self.push(draft).await
    }

    async fn convert(
        &self,
        received: &Received,
        caused_by: Option<&str>,
        arrival: Arrival,
    ) -> Result<RecordDraft, Stop> {
        let input = received.input(caused_by, arrival == Arrival::Late);
        let from =
            Standpoint { room: &received.room, fresh: &self.batch.drafts, arrival, is_end: self.is_end };
        let earlier = match needs(&input) {
            Some(need) => self.lookup.find(&need, &from, self.cancel).await?,
            None => None,
        };
        let mut draft = convert(&input, earlier.as_ref());
        if received.lacks_ciphertext {
            let said = draft.context.reason.take().map(|reason| format!("; {reason}"));
            draft.context.reason = Some(format!("{NO_CIPHERTEXT}{}", said.unwrap_or_default()));
        }
        Ok(draft)
    }

    /// Adds a record that does not come from an event.
    pub(crate) async fn push(&mut self, draft: RecordDraft) -> Result<(), Stop> {
        self.bytes += draft.source_raw.as_ref().map_or(0, String::len)
            + draft.plaintext_raw.as_ref().map_or(0, String::len);
        self.batch.drafts.push(draft);
        let before = self.parts.iter().flatten().next_back().map_or(0, |end| end.drafts);
        if self.batch.drafts.len() - before >= MAX_RECORDS || self.bytes >= MAX_BYTES {
            match &mut self.parts {
                Some(parts) => {
                    parts.push(End::of(&self.batch));
                    self.bytes = 0;
                }
                None => self.flush().await?,
            }
        }
        Ok(())
    }

    /// What is gathered and not written yet.
    pub(super) fn fresh(&self) -> &[RecordDraft] {
        &self.batch.drafts
    }

    /// Sets a cursor together with the last part of the batch. Call after the last event only.
    pub(crate) fn cursor(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.batch.cursors.push((name.into(), value.into()));
    }

    /// Writes what is gathered.
    pub(crate) async fn flush(&mut self) -> Result<(), Stop> {
        let batch = std::mem::take(&mut self.batch);
        self.bytes = 0;
        if batch != Batch::default() {
            self.recorder.append(&batch, self.cancel).await?;
        }
        Ok(())
    }

    /// What is gathered, in batches that are to be written one after the other, with [`Self::incomplete`]. The last one
    /// may be empty.
    pub(crate) fn finish(self) -> (Vec<Batch>, Vec<(RoomId, Option<String>)>) {
        (split(self.batch, self.parts.unwrap_or_default()), self.incomplete)
    }

    fn note_missing_key(&mut self, received: &Received, room: Option<RoomId>) {
        let Secrecy::Closed(reason) = received.secrecy else { return };
        let event_id = received.event_id.as_deref().and_then(|id| EventId::parse(id).ok());
        // What is corrupt stays so, whatever keys come.
        let (Some(event_id), Some(room_id), true) = (event_id, room, reason != "corrupt") else { return };
        let pending =
            PendingEvent { event_id, room_id, raw: received.raw.clone(), reason: reason.to_owned() };
        let wanted = (pending.room_id.clone(), session_of(&pending.raw));
        if self.incomplete.last() != Some(&wanted) {
            self.incomplete.push(wanted);
        }
        self.batch.pending.push(pending);
    }

    /// The bot sent it, or it is about the bot.
    fn names_bot(&self, event: &serde_json::Value) -> bool {
        let bot = self.bot.as_str();
        let field = |name| event.get(name).and_then(serde_json::Value::as_str);
        field("sender") == Some(bot) || field("state_key") == Some(bot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_split_where_its_parts_end() {
        let id = |number: usize| EventId::parse(format!("${number}")).unwrap();
        let whole = Batch { resolved: (0..5).map(id).collect(), ..Batch::default() };
        let end = |resolved| End { drafts: 0, pending: 0, resolved, attachments: 0 };
        let parts = |ends: Vec<End>| -> Vec<Vec<EventId>> {
            split(whole.clone(), ends).into_iter().map(|part| part.resolved).collect()
        };
        assert_eq!(parts(Vec::new()), [(0..5).map(id).collect::<Vec<_>>()]);
        assert_eq!(parts(vec![end(2), end(3)]), [vec![id(0), id(1)], vec![id(2)], vec![id(3), id(4)]]);
        assert_eq!(parts(vec![end(5)]), [(0..5).map(id).collect(), vec![]], "the cursor needs a last one");
    }
}
