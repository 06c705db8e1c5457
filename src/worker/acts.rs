//! The acts of coverage in the trail, and how their traces in rooms are told from what people do.
//!
//! The homeserver sends an invitation or a power-levels event in a local user's name because the
//! bot asked for it. Such an event is recognised by its room, its kind and its time: within a short
//! span after an act was intended there, whoever raises or invites the bot did so for it. The open
//! intentions are a cursor, written together with the record of the act, so that a crash between
//! the act and its arrival by sync forgets nothing.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

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

/// Cursor that keeps the rooms with an act of the last minutes.
const CURSOR: &str = "coverage:acts";
/// Cursor that keeps who was brought back into which room.
const RECALLED: &str = "coverage:recalled";
/// Cursor that keeps the rooms of which nothing is recorded, so that a start does not begin with recording them.
const IGNORED: &str = "coverage:ignored";
/// Clocks of homeserver and worker may differ by so much.
const EARLIER_MS: i64 = 10_000;
/// An act shows in the room within so much time, as a rule within a second.
const LATER_MS: i64 = 120_000;

/// An act of the last minutes, by which its traces are known.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Trace {
    /// Milliseconds since 1970.
    at: i64,
    /// Who was moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    person: Option<String>,
}

/// The worker's part of coverage.
pub struct Acts {
    bot_name: BotName,
    bot: UserId,
    recorder: Recorder,
    rooms: Mutex<BTreeMap<String, Trace>>,
    /// Who is in a room only because the bot needed their power.
    recalled: Mutex<BTreeMap<String, String>>,
    ignored: Mutex<Arc<BTreeSet<RoomId>>>,
    /// Events by their ids, where the homeserver told them.
    sent: Mutex<HashMap<String, i64>>,
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
            sent: Mutex::default(),
            hints: Mutex::default(),
            cancel,
        }
    }

    /// Reads what was intended before this start.
    pub(crate) async fn load(&self, cancel: &CancellationToken) -> Result<(), Stop> {
        let known = self.recorder.cursor(CURSOR, cancel).await?;
        locked(&self.rooms).extend(parsed::<Trace>(known));
        let recalled = self.recorder.cursor(RECALLED, cancel).await?;
        locked(&self.recalled).extend(parsed::<String>(recalled));
        let ignored = self.recorder.cursor(IGNORED, cancel).await?;
        let ignored = ignored.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        *locked(&self.ignored) = Arc::new(ignored);
        Ok(())
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
    pub(crate) fn listen(&self) -> mpsc::UnboundedReceiver<Hint> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *locked(&self.hints) = Some(sender);
        receiver
    }

    fn now_ms(&self) -> i64 {
        self.recorder.clock().now().as_millisecond()
    }

    /// The rooms with a recent act, this one among them, as the cursor's value.
    fn intend_in(&self, act: &Act) -> (String, String) {
        let now = self.now_ms();
        let mut rooms = locked(&self.rooms);
        rooms.retain(|_, trace| now.saturating_sub(trace.at) < LATER_MS);
        // Who becomes an admin is not moved.
        let person = act.person.clone().filter(|_| act.kind != StepKind::HandOver);
        rooms.insert(act.room_id.to_string(), Trace { at: now, person });
        (CURSOR.to_owned(), serde_json::to_string(&*rooms).unwrap_or_default())
    }

    /// Who was brought back, as the cursor's value, after a change.
    fn note_recalled(&self, change: impl FnOnce(&mut BTreeMap<String, String>)) -> (String, String) {
        let mut recalled = locked(&self.recalled);
        change(&mut recalled);
        (RECALLED.to_owned(), serde_json::to_string(&*recalled).unwrap_or_default())
    }

    async fn append(&self, batch: &Batch) -> Result<(), ActLogError> {
        self.recorder.append(batch, &self.cancel).await.map(drop).map_err(|stop| ActLogError(Box::new(stop)))
    }
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
        let mut cursors = vec![self.intend_in(act)];
        if let (StepKind::Recall | StepKind::Return, Some(person)) = (act.kind, &act.person) {
            let (room, person) = (act.room_id.to_string(), person.clone());
            cursors.push(self.note_recalled(|recalled| drop(recalled.insert(room, person))));
        }
        let now = self.recorder.clock().now();
        let draft = records::act_intended(&self.bot_name, &self.bot, act, now);
        self.append(&Batch { drafts: vec![draft], cursors, ..Batch::default() }).await
    }

    async fn outcome(&self, act: &Act, outcome: &ActOutcome) -> Result<(), ActLogError> {
        let (ActOutcome::Done { sent } | ActOutcome::Failed { sent, .. }) = outcome;
        let now = self.now_ms();
        {
            let mut known = locked(&self.sent);
            known.retain(|_, at| now.saturating_sub(*at) < 10 * LATER_MS);
            known.extend(sent.iter().map(|event| (event.event_id.clone(), now)));
        }
        let draft = records::act_ended(&self.bot_name, &self.bot, act, outcome, self.recorder.clock().now());
        self.append(&Batch { drafts: vec![draft], ..Batch::default() }).await
    }

    fn recalled(&self, room: &RoomId) -> Option<String> {
        locked(&self.recalled).get(room.as_str()).cloned()
    }

    async fn forget_recalled(&self, room: &RoomId) -> Result<(), ActLogError> {
        let cursor = self.note_recalled(|recalled| drop(recalled.remove(room.as_str())));
        self.append(&Batch { cursors: vec![cursor], ..Batch::default() }).await
    }
}

impl Presence for Acts {
    fn told(&self, room: &RoomId, event: &Value) {
        let is_known = |id: &str| locked(&self.sent).contains_key(id);
        if let Some(hint) = hint(room, event, self.bot.as_str(), is_known)
            && let Some(hints) = &*locked(&self.hints)
        {
            let _ = hints.send(hint);
        }
    }

    fn invited(&self, room: &RoomId, state: &[Value]) {
        if let Some(hints) = &*locked(&self.hints) {
            let _ = hints.send(Hint::Invited(room.clone(), Invitation::read(state, self.bot.as_str())));
        }
    }

    fn ignores(&self, room: &RoomId) -> bool {
        locked(&self.ignored).contains(room)
    }

    fn is_ours(&self, room: &RoomId, event: &Value) -> bool {
        let field = |name| event.get(name).and_then(Value::as_str);
        if field("sender").is_none_or(|sender| sender == self.bot.as_str()) {
            return false;
        }
        if field("event_id").is_some_and(|id| locked(&self.sent).contains_key(id)) {
            return true;
        }
        let Some(trace) = locked(&self.rooms).get(room.as_str()).cloned() else { return false };
        let at = event.get("origin_server_ts").and_then(Value::as_i64).unwrap_or_default();
        (trace.at - EARLIER_MS..=trace.at + LATER_MS).contains(&at)
            && (favours(event, self.bot.as_str()) || trace.person.is_some_and(|person| moves(event, &person)))
    }
}

/// What an event means for coverage. The bot may have been invited, removed or demoted; or somebody is invited again to what may
/// be a chat that is to be left out: whoever was in a room before changes nothing in the list of rooms by coming back. Less
/// urgent is that the room was replaced, or somebody else's power. An event that is known was seen by coverage when it looked
/// at what it had done.
fn hint(room: &RoomId, event: &Value, bot: &str, is_known: impl Fn(&str) -> bool) -> Option<Hint> {
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
    (!field("event_id").is_some_and(is_known)).then(|| hint(room.clone()))
}

/// Whether an event is about somebody's own place in the room.
fn moves(event: &Value, person: &str) -> bool {
    let field = |name| event.get(name).and_then(Value::as_str);
    field("type") == Some("m.room.member")
        && field("state_key") == Some(person)
        && matches!(
            event.pointer("/content/membership").and_then(Value::as_str),
            Some("invite" | "join" | "leave")
        )
}

/// Whether an event invites the bot, lifts its ban, or gives it more power than it had.
fn favours(event: &Value, bot: &str) -> bool {
    let field = |name| event.get(name).and_then(Value::as_str);
    match (field("type"), field("state_key")) {
        (Some("m.room.member"), Some(key)) => {
            let membership = |path| event.pointer(path).and_then(Value::as_str);
            let was_banned = membership("/unsigned/prev_content/membership") == Some("ban");
            match membership("/content/membership") {
                Some("invite") => key == bot,
                Some("leave") => key == bot && was_banned,
                _ => false,
            }
        }
        (Some("m.room.power_levels"), Some("")) => {
            let power = |content: Option<&Value>| {
                content.and_then(|content| content.get("users")?.get(bot)?.as_i64()).unwrap_or(0)
            };
            power(event.get("content")) > power(event.pointer("/unsigned/prev_content"))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{favours, hint, moves};
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
            (json!({"type": "m.room.power_levels", "state_key": "", "event_id": "$known"}), &None),
            (json!({"type": "m.room.power_levels", "state_key": "", "event_id": "$new"}), &look),
            (json!({"type": "m.room.message", "content": {"membership": "invite"}}), &None),
        ];
        for (event, expected) in table {
            assert_eq!(hint(&room, &event, BOT, |id| id == "$known"), *expected, "{event}");
        }
    }

    #[test]
    fn only_what_favours_the_bot_can_be_its_own_doing() {
        let member = |key: &str, membership: &str| json!({"type": "m.room.member", "state_key": key, "content": {"membership": membership}});
        assert!(favours(&member(BOT, "invite"), BOT));
        assert!(!favours(&member(BOT, "ban"), BOT));
        assert!(!favours(&member(BOT, "leave"), BOT));
        let mut unban = member(BOT, "leave");
        unban["unsigned"] = json!({"prev_content": {"membership": "ban"}});
        assert!(favours(&unban, BOT));
        assert!(moves(&member("@carol:example.org", "join"), "@carol:example.org"));
        assert!(!moves(&member("@carol:example.org", "ban"), "@carol:example.org"));
        assert!(!moves(&member("@dave:example.org", "join"), "@carol:example.org"));
        assert!(!favours(&member("@alice:example.org", "invite"), BOT));
        let power = |before: i64, after: i64| {
            json!({"type": "m.room.power_levels", "state_key": "", "content": {"users": {BOT: after}},
                "unsigned": {"prev_content": {"users": {BOT: before}}}})
        };
        assert!(favours(&power(0, 100), BOT));
        assert!(!favours(&power(100, 100), BOT));
        assert!(!favours(&power(100, 0), BOT));
        assert!(!favours(&json!({"type": "m.room.message", "content": {}}), BOT));
    }
}
