//! The acts of coverage in the trail, and how their traces in rooms are told from what people do.
//!
//! The homeserver sends an invitation or a power-levels event in a local user's name because the
//! bot asked for it. Such an event is recognised by its identifier, where the act saw it, or by its
//! room, its kind and its time: within a short span after an act was intended there, whoever raises
//! or invites the bot did so for it. Each room with acts has a cursor of them, written together with
//! the records of the act, so that a crash between the act and its arrival by sync forgets nothing.

mod traces;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{OwnedMappedMutexGuard, OwnedMutexGuard, mpsc};
use tokio_util::sync::CancellationToken;

use self::traces::{Trace, Traces, may_be_of_an_act};
use super::{
    book::Book,
    ports::Presence,
    recorder::{Recorder, Stop},
    records,
};
use crate::{
    coverage::{
        Act, ActLog, ActLogError, ActOutcome, Hint,
        planner::{FULL_POWER, Invitation, StepKind},
    },
    domain::{BotName, RoomId, UserId},
    store::Batch,
};

/// Cursor in which earlier versions kept the last act of every room.
const FORMER: &str = "coverage:acts";
/// Cursor that keeps who was brought back into which room.
const RECALLED: &str = "coverage:recalled";
/// Cursor that keeps the rooms of which nothing is recorded, so that a start does not begin with recording them.
const IGNORED: &str = "coverage:ignored";
/// The acts of so many rooms are held in memory.
const MOST_ROOMS: usize = 2_000;

/// Cursor of the acts in a room.
fn cursor_name(room: &RoomId) -> String {
    format!("coverage:acts:{room}")
}

/// What is known of a room's acts, once it was read. It is locked until a change is durable.
type Known = Arc<tokio::sync::Mutex<Option<Traces>>>;

/// The worker's part of coverage.
pub struct Acts {
    bot_name: BotName,
    bot: UserId,
    recorder: Recorder,
    rooms: Mutex<HashMap<RoomId, Known>>,
    /// Who is in a room only because the bot needed their power.
    recalled: Mutex<BTreeMap<String, String>>,
    ignored: Mutex<Arc<BTreeSet<RoomId>>>,
    hints: Mutex<Option<mpsc::UnboundedSender<Hint>>>,
    cancel: CancellationToken,
}

impl Acts {
    /// For one bot; `cancel` ends waiting for the database.
    pub fn new(bot_name: BotName, bot: UserId, recorder: Recorder, cancel: CancellationToken) -> Self {
        Self {
            bot_name,
            bot,
            recorder,
            rooms: Mutex::default(),
            recalled: Mutex::default(),
            ignored: Mutex::default(),
            hints: Mutex::default(),
            cancel,
        }
    }

    /// Reads what the process before this one left; to be called before anything is captured. Fails when cancelled.
    pub async fn load(&self, cancel: &CancellationToken) -> Result<(), Stop> {
        self.adopt(cancel).await?;
        let recalled = self.recorder.cursor(RECALLED, cancel).await?;
        locked(&self.recalled).extend(parsed::<String>(recalled));
        let ignored = self.recorder.cursor(IGNORED, cancel).await?;
        let ignored = ignored.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        *locked(&self.ignored) = Arc::new(ignored);
        Ok(())
    }

    /// Gives to each room what an earlier version kept of its last act.
    async fn adopt(&self, cancel: &CancellationToken) -> Result<(), Stop> {
        let former = parsed::<Trace>(self.recorder.cursor(FORMER, cancel).await?);
        if former.is_empty() {
            return Ok(());
        }
        let mut cursors = vec![(FORMER.to_owned(), "{}".to_owned())];
        for (room, trace) in former {
            let Ok(room) = RoomId::parse(room) else { continue };
            let mut traces = self.traces(&room, cancel).await?;
            traces.intend(trace);
            cursors.push(cursor(&room, &traces));
        }
        self.recorder.append(&Batch { cursors, ..Batch::default() }, cancel).await.map(drop)
    }

    /// What is known of a room's acts. Nobody else sees or changes it while the guard lives.
    async fn traces(
        &self,
        room: &RoomId,
        cancel: &CancellationToken,
    ) -> Result<OwnedMappedMutexGuard<Option<Traces>, Traces>, Stop> {
        let known = {
            let mut rooms = locked(&self.rooms);
            if rooms.len() >= MOST_ROOMS && !rooms.contains_key(room) {
                // What nobody uses now is in the database as it is here.
                rooms.retain(|_, known| Arc::strong_count(known) > 1);
            }
            Arc::clone(rooms.entry(room.clone()).or_default())
        };
        let mut known = cancel.run_until_cancelled(known.lock_owned()).await.ok_or(Stop::Cancelled)?;
        if known.is_none() {
            let text = self.recorder.cursor(&cursor_name(room), cancel).await?;
            *known = text.and_then(|text| serde_json::from_str(&text).ok());
        }
        Ok(OwnedMutexGuard::map(known, |known| known.get_or_insert_default()))
    }

    /// From now on nothing of these rooms is recorded.
    pub(crate) async fn ignore(&self, rooms: &Arc<BTreeSet<RoomId>>) {
        if *locked(&self.ignored) == *rooms {
            return;
        }
        *locked(&self.ignored) = Arc::clone(rooms);
        let cursor = (IGNORED.to_owned(), serde_json::to_string(&**rooms).unwrap_or_default());
        if let Err(error) = self.append(&Batch { cursors: vec![cursor], ..Batch::default() }).await {
            tracing::warn!(%error, "cannot note of which rooms nothing is recorded");
        }
    }

    /// Where coverage notes rooms; see [`Book::open`].
    pub(crate) async fn open_book(&self, cancel: &CancellationToken) -> Result<Book, Stop> {
        Book::open(self.recorder.clone(), cancel).await
    }

    /// A new receiver of hints; the former one gets none any more.
    pub fn listen(&self) -> mpsc::UnboundedReceiver<Hint> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *locked(&self.hints) = Some(sender);
        receiver
    }

    /// Who was brought back, as the cursor's value, after a change.
    fn note_recalled(&self, change: impl FnOnce(&mut BTreeMap<String, String>)) -> (String, String) {
        let mut recalled = locked(&self.recalled);
        change(&mut recalled);
        (RECALLED.to_owned(), serde_json::to_string(&*recalled).unwrap_or_default())
    }

    async fn append(&self, batch: &Batch) -> Result<(), ActLogError> {
        self.recorder.append(batch, &self.cancel).await.map(drop).map_err(unrecorded)
    }
}

fn unrecorded(stop: Stop) -> ActLogError {
    ActLogError(Box::new(stop))
}

fn cursor(room: &RoomId, traces: &Traces) -> (String, String) {
    (cursor_name(room), serde_json::to_string(traces).unwrap_or_default())
}

fn parsed<T: DeserializeOwned>(cursor: Option<String>) -> BTreeMap<String, T> {
    cursor.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl ActLog for Acts {
    async fn intend(&self, act: &Act) -> Result<(), ActLogError> {
        let mut cursors = Vec::new();
        let mut traces = self.traces(&act.room_id, &self.cancel).await.map_err(unrecorded)?;
        let now = self.recorder.clock().now();
        // Of what it does in its own name the bot is the sender.
        if act.on_behalf_of.is_some() {
            traces.intend(Trace { at: now.as_millisecond(), person: act.person.clone() });
            cursors.push(cursor(&act.room_id, &traces));
        }
        if let (StepKind::Recall | StepKind::Return, Some(person)) = (act.kind, &act.person) {
            let (room, person) = (act.room_id.to_string(), person.clone());
            cursors.push(self.note_recalled(|recalled| drop(recalled.insert(room, person))));
        }
        let draft = records::act_intended(&self.bot_name, &self.bot, act, now);
        self.append(&Batch { drafts: vec![draft], cursors, ..Batch::default() }).await
    }

    async fn outcome(&self, act: &Act, outcome: &ActOutcome) -> Result<(), ActLogError> {
        let (ActOutcome::Done { sent } | ActOutcome::Failed { sent, .. }) = outcome;
        let mut cursors = Vec::new();
        let mut traces = self.traces(&act.room_id, &self.cancel).await.map_err(unrecorded)?;
        if !sent.is_empty() {
            traces.made(sent.iter().map(|event| event.event_id.clone()));
            cursors.push(cursor(&act.room_id, &traces));
        }
        let draft = records::act_ended(&self.bot_name, &self.bot, act, outcome, self.recorder.clock().now());
        self.append(&Batch { drafts: vec![draft], cursors, ..Batch::default() }).await
    }

    fn recalled(&self, room: &RoomId) -> Option<String> {
        locked(&self.recalled).get(room.as_str()).cloned()
    }

    async fn forget_recalled(&self, room: &RoomId) -> Result<(), ActLogError> {
        let cursor = self.note_recalled(|recalled| drop(recalled.remove(room.as_str())));
        self.append(&Batch { cursors: vec![cursor], ..Batch::default() }).await
    }
}

#[async_trait]
impl Presence for Acts {
    async fn told(&self, room: &RoomId, event: &Value, cancel: &CancellationToken) -> Result<(), Stop> {
        let Some(hint) = hint(room, event, self.bot.as_str()) else { return Ok(()) };
        // Coverage saw it when it looked at what it had done.
        if self.traces(room, cancel).await?.has_seen(event) {
            return Ok(());
        }
        if let Some(hints) = &*locked(&self.hints) {
            let _ = hints.send(hint);
        }
        Ok(())
    }

    fn invited(&self, room: &RoomId, state: &[Value]) {
        if let Some(hints) = &*locked(&self.hints) {
            let _ = hints.send(Hint::Invited(room.clone(), Invitation::read(state, self.bot.as_str())));
        }
    }

    fn ignores(&self, room: &RoomId) -> bool {
        locked(&self.ignored).contains(room)
    }

    async fn is_ours(&self, room: &RoomId, event: &Value, cancel: &CancellationToken) -> Result<bool, Stop> {
        let bot = self.bot.as_str();
        if !may_be_of_an_act(event, bot) {
            return Ok(false);
        }
        Ok(self.traces(room, cancel).await?.explain(event, bot))
    }
}

/// What an event means for coverage. The bot may have been invited, removed or demoted; or somebody is invited again to what may
/// be a chat that is to be left out: whoever was in a room before changes nothing in the list of rooms by coming back. Less
/// urgent is that the room was replaced, or somebody else's power.
fn hint(room: &RoomId, event: &Value, bot: &str) -> Option<Hint> {
    let field = |name| event.get(name).and_then(Value::as_str);
    let hint = match (field("type"), field("state_key")) {
        (Some("m.room.member"), Some(key)) => {
            let membership = event.pointer("/content/membership").and_then(Value::as_str);
            let was_there = event.pointer("/unsigned/prev_content").is_some();
            match membership {
                Some("join") if key == bot => Hint::Joined,
                _ if key == bot => Hint::Room,
                Some("invite") if was_there => Hint::Room,
                _ => return None,
            }
        }
        (Some("m.room.power_levels"), Some("")) => {
            let power = event.get("content").and_then(|content| content.get("users")?.get(bot)?.as_i64());
            if power.is_some_and(|power| power >= FULL_POWER) { Hint::Changed } else { Hint::Room }
        }
        (Some("m.room.tombstone" | "m.space.child"), Some(_)) => Hint::Changed,
        _ => return None,
    };
    Some(hint(room.clone()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::hint;
    use crate::{coverage::Hint, domain::RoomId};

    const BOT: &str = "@auditbot:example.org";

    #[test]
    fn coverage_is_told_where_its_bot_or_its_selection_may_be_concerned() {
        let member = |user: &str, membership: &str, before: Value| {
            let unsigned = if before.is_null() { json!({}) } else { json!({"prev_content": before}) };
            let content = json!({"membership": membership});
            json!({"type": "m.room.member", "state_key": user, "content": content, "unsigned": unsigned})
        };
        let room = RoomId::parse("!r:example.org").unwrap();
        let (left, nothing) = (json!({"membership": "leave"}), Value::Null);
        let (look, changed, joined) = (
            Some(Hint::Room(room.clone())),
            Some(Hint::Changed(room.clone())),
            Some(Hint::Joined(room.clone())),
        );
        let power = |level: i64| json!({"type": "m.room.power_levels", "state_key": "", "content": {"users": {BOT: level}}});
        let table = [
            (member(BOT, "leave", nothing.clone()), &look),
            (member(BOT, "join", nothing.clone()), &joined),
            (member("@carol:example.org", "invite", left.clone()), &look),
            (member("@carol:example.org", "invite", nothing), &None),
            (member("@carol:example.org", "join", left), &None),
            (json!({"type": "m.room.power_levels", "state_key": "", "content": {}}), &look),
            (power(99), &look),
            (power(100), &changed),
            (json!({"type": "m.space.child", "state_key": "!other:example.org", "content": {}}), &changed),
            (json!({"type": "m.room.power_levels", "content": {}}), &None),
            (json!({"type": "m.room.message", "content": {"membership": "invite"}}), &None),
        ];
        for (event, expected) in table {
            assert_eq!(hint(&room, &event, BOT), *expected, "{event}");
        }
    }
}
