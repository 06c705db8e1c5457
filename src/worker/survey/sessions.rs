//! Sessions of an account: who logged in, from where, and logged out.

use std::collections::BTreeMap;

use serde_json::Value;

use super::draft::{Span, about};
use crate::{
    domain::record::{Actor, Category, Change, RecordDraft, Relation},
    homeserver::SessionFacts,
};

/// What happened to the sessions of an account between two looks. `is_baseline`: they are seen for the
/// first time, and may be of any age.
pub(super) fn changed(
    user: &str,
    before: Option<&BTreeMap<String, SessionFacts>>,
    now: &BTreeMap<String, SessionFacts>,
    is_baseline: bool,
    span: Span,
) -> Vec<RecordDraft> {
    let none = BTreeMap::new();
    let before = before.unwrap_or(&none);
    let begun = if is_baseline { "session.found" } else { "session.started" };
    let mut drafts = Vec::new();
    for (device, session) in now {
        match before.get(device) {
            None => drafts.push(record(user, begun, None, Some(session), span)),
            Some(old) if old.name != session.name => {
                drafts.push(record(user, "session.renamed", Some(old), Some(session), span));
            }
            Some(_) => {}
        }
        if let Some(old) = before.get(device)
            && (&old.ip, &old.user_agent) != (&session.ip, &session.user_agent)
        {
            drafts.push(record(user, "session.address_changed", Some(old), Some(session), span));
        }
    }
    let gone = before.iter().filter(|(device, _)| !now.contains_key(*device));
    drafts.extend(gone.map(|(_, old)| record(user, "session.ended", Some(old), None, span)));
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

    fn session(device: &str, name: &str, ip: &str) -> (String, SessionFacts) {
        let some = |text: &str| Some(text.to_owned());
        let facts = SessionFacts {
            device: device.to_owned(),
            name: some(name),
            ip: some(ip),
            user_agent: some("UA"),
        };
        (device.to_owned(), facts)
    }

    fn actions(drafts: &[RecordDraft]) -> Vec<(&str, Option<&str>)> {
        drafts.iter().map(|draft| (draft.action.as_str(), draft.context.device_id.as_deref())).collect()
    }

    #[test]
    fn logins_and_logouts_are_told_from_what_was_there_before() {
        let before = BTreeMap::from([session("A", "phone", "1.1.1.1"), session("B", "web", "2.2.2.2")]);
        let now = BTreeMap::from([session("B", "laptop", "3.3.3.3"), session("C", "tablet", "4.4.4.4")]);
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
}
