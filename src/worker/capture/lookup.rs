//! What an edit, a redaction or a state change refers to: in the batch that is being made, in the
//! trail, or at the homeserver.

use std::sync::Arc;

use matrix_sdk::Client;
use tokio_util::sync::CancellationToken;

use super::{received, received::Secrecy};
use crate::{
    domain::{
        EventId,
        record::{RecordDraft, Relation, event_source_id, plaintext_source_id},
    },
    homeserver::Admin,
    worker::{
        convert::{Earlier, Need, read},
        recorder::{Recorder, Stop},
    },
};

/// Answers what [`crate::worker::convert::needs`] asks for.
#[derive(Clone)]
pub(crate) struct Lookup {
    recorder: Recorder,
    admin: Arc<dyn Admin>,
    client: Client,
}

impl Lookup {
    pub(crate) fn new(recorder: Recorder, admin: Arc<dyn Admin>, client: Client) -> Self {
        Self { recorder, admin, client }
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
        let event = match self.admin.fetch_event(target).await {
            Ok(event) => event?,
            Err(error) => {
                tracing::debug!(%error, "cannot fetch an event");
                return None;
            }
        };
        // Somebody may refer to an event of another room to have its text copied into this one's trail.
        if event.get("room_id").and_then(|id| id.as_str()).is_some_and(|id| id != room) {
            return None;
        }
        Some(self.decrypted(room, &event).await.unwrap_or(Earlier::Event(event)))
    }

    async fn decrypted(&self, room: &str, event: &serde_json::Value) -> Option<Earlier> {
        let room = self.client.get_room(matrix_sdk::ruma::RoomId::parse(room).ok()?.as_ref())?;
        let raw = serde_json::value::to_raw_value(event).ok()?;
        match received::decrypt(&room, &raw, true).await.ok()?.secrecy {
            Secrecy::Opened(opened) => serde_json::from_str(&opened.raw).ok().map(Earlier::Event),
            Secrecy::Plain | Secrecy::Closed(_) => None,
        }
    }
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
