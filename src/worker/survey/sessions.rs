//! Sessions of an account: who logged in, from where, and logged out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::draft::{Span, about};
use crate::{
    domain::record::{Actor, Category, Change, RecordDraft, Relation},
    homeserver::SessionFacts,
};

/// Places that are remembered of a session. The homeserver tells only the last one: a session that several programs
/// share would go back and forth between theirs for ever, and the account of this program's own worker is one.
const PLACES: usize = 8;

/// An account's sessions, by device.
pub(super) type Sessions = BTreeMap<String, Known>;

/// What is known of a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Known {
    /// As it was seen last.
    #[serde(flatten)]
    facts: SessionFacts,
    /// Where it was used before, latest first, without the place where it was seen last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    earlier: Vec<Place>,
}

/// Where a session was used from, and with what.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Place {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ip: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
}

impl Place {
    fn of(session: &SessionFacts) -> Self {
        Self { ip: session.ip.clone(), user_agent: session.user_agent.clone() }
    }
}

impl Known {
    fn has_been_at(&self, place: &Place) -> bool {
        Place::of(&self.facts) == *place || self.earlier.contains(place)
    }
}

/// What is known once these sessions were seen.
pub(super) fn remembered(before: Option<&Sessions>, seen: Vec<SessionFacts>) -> Sessions {
    let known = |mut facts: SessionFacts| {
        let old = before.and_then(|sessions| sessions.get(&facts.device));
        // Synapse forgets where a session was used from a moment before it forgets the session.
        if let Some(old) = old.filter(|_| Place::of(&facts) == Place::default()) {
            facts.ip.clone_from(&old.facts.ip);
            facts.user_agent.clone_from(&old.facts.user_agent);
        }
        let here = Place::of(&facts);
        let mut earlier = Vec::new();
        if let Some(old) = old {
            earlier.push(Place::of(&old.facts));
            earlier.extend_from_slice(&old.earlier);
        }
        earlier.retain(|place| *place != here);
        earlier.truncate(PLACES - 1);
        (facts.device.clone(), Known { facts, earlier })
    };
    seen.into_iter().map(known).collect()
}

/// What happened to the sessions of an account between two looks. `is_baseline`: they are seen for the
/// first time, and may be of any age.
pub(super) fn changed(
    user: &str,
    before: Option<&Sessions>,
    now: &Sessions,
    is_baseline: bool,
    span: Span,
) -> Vec<RecordDraft> {
    let none = Sessions::new();
    let before = before.unwrap_or(&none);
    let begun = if is_baseline { "session.found" } else { "session.started" };
    let mut drafts = Vec::new();
    for (device, Known { facts: session, .. }) in now {
        let Some(old) = before.get(device) else {
            drafts.push(record(user, begun, None, Some(session), span));
            continue;
        };
        let mut push = |action| drafts.push(record(user, action, Some(&old.facts), Some(session), span));
        if old.facts.name != session.name {
            push("session.renamed");
        }
        if !old.has_been_at(&Place::of(session)) {
            push("session.address_changed");
        }
    }
    let gone = before.iter().filter(|(device, _)| !now.contains_key(*device));
    drafts.extend(gone.map(|(_, old)| record(user, "session.ended", Some(&old.facts), None, span)));
    drafts
}

fn record(
    user: &str,
    action: &str,
    before: Option<&SessionFacts>,
    after: Option<&SessionFacts>,
    span: Span,
) -> RecordDraft {
    let none = SessionFacts::default();
    let session = after.or(before).unwrap_or(&none);
    let id = format!("survey:{action}:{user}:{}:{}", session.device, span.now);
    let mut draft = about(user, id, Category::AccessEvent, action, span);
    // Whoever has the session acts as the user. Ending and renaming one is also an admin's right.
    if ["session.started", "session.address_changed"].contains(&action) {
        draft.actor = Actor::matrix(user);
    }
    draft.relations.push(Relation::new("device", &session.device, "target"));
    draft.context.device_id = Some(session.device.clone());
    draft.context.ip.clone_from(&session.ip);
    draft.context.user_agent.clone_from(&session.user_agent);
    draft.text.clone_from(&session.name);
    draft.changes = [
        ("name", before.map(|one| &one.name), after.map(|one| &one.name)),
        ("ip", before.map(|one| &one.ip), after.map(|one| &one.ip)),
        ("userAgent", before.map(|one| &one.user_agent), after.map(|one| &one.user_agent)),
    ]
    .into_iter()
    .filter_map(|(field, before, after)| {
        let value = |text: Option<&Option<String>>| text.cloned().flatten().map(Value::from);
        let (before, after) = (value(before), value(after));
        (before != after).then(|| Change { path: format!("/session/{field}"), before, after })
    })
    .collect();
    draft
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::record::Occurred;

    fn span() -> Span {
        Span::new(Some(1), 2)
    }

    fn session(device: &str, name: &str, ip: &str) -> SessionFacts {
        let some = |text: &str| Some(text.to_owned());
        SessionFacts { device: device.to_owned(), name: some(name), ip: some(ip), user_agent: some("UA") }
    }

    fn actions(drafts: &[RecordDraft]) -> Vec<(&str, Option<&str>)> {
        drafts.iter().map(|draft| (draft.action.as_str(), draft.context.device_id.as_deref())).collect()
    }

    #[test]
    fn logins_and_logouts_are_told_from_what_was_there_before() {
        let before = remembered(None, vec![session("A", "phone", "1.1.1.1"), session("B", "web", "2.2.2.2")]);
        let seen = vec![session("B", "laptop", "3.3.3.3"), session("C", "tablet", "4.4.4.4")];
        let now = remembered(Some(&before), seen);
        let drafts = changed("@a:x", Some(&before), &now, false, span());
        let expected = [
            ("session.renamed", Some("B")),
            ("session.address_changed", Some("B")),
            ("session.started", Some("C")),
            ("session.ended", Some("A")),
        ];
        assert_eq!(actions(&drafts), expected);
        let moved = &drafts[1];
        assert_eq!((moved.context.ip.as_deref(), moved.occurred), (Some("3.3.3.3"), Occurred::Between(1, 2)));
        assert!(moved.changes.iter().any(|change| change.before == Some("2.2.2.2".into())));
        assert_eq!((&drafts[2].actor, &drafts[3].actor), (&Actor::matrix("@a:x"), &Actor::Unknown));
        let found = changed("@a:x", None, &now, true, span());
        assert_eq!(actions(&found), [("session.found", Some("B")), ("session.found", Some("C"))]);
        assert!(changed("@a:x", Some(&now), &now, false, span()).is_empty());
    }

    #[test]
    fn a_place_is_told_once_while_it_is_remembered() {
        let mut known = remembered(None, vec![session("A", "phone", "10.0.0.0")]);
        let mut go = |number: usize| {
            let now = remembered(Some(&known), vec![session("A", "phone", &format!("10.0.0.{number}"))]);
            let drafts = changed("@a:x", Some(&known), &now, false, span());
            known = now;
            drafts.iter().any(|draft| draft.action == "session.address_changed")
        };
        assert!(go(1));
        assert!(!go(0) && !go(1) && !go(0), "back and forth between two places");
        for number in 2..=PLACES {
            assert!(go(number), "{number} is new");
        }
        assert!(!go(0), "the latest {PLACES} are remembered");
        assert!(go(1), "this one was longest ago");
    }

    #[test]
    fn where_a_session_was_used_is_known_when_it_ends() {
        let before = remembered(None, vec![session("A", "phone", "1.1.1.1")]);
        let ending = SessionFacts { ip: None, user_agent: None, ..session("A", "phone", "") };
        let now = remembered(Some(&before), vec![ending]);
        assert!(changed("@a:x", Some(&before), &now, false, span()).is_empty());
        let drafts = changed("@a:x", Some(&now), &Sessions::new(), false, span());
        assert_eq!(actions(&drafts), [("session.ended", Some("A"))]);
        assert_eq!(drafts[0].context.ip.as_deref(), Some("1.1.1.1"));
    }

    #[test]
    fn what_an_older_version_kept_can_be_read() {
        let old = serde_json::to_value(session("A", "phone", "1.1.1.1")).unwrap();
        let known: Known = serde_json::from_value(old).unwrap();
        assert_eq!(known, Known { facts: session("A", "phone", "1.1.1.1"), earlier: Vec::new() });
        let there = serde_json::to_value(&known).unwrap();
        assert_eq!(serde_json::from_value::<Known>(there).unwrap(), known);
    }
}
