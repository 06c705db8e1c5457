//! What the acts in one room leave there, and how that is told from what people do.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Clocks of homeserver and worker may differ by so much.
const EARLIER_MS: i64 = 10_000;
/// An act shows in the room within so much time, as a rule within a second.
const LATER_MS: i64 = 120_000;
/// So many of a room's acts are kept.
const MOST_ACTS: usize = 50;
/// And so many of the events that they made; an act makes two at most.
const MOST_EVENTS: usize = 2 * MOST_ACTS;

/// An act in somebody's name, by which what it leaves is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trace {
    /// When it was intended, in milliseconds since 1970.
    pub(super) at: i64,
    /// Who was moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) person: Option<String>,
}

/// A room's acts. They are not forgotten with time: what they made is told by sync or found in the room's history, and either
/// may be days behind. The newest are kept: whoever fights the bot for its power makes it act again and again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Traces {
    /// Oldest first.
    intended: Vec<Trace>,
    /// Identifiers of the events that the acts were seen to have made, oldest first.
    made: Vec<String>,
}

impl Traces {
    /// An act is about to be done.
    pub(super) fn intend(&mut self, trace: Trace) {
        self.intended.push(trace);
        keep_newest(&mut self.intended, MOST_ACTS);
    }

    /// These events were seen to be an act's.
    pub(super) fn made(&mut self, events: impl IntoIterator<Item = String>) {
        self.made.extend(events);
        keep_newest(&mut self.made, MOST_EVENTS);
    }

    /// Whether this event was seen to be an act's.
    pub(super) fn has_seen(&self, event: &Value) -> bool {
        field(event, "event_id").is_some_and(|id| self.made.iter().any(|made| made == id))
    }

    /// Whether an event that [may be](may_be_of_an_act) of an act is of one of these.
    pub(super) fn explain(&self, event: &Value, bot: &str) -> bool {
        let at = event.get("origin_server_ts").and_then(Value::as_i64).unwrap_or_default();
        let explains = |trace: &Trace| {
            (trace.at - EARLIER_MS..=trace.at + LATER_MS).contains(&at)
                && (favours(event, bot) || trace.person.as_ref().is_some_and(|person| moves(event, person)))
        };
        self.has_seen(event) || self.intended.iter().any(explains)
    }
}

/// Whether the homeserver sends such an event in somebody's name when the bot asks for something.
pub(super) fn may_be_of_an_act(event: &Value, bot: &str) -> bool {
    field(event, "sender").is_some_and(|sender| sender != bot)
        && matches!(field(event, "type"), Some("m.room.member" | "m.room.power_levels"))
}

fn keep_newest<T>(list: &mut Vec<T>, most: usize) {
    list.drain(..list.len().saturating_sub(most));
}

fn field<'a>(event: &'a Value, name: &str) -> Option<&'a str> {
    event.get(name).and_then(Value::as_str)
}

/// Whether an event is about somebody's own place in the room.
fn moves(event: &Value, person: &str) -> bool {
    field(event, "type") == Some("m.room.member")
        && field(event, "state_key") == Some(person)
        && matches!(
            event.pointer("/content/membership").and_then(Value::as_str),
            Some("invite" | "join" | "leave")
        )
}

/// Whether an event invites the bot, lifts its ban, or gives it more power than it had.
fn favours(event: &Value, bot: &str) -> bool {
    match (field(event, "type"), field(event, "state_key")) {
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
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const BOT: &str = "@auditbot:example.org";
    const CAROL: &str = "@carol:example.org";

    fn member(key: &str, membership: &str) -> Value {
        json!({"type": "m.room.member", "state_key": key, "content": {"membership": membership}})
    }

    fn at(time: i64, mut event: Value) -> Value {
        event["origin_server_ts"] = time.into();
        event
    }

    fn stored(traces: &Traces) -> Traces {
        serde_json::from_str(&serde_json::to_string(traces).unwrap()).unwrap()
    }

    #[test]
    fn only_what_favours_the_bot_can_be_its_own_doing() {
        assert!(favours(&member(BOT, "invite"), BOT));
        assert!(!favours(&member(BOT, "ban"), BOT));
        assert!(!favours(&member(BOT, "leave"), BOT));
        let mut unban = member(BOT, "leave");
        unban["unsigned"] = json!({"prev_content": {"membership": "ban"}});
        assert!(favours(&unban, BOT));
        assert!(moves(&member(CAROL, "join"), CAROL));
        assert!(!moves(&member(CAROL, "ban"), CAROL));
        assert!(!moves(&member("@dave:example.org", "join"), CAROL));
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

    #[test]
    fn an_event_that_was_seen_is_an_act_s_whatever_it_says() {
        let mut traces = Traces::default();
        traces.made(["$made".to_owned()]);
        let named = |id: &str| json!({"event_id": id, "type": "m.room.member", "sender": CAROL});
        assert!(traces.has_seen(&named("$made")) && traces.explain(&named("$made"), BOT));
        assert!(!traces.has_seen(&named("$other")) && !traces.explain(&named("$other"), BOT));
        // Nobody needs the bot's word for what it sent itself.
        assert!(may_be_of_an_act(&named("$made"), BOT) && !may_be_of_an_act(&named("$made"), CAROL));
    }

    #[test]
    fn a_room_in_which_the_bot_acts_for_ever_keeps_the_newest_acts() {
        let mut traces = Traces::default();
        for act in 0..1_000 {
            traces.intend(Trace { at: act * 1_000_000, person: None });
            traces.made([format!("${act}-power"), format!("${act}-invite")]);
        }
        assert_eq!((traces.intended.len(), traces.made.len()), (MOST_ACTS, MOST_EVENTS));
        let invited = |act: i64| traces.explain(&at(act * 1_000_000, member(BOT, "invite")), BOT);
        assert!(invited(999) && invited(950) && !invited(949));
        assert!(traces.has_seen(&json!({"event_id": "$950-power"})));
    }

    proptest! {
        #[test]
        fn every_act_is_known_by_its_time_and_nothing_else_is(
            acts in proptest::collection::vec((0..10_000_000_i64, any::<bool>()), 0..MOST_ACTS),
            time in 0..10_000_000_i64,
        ) {
            let mut traces = Traces::default();
            for (at, moved) in &acts {
                traces.intend(Trace { at: *at, person: moved.then(|| CAROL.to_owned()) });
                traces = stored(&traces);
            }
            let near = |at: &i64| (at - EARLIER_MS..=at + LATER_MS).contains(&time);
            let invited = acts.iter().any(|(at, _)| near(at));
            prop_assert_eq!(traces.explain(&at(time, member(BOT, "invite")), BOT), invited);
            let joined = acts.iter().any(|(at, moved)| *moved && near(at));
            prop_assert_eq!(traces.explain(&at(time, member(CAROL, "join")), BOT), joined);
            prop_assert!(!traces.explain(&at(time, member(BOT, "ban")), BOT));
        }
    }
}
