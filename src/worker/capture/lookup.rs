//! What an edit, a redaction or a state change refers to: in the batch that is being made, in the
//! trail, or at the homeserver.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use matrix_sdk::Client;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{received, received::Secrecy};
use crate::{
    domain::{
        EventId, Failure, Retry,
        record::{RecordDraft, Relation, event_source_id, plaintext_source_id},
    },
    homeserver::{Admin, HomeserverError},
    worker::{
        backoff::Backoff,
        convert::{Earlier, Need, read},
        recorder::{Recorder, Stop},
    },
};

/// A homeserver that is away is waited for so long, once: what a record does not say, no later one says.
const PATIENCE: Duration = Duration::from_mins(1);

/// So often an event is asked for, if it may be this event only that has no answer.
const ATTEMPTS: u32 = 3;

/// Answers what [`crate::worker::convert::needs`] asks for.
#[derive(Clone)]
pub(crate) struct Lookup {
    recorder: Recorder,
    admin: Arc<dyn Admin>,
    client: Client,
    /// Since when the homeserver has been away.
    away: Arc<Mutex<Option<Instant>>>,
}

impl Lookup {
    pub(crate) fn new(recorder: Recorder, admin: Arc<dyn Admin>, client: Client) -> Self {
        Self { recorder, admin, client, away: Arc::default() }
    }

    /// The answer, as far as there is one. `fresh` are the records of the batch being made.
    pub(crate) async fn find(
        &self,
        need: &Need,
        room: &str,
        fresh: &[RecordDraft],
        cancel: &CancellationToken,
    ) -> Result<Option<Earlier>, Stop> {
        let target = match need {
            Need::Newest(target) => {
                let known = match newest(fresh, target) {
                    Some(draft) => Some(draft.clone()),
                    None => self.in_trail(target, cancel).await?,
                };
                match known {
                    // It had lost its content before it was captured: the homeserver may know more.
                    Some(draft) if came_redacted(&draft) => {
                        let kept = self.ask(target, room, cancel).await?;
                        return Ok(Some(kept.unwrap_or_else(|| Earlier::Record(Box::new(draft)))));
                    }
                    Some(draft) => return Ok(Some(Earlier::Record(Box::new(draft)))),
                    None => target,
                }
            }
            Need::Original(target) => target,
        };
        self.ask(target, room, cancel).await
    }

    async fn ask(
        &self,
        target: &str,
        room: &str,
        cancel: &CancellationToken,
    ) -> Result<Option<Earlier>, Stop> {
        cancel.run_until_cancelled(self.at_homeserver(target, room)).await.ok_or(Stop::Cancelled)
    }

    async fn in_trail(&self, target: &str, cancel: &CancellationToken) -> Result<Option<RecordDraft>, Stop> {
        let Ok(id) = EventId::parse(target) else { return Ok(None) };
        let found = self.recorder.latest_version(&id, cancel).await?;
        Ok(found)
    }

    /// The admin API keeps the content of a redacted event for some days. Not having it is no
    /// reason to stop: the record then says what is known.
    async fn at_homeserver(&self, target: &str, room: &str) -> Option<Earlier> {
        let event = self.fetch(target).await?;
        // Somebody may refer to an event of another room to have its text copied into this one's trail.
        if event.get("room_id").and_then(|id| id.as_str()).is_some_and(|id| id != room) {
            return None;
        }
        Some(self.decrypted(room, &event).await.unwrap_or(Earlier::Event(event)))
    }

    /// The event; a homeserver that does not answer now is asked again.
    async fn fetch(&self, target: &str) -> Option<Value> {
        let mut backoff = Backoff::default();
        loop {
            let error = match self.admin.fetch_event(target).await {
                Ok(event) => {
                    self.is_away(false);
                    return event;
                }
                Err(error) => error,
            };
            tracing::debug!(category = error.category(), %error, "cannot fetch an event");
            let wait = match error {
                HomeserverError::RateLimited { .. } => backoff.next(error.retry()),
                _ => backoff.next(Retry::Backoff),
            };
            if !is_ordinary(target) || !self.may_pass(&error, backoff.failures()) {
                return None;
            }
            tokio::time::sleep(wait.min(PATIENCE)).await;
        }
    }

    /// The homeserver has answered: when it is away again, it is waited for again.
    pub(crate) fn answered(&self) {
        self.is_away(false);
    }

    fn may_pass(&self, error: &HomeserverError, attempts: u32) -> bool {
        match error {
            HomeserverError::Server { status: 500, .. } | HomeserverError::NotOffered { .. } => {
                attempts < ATTEMPTS
            }
            HomeserverError::Unreachable { .. }
            | HomeserverError::Server { .. }
            | HomeserverError::RateLimited { .. }
            // Its session is renewed, or mended by a person.
            | HomeserverError::CredentialRefused { .. }
            | HomeserverError::NotAdmin
            | HomeserverError::Locked { .. } => self.is_away(true) < PATIENCE,
            _ => false,
        }
    }

    /// For how long it has been away, now that it is, or is not.
    fn is_away(&self, away: bool) -> Duration {
        let mut since = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        if away {
            since.get_or_insert_with(Instant::now).elapsed()
        } else {
            *since = None;
            Duration::ZERO
        }
    }

    async fn decrypted(&self, room: &str, event: &Value) -> Option<Earlier> {
        let room = self.client.get_room(matrix_sdk::ruma::RoomId::parse(room).ok()?.as_ref())?;
        let raw = serde_json::value::to_raw_value(event).ok()?;
        match received::decrypt(&room, &raw, true).await.ok()?.secrecy {
            Secrecy::Opened(opened) => serde_json::from_str(&opened.raw).ok().map(Earlier::Event),
            Secrecy::Plain | Secrecy::Closed(_) => None,
        }
    }
}

/// As homeservers name events. What else somebody refers to may be what something on the way takes offence at:
/// nobody can make capture wait with it.
fn is_ordinary(target: &str) -> bool {
    let rest = target.strip_prefix('$').unwrap_or_default();
    !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

fn came_redacted(draft: &RecordDraft) -> bool {
    draft.plaintext_raw.is_none()
        && draft.source_raw.as_deref().is_some_and(|raw| {
            read(raw).pointer("/unsigned/redacted_because").is_some_and(serde_json::Value::is_object)
        })
}

/// The newest record among these of what an event says: its last edit by its author, or itself.
fn newest<'a>(fresh: &'a [RecordDraft], target: &str) -> Option<&'a RecordDraft> {
    let (own, plain) = (event_source_id(target), plaintext_source_id(target));
    let base = fresh
        .iter()
        .rev()
        .find(|draft| draft.source_id == plain)
        .or_else(|| fresh.iter().find(|draft| draft.source_id == own));
    let replaces = Relation::new("event", target, "replaces");
    let edit = fresh.iter().rev().find(|draft| {
        draft.relations.contains(&replaces) && base.is_some_and(|base| base.actor == draft.actor)
    });
    edit.or(base)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::worker::convert::{Encryption, Input, convert};

    fn message(id: &str, sender: &str, body: &str, replaces: Option<&str>) -> RecordDraft {
        let mut content = json!({"msgtype": "m.text", "body": body});
        if let Some(target) = replaces {
            content["m.new_content"] = json!({"body": body});
            content["m.relates_to"] = json!({"rel_type": "m.replace", "event_id": target});
        }
        let raw = json!({"event_id": id, "sender": sender, "type": "m.room.message", "content": content});
        let raw = raw.to_string();
        convert(&Input { room_id: "!r", raw: &raw, encryption: Encryption::None, caused_by: None }, None)
    }

    #[test]
    fn the_last_edit_by_the_author_counts() {
        let fresh = [
            message("$a", "@alice:x", "one", None),
            message("$b", "@alice:x", "two", Some("$a")),
            message("$c", "@mallory:x", "forged", Some("$a")),
        ];
        assert_eq!(newest(&fresh, "$a").unwrap().text.as_deref(), Some("two"));
        assert_eq!(newest(&fresh, "$b").unwrap().text.as_deref(), Some("two"));
        assert!(newest(&fresh, "$z").is_none());
        // Without the original nobody knows whose edits count: ask the trail.
        assert!(newest(&fresh[1..], "$a").is_none());
    }
}
