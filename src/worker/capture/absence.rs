//! From when to when the bot was not in a room that it belongs in, and why: what was said then may be
//! missing. Known when it comes (back), from its own membership as sync tells it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    domain::record::{Change, Occurred, RecordDraft, Relation},
    worker::convert::read,
};

/// Cursor that keeps since when and why the bot is not in a room any more; empty while it is.
pub(super) fn cursor_name(room: &str) -> String {
    format!("matrix:absent:{room}")
}

/// Since when the bot is away, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Absence {
    /// Milliseconds since 1970, as the event of leaving says.
    pub(super) from_ms: i64,
    /// In words.
    pub(super) cause: String,
}

/// What is known of the bot's attendance of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Attendance {
    /// It was never there.
    Never,
    /// It is there.
    Here,
    /// It was, and is not any more.
    Away(Absence),
}

impl Attendance {
    /// From the cursor.
    pub(super) fn of(cursor: Option<&str>) -> Self {
        match cursor {
            None => Self::Never,
            Some(text) => serde_json::from_str(text).map_or(Self::Here, Self::Away),
        }
    }

    /// For the cursor.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Away(absence) => serde_json::to_string(absence).unwrap_or_default(),
            Self::Never | Self::Here => String::new(),
        }
    }
}

/// What an event says of the bot's presence in its room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// It is not in the room any more.
    Left { absence: Absence, event: String },
    /// It is in the room, since this event if it has `come`: else the event may have changed its name only.
    Joined { at_ms: i64, event: String, come: bool },
}

impl Step {
    fn event(&self) -> &str {
        match self {
            Self::Left { event, .. } | Self::Joined { event, .. } => event,
        }
    }
}

/// What one answer of sync tells of the bot's attendance of a room.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// When the room was made.
    pub(super) created: Option<i64>,
    /// The bot comes into it for the first time.
    pub(super) begins: bool,
    state: Vec<Step>,
    timeline: Vec<Step>,
}

impl Told {
    /// Takes an event of the state in.
    pub(super) fn state(&mut self, raw: &str, bot: &str) {
        let step = self.read(raw, bot, false);
        self.state.extend(step);
    }

    /// Takes an event of the timeline in.
    pub(super) fn timeline(&mut self, raw: &str, bot: &str) {
        let step = self.read(raw, bot, true);
        self.timeline.extend(step);
    }

    fn read(&mut self, raw: &str, bot: &str, is_news: bool) -> Option<Step> {
        // Most events are messages: they need not be parsed for this.
        if !raw.contains("m.room.member") && !raw.contains("m.room.create") {
            return None;
        }
        let event = read(raw);
        self.created = self.created.or(creation(&event));
        // Events of the state come without what they replaced.
        self.begins |= is_news && is_first_membership(&event, bot);
        step(&event, bot, is_news)
    }

    /// In order: the state is that before the timeline, and may repeat what the timeline tells.
    pub(super) fn steps(self) -> Vec<Step> {
        let Self { mut state, timeline, .. } = self;
        state.retain(|step| timeline.iter().all(|told| told.event() != step.event()));
        state.extend(timeline);
        state
    }
}

/// Whether a room had nothing to do with the bot before this event of its history: it is the bot's first membership there.
pub(super) fn begins(raw: &str, bot: &str) -> bool {
    raw.contains("m.room.member") && is_first_membership(&read(raw), bot)
}

fn is_first_membership(event: &Value, bot: &str) -> bool {
    let is = |name: &str, value: &str| event.get(name).and_then(Value::as_str) == Some(value);
    let replaced = ["/unsigned/prev_content", "/unsigned/replaces_state"];
    is("type", "m.room.member")
        && is("state_key", bot)
        && replaced.iter().all(|name| event.pointer(name).is_none_or(Value::is_null))
}

/// Reads an event of sync. Events of the state come without what they replaced, and again and again.
pub(super) fn step(event: &Value, bot: &str, is_news: bool) -> Option<Step> {
    let field = |name: &str| event.get(name).and_then(Value::as_str);
    if field("type") != Some("m.room.member") || field("state_key") != Some(bot) {
        return None;
    }
    let membership = |path: &str| event.pointer(path).and_then(Value::as_str);
    let (was, is) = (membership("/unsigned/prev_content/membership"), membership("/content/membership"));
    let at_ms = event.get("origin_server_ts").and_then(Value::as_i64)?;
    let id = field("event_id")?.to_owned();
    let left = |cause: String| Step::Left { absence: Absence { from_ms: at_ms, cause }, event: id.clone() };
    match (was, is?) {
        (Some("join"), "join") => None,
        (was, "join") => Some(Step::Joined { at_ms, event: id, come: is_news || was.is_some() }),
        (Some("join"), "leave") if field("sender") == Some(bot) => Some(left("the bot left".to_owned())),
        (Some("join"), how @ ("leave" | "ban")) => {
            let did = if how == "ban" { "banned" } else { "removed" };
            Some(left(format!("{} {did} the bot", field("sender").unwrap_or("somebody"))))
        }
        _ => None,
    }
}

/// When the room was made, if this event says so.
pub(super) fn creation(event: &Value) -> Option<i64> {
    let is_creation = event.get("type").and_then(Value::as_str) == Some("m.room.create");
    event.get("origin_server_ts").and_then(Value::as_i64).filter(|_| is_creation)
}

/// Completes the record of an absence that has ended.
pub(super) fn complete(
    mut draft: RecordDraft,
    room: &str,
    before: &Attendance,
    created_ms: Option<i64>,
    joined_ms: i64,
) -> RecordDraft {
    let (from, cause) = match before {
        Attendance::Away(absence) => (Some(absence.from_ms), absence.cause.clone()),
        Attendance::Never => (created_ms, "the bot came into the room after it was made".to_owned()),
        Attendance::Here => (None, "the bot was removed and came back while nothing was read".to_owned()),
    };
    draft.occurred = from.map_or(Occurred::At(joined_ms), |from| Occurred::Between(from, joined_ms));
    draft.relations.push(Relation::new("room", room, "in"));
    draft.context.reason = Some(cause);
    let change = |path: &str, value: Option<i64>| Change {
        path: path.to_owned(),
        before: None,
        after: Some(value.map_or(Value::Null, Value::from)),
    };
    draft.changes = vec![change("/absence/from", from), change("/absence/to", Some(joined_ms))];
    draft
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const BOT: &str = "@auditbot:example.org";

    #[test]
    fn attendance_is_kept_as_it_is() {
        let away = Attendance::Away(Absence { from_ms: 5, cause: "why".to_owned() });
        assert_eq!(Attendance::of(Some(&away.text())), away);
        assert_eq!(Attendance::of(Some(&Attendance::Here.text())), Attendance::Here);
        assert_eq!(Attendance::of(None), Attendance::Never);
    }

    #[test]
    fn the_state_comes_before_the_timeline_and_repeats_nothing() {
        let event = |id: &str, was: Option<&str>, is: &str| {
            let mut event = member("@a:x", was, is);
            event["event_id"] = id.into();
            event.to_string()
        };
        let mut told = Told::default();
        told.state(&event("$1", Some("invite"), "join"), BOT);
        told.state(&event("$2", Some("join"), "leave"), BOT);
        told.timeline(&event("$2", Some("join"), "leave"), BOT);
        let steps = told.steps();
        assert_eq!(steps.iter().map(Step::event).collect::<Vec<_>>(), ["$1", "$2"]);
    }

    fn member(sender: &str, was: Option<&str>, is: &str) -> Value {
        json!({"type": "m.room.member", "state_key": BOT, "sender": sender, "event_id": "$e", "origin_server_ts": 5,
            "content": {"membership": is}, "unsigned": {"prev_content": {"membership": was}}})
    }

    #[test]
    fn only_a_membership_that_replaces_nothing_is_the_first() {
        let first = json!({"type": "m.room.member", "state_key": BOT, "sender": "@a:x", "content": {"membership": "invite"}});
        let changed = |path: &str, value: Value| {
            let mut event = first.clone();
            event[path] = value;
            event.to_string()
        };
        assert!(begins(&first.to_string(), BOT));
        assert!(begins(&changed("unsigned", json!({"age": 1, "prev_content": null})), BOT));
        for (path, value) in [
            ("unsigned", json!({"prev_content": {}})),
            ("unsigned", json!({"replaces_state": "$before"})),
            ("state_key", json!("@a:x")),
            ("type", json!("m.room.message")),
        ] {
            assert!(!begins(&changed(path, value.clone()), BOT), "{path} {value}");
        }
        let mut told = Told::default();
        told.state(&first.to_string(), BOT);
        assert!(!told.begins, "the state does not say what it replaced");
        told.timeline(&first.to_string(), BOT);
        assert!(told.begins);
    }

    #[test]
    fn coming_and_going_are_told_from_everything_else() {
        let left = |cause: &str| {
            let absence = Absence { from_ms: 5, cause: cause.to_owned() };
            Some(Step::Left { absence, event: "$e".to_owned() })
        };
        let joined = Some(Step::Joined { at_ms: 5, event: "$e".to_owned(), come: true });
        for (event, expected) in [
            (member(BOT, Some("invite"), "join"), joined.clone()),
            (member(BOT, None, "join"), joined.clone()),
            (member(BOT, Some("leave"), "join"), joined),
            (member(BOT, Some("join"), "join"), None),
            (member(BOT, Some("join"), "leave"), left("the bot left")),
            (member("@a:x", Some("join"), "leave"), left("@a:x removed the bot")),
            (member("@a:x", Some("join"), "ban"), left("@a:x banned the bot")),
            (member("@a:x", Some("leave"), "ban"), None),
            (member("@a:x", Some("leave"), "invite"), None),
            (json!({"type": "m.room.member", "state_key": "@a:x", "content": {"membership": "join"}}), None),
            (json!({"type": "m.room.message"}), None),
        ] {
            assert_eq!(step(&event, BOT, true), expected, "{event}");
        }
        let uncertain = Some(Step::Joined { at_ms: 5, event: "$e".to_owned(), come: false });
        assert_eq!(step(&member(BOT, None, "join"), BOT, false), uncertain, "it may be another name only");
        assert_eq!(creation(&json!({"type": "m.room.create", "origin_server_ts": 3})), Some(3));
        assert_eq!(creation(&member(BOT, None, "join")), None);
    }
}
