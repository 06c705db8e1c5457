//! What an edit, a redaction or a state change refers to: in the batch that is being made, in the
//! trail, or at the homeserver.

use std::{future::Future, sync::Arc};

use jiff::Timestamp;
use matrix_sdk::Client;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{collector::Arrival, homeserver::Homeserver, unread::Unread};
use crate::{
    domain::{
        EventId,
        filter::StoredRecord,
        record::{Place, RecordDraft, Relation, event_source_id, plaintext_source_id},
    },
    homeserver::Admin,
    worker::{
        convert::{Earlier, Need, author, may_replace, occurred, read, sender},
        recorder::{Recorder, Stop},
        session::SessionError,
    },
};

/// Where the event stands for which something is looked up.
pub(crate) struct Standpoint<'a> {
    pub(crate) room: &'a str,
    /// The records of the batch being made, in the order of the conversation.
    pub(crate) fresh: &'a [RecordDraft],
    pub(crate) arrival: Arrival,
    /// With that batch all of the room's conversation is read.
    pub(crate) is_end: bool,
}

/// The version of an event that is asked for.
struct Wanted<'a> {
    of: &'a str,
    /// When what asks for it happened.
    at: Timestamp,
    /// The edit that asks for it, which may have been followed by others. Nothing follows a redaction.
    edit: Option<Place>,
    now: Timestamp,
}

/// Answers what [`crate::worker::convert::needs`] asks for.
#[derive(Clone)]
pub(crate) struct Lookup {
    recorder: Recorder,
    homeserver: Homeserver,
    pub(super) unread: Unread,
}

impl Lookup {
    pub(crate) fn new(recorder: Recorder, admin: Arc<dyn Admin>, client: Client) -> Self {
        Self { recorder, homeserver: Homeserver::new(admin, client), unread: Unread::default() }
    }

    /// For a task of its own, which waits for the homeserver by itself.
    pub(super) fn apart(&self) -> Self {
        Self { homeserver: self.homeserver.apart(), ..self.clone() }
    }

    /// The homeserver has answered: when it is away again, it is waited for again.
    pub(crate) fn answered(&self) {
        self.homeserver.answered();
    }

    /// What the homeserver answers about an event; one that is away is asked again, as by [`Self::find`].
    pub(super) async fn ask_for_one<T, F>(&self, event: &str, ask: impl Fn() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, SessionError>>,
    {
        self.homeserver.patiently(event, ask).await
    }

    /// The answer, as far as there is one.
    pub(crate) async fn find(
        &self,
        need: &Need,
        from: &Standpoint<'_>,
        cancel: &CancellationToken,
    ) -> Result<Option<Earlier>, Stop> {
        let now = self.recorder.clock().now();
        let wanted = match need {
            Need::Original(target) => return self.ask(target, from.room, cancel).await,
            Need::Newest { of, at } => Wanted { of, at: at.clamped(now), edit: None, now },
            Need::Before { of, at, edit } => {
                let at = at.clamped(now);
                Wanted { of, at, edit: Some(Place { at, event_id: edit.clone() }), now }
            }
        };
        let Some((known, is_last)) = self.known(&wanted, from, cancel).await? else { return Ok(None) };
        let told = match &wanted.edit {
            Some(edit) if !is_last => {
                let told = self.told(&wanted, edit, &known, from.room);
                cancel.run_until_cancelled(told).await.ok_or(Stop::Cancelled)?
            }
            _ => None,
        };
        let is_last = is_last || told.is_some();
        let version = match told.unwrap_or(known) {
            // It had lost its content before it was captured: the homeserver may know more.
            Earlier::Record(draft) if came_redacted(&draft) => {
                self.ask(wanted.of, from.room, cancel).await?.unwrap_or(Earlier::Record(draft))
            }
            version => version,
        };
        Ok(Some(if is_last { version } else { Earlier::Perhaps(Box::new(version)) }))
    }

    async fn ask(
        &self,
        target: &str,
        room: &str,
        cancel: &CancellationToken,
    ) -> Result<Option<Earlier>, Stop> {
        let event = cancel.run_until_cancelled(self.homeserver.event(target, room)).await;
        Ok(event.ok_or(Stop::Cancelled)?.map(Earlier::Event))
    }

    /// The newest version that is known here, and whether that is the last one. Of an event that is not known here
    /// the original, as the homeserver keeps it.
    async fn known(
        &self,
        wanted: &Wanted<'_>,
        from: &Standpoint<'_>,
        cancel: &CancellationToken,
    ) -> Result<Option<(Earlier, bool)>, Stop> {
        // Sync and pages of history tell what happened without leaving anything out in between.
        let in_a_row = from.arrival != Arrival::Late;
        let here = original(from.fresh, wanted.of).map(|draft| Earlier::Record(Box::new(draft.clone())));
        let (known, is_last) = match here {
            Some(here) if in_a_row => (here, true),
            here => match (self.in_trail(wanted, from, cancel).await?, here) {
                (Some((found, since)), here) => {
                    let is_last = is_last(&found, since, wanted, from);
                    let known = Earlier::Record(Box::new(found.1));
                    // Of the event itself the plaintext is here.
                    let here = here.filter(|_| edit_place(&known, wanted).is_none());
                    (here.unwrap_or(known), is_last)
                }
                (None, Some(here)) => (here, false),
                (None, None) => match self.ask(wanted.of, from.room, cancel).await? {
                    Some(event) => (event, false),
                    None => return Ok(None),
                },
            },
        };
        Ok(Some(match last_edit(from.fresh, wanted, &known) {
            Some(edit) if in_a_row => (Earlier::Record(Box::new(edit.clone())), true),
            Some(edit) if place_of(edit, wanted.now) > edit_place(&known, wanted) => {
                (Earlier::Record(Box::new(edit.clone())), is_last)
            }
            _ => (known, is_last),
        }))
    }

    /// With the number of [`Unread::since`].
    async fn in_trail(
        &self,
        wanted: &Wanted<'_>,
        from: &Standpoint<'_>,
        cancel: &CancellationToken,
    ) -> Result<Option<((i64, RecordDraft), i64)>, Stop> {
        let Ok(id) = EventId::parse(wanted.of) else { return Ok(None) };
        let before = self.unread.since(from.room);
        let found = self.recorder.latest_version(&id, wanted.edit.as_ref(), cancel).await?;
        let since = match self.unread.since(from.room) {
            _ if from.is_end => 0,
            since if since == before => since,
            // A page was written meanwhile, or a part was found: what the answer does not have nobody knows.
            _ => i64::MAX,
        };
        Ok(found.and_then(|StoredRecord { seq, content, .. }| Some(((seq, content?), since))))
    }

    /// What an event said before an edit, if the homeserver tells its edits: the edit before that one, or else what
    /// is known.
    async fn told(&self, wanted: &Wanted<'_>, edit: &Place, known: &Earlier, room: &str) -> Option<Earlier> {
        let edits = self.homeserver.edits(wanted.of, room).await?;
        let mut edits: Vec<(Place, Value)> =
            edits.into_iter().filter_map(|event| Some((place(&event, wanted.now)?, event))).collect();
        // Of a redacted event none are told. Whoever is not told of this edit may not be told of others.
        if !edits.iter().any(|(place, _)| place.event_id == edit.event_id) {
            return None;
        }
        let after = edit_place(known, wanted);
        edits.retain(|(place, event)| {
            place < edit && Some(place) > after.as_ref() && field(event, "sender") == author(known)
        });
        edits.sort_by(|(one, _), (other, _)| other.cmp(one));
        for (_, event) in edits {
            // Until when it counted nobody knows.
            if event.pointer("/unsigned/redacted_because").is_some() {
                return None;
            }
            let event = self.homeserver.decrypted(room, &event).await.unwrap_or(event);
            if may_replace(field(&event, "sender"), field(&event, "type"), known) {
                return Some(Earlier::Event(event));
            }
        }
        Some(known.clone())
    }
}

/// Whether there cannot be a newer version than this one, of the trail, that the trail does not have yet.
fn is_last(found: &(i64, RecordDraft), since: i64, wanted: &Wanted<'_>, from: &Standpoint<'_>) -> bool {
    let (seq, draft) = found;
    let in_history = matches!(from.arrival, Arrival::Missed | Arrival::Before);
    // Of a later edit, or of one of a server whose clock is wrong: nobody knows.
    let is_doubtful = in_history && wanted.edit.is_none() && draft.occurred.clamped(wanted.now) > wanted.at;
    // A plaintext may be recorded long after its event was told.
    let was_told_since = *seq > since && !draft.source_id.starts_with(&plaintext_source_id(""));
    !is_doubtful && (since == 0 || (!in_history && was_told_since))
}

fn came_redacted(draft: &RecordDraft) -> bool {
    draft.plaintext_raw.is_none()
        && draft.source_raw.as_deref().is_some_and(|raw| {
            read(raw).pointer("/unsigned/redacted_because").is_some_and(serde_json::Value::is_object)
        })
}

fn field<'a>(event: &'a Value, name: &str) -> Option<&'a str> {
    event.get(name).and_then(Value::as_str)
}

fn replaces(target: &str) -> Relation {
    Relation::new("event", target, "replaces")
}

fn place_of(draft: &RecordDraft, now: Timestamp) -> Option<Place> {
    Some(Place { at: draft.occurred.clamped(now), event_id: draft.event_id()?.to_owned() })
}

fn place(event: &Value, now: Timestamp) -> Option<Place> {
    let event_id = field(event, "event_id")?.to_owned();
    Some(Place { at: occurred(event).clamped(now), event_id })
}

/// Where a version stands; nothing of the original, which stands before all edits.
fn edit_place(version: &Earlier, wanted: &Wanted<'_>) -> Option<Place> {
    match version {
        Earlier::Record(draft) if draft.relations.contains(&replaces(wanted.of)) => {
            place_of(draft, wanted.now)
        }
        _ => None,
    }
}

/// The record among these of an event itself, with its plaintext if there is one.
fn original<'a>(fresh: &'a [RecordDraft], target: &str) -> Option<&'a RecordDraft> {
    let (own, plain) = (event_source_id(target), plaintext_source_id(target));
    let opened = fresh.iter().rev().find(|draft| draft.source_id == plain);
    opened.or_else(|| fresh.iter().find(|draft| draft.source_id == own))
}

/// The last of these records that is an edit by the author of what is known, before the edit that asks.
fn last_edit<'a>(fresh: &'a [RecordDraft], wanted: &Wanted<'_>, known: &Earlier) -> Option<&'a RecordDraft> {
    let (replaces, author) = (replaces(wanted.of), author(known)?);
    let is_before = |draft: &RecordDraft, edit: &Place| {
        draft.occurred.clamped(wanted.now) <= edit.at && draft.event_id() != Some(&edit.event_id)
    };
    fresh.iter().rev().find(|draft| {
        draft.relations.contains(&replaces)
            && sender(draft) == Some(author)
            && wanted.edit.as_ref().is_none_or(|edit| is_before(draft, edit))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::worker::convert::{Encryption, Input, convert};

    fn message(id: &str, sender: &str, body: &str, at: i64, replaces: Option<&str>) -> RecordDraft {
        let mut content = json!({"msgtype": "m.text", "body": body});
        if let Some(target) = replaces {
            content["m.new_content"] = json!({"body": body});
            content["m.relates_to"] = json!({"rel_type": "m.replace", "event_id": target});
        }
        let raw = json!({"event_id": id, "sender": sender, "type": "m.room.message",
            "origin_server_ts": at, "content": content});
        let raw = raw.to_string();
        convert(&Input { room_id: "!r", raw: &raw, encryption: Encryption::None, caused_by: None }, None)
    }

    #[test]
    fn the_last_edit_by_the_author_before_a_place_counts() {
        let start = 1_790_000_000_000;
        let now = Timestamp::from_millisecond(start + 10_000).unwrap();
        let fresh = [
            message("$a", "@alice:x", "one", start, None),
            message("$b", "@alice:x", "two", start + 2000, Some("$a")),
            message("$c", "@alice:x", "three", start + 4000, Some("$a")),
            message("$d", "@mallory:x", "forged", start + 5000, Some("$a")),
        ];
        assert_eq!(original(&fresh, "$a").unwrap().text.as_deref(), Some("one"));
        assert!(original(&fresh, "$z").is_none());
        let known = Earlier::Record(Box::new(fresh[0].clone()));
        let wanted = |of: &'static str, edit: Option<(i64, &str)>| {
            let edit = edit.map(|(after, id)| Place {
                at: Timestamp::from_millisecond(start + after).unwrap(),
                event_id: id.to_owned(),
            });
            Wanted { of, at: edit.as_ref().map_or(now, |edit| edit.at), edit, now }
        };
        let before = |edit| last_edit(&fresh, &wanted("$a", edit), &known)?.text.as_deref();
        assert_eq!(before(None), Some("three"));
        assert_eq!(before(Some((6000, "$e"))), Some("three"));
        assert_eq!(before(Some((4000, "$c"))), Some("two"), "not itself");
        assert_eq!(before(Some((3000, "$e"))), Some("two"));
        assert_eq!(before(Some((1000, "$e"))), None);
        // The author is known, wherever the original is.
        let known = Earlier::Event(json!({"sender": "@alice:x"}));
        let found = last_edit(&fresh[1..], &wanted("$a", None), &known);
        assert_eq!(found.unwrap().text.as_deref(), Some("three"));
        assert!(last_edit(&fresh, &wanted("$b", None), &known).is_none());
    }
}
