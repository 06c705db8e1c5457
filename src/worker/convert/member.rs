//! Membership: which of the many transitions it was.

use serde_json::Value;

use super::{
    Event, diff,
    draft::Draft,
    lenient::{at, str_at},
};
use crate::domain::record::Category;

pub(super) fn convert(draft: &mut Draft, event: &Event, before: Option<&Value>) {
    let content = event.content();
    let target = event.state_key().unwrap_or_default();
    let own = event.sender() == Some(target);
    let was = before.and_then(|before| str_at(before, &["membership"])).unwrap_or("leave");
    let known = before.is_some();
    let is = str_at(content, &["membership"]).unwrap_or_default();
    let profile = ["displayname", "avatar_url"]
        .iter()
        .any(|key| at(content, &[key]) != before.and_then(|before| at(before, &[key])));
    draft.action(Category::UserActivity, action(was, is, own, known, profile));
    draft.reason(str_at(content, &["reason"]));
    draft.relate("user", target, "target");
    draft.subject(target, "target");
    draft.text(str_at(content, &["displayname"]).map(str::to_owned));
    if let Some(by) = str_at(content, &["join_authorised_via_users_server"]) {
        draft.relate("user", by, "authorised_by");
    }
    draft.changed(diff::diff(&diff::join("/m.room.member", target), before, Some(content)));
}

/// The transition, from the table of the Matrix specification ("Room membership").
fn action(was: &str, is: &str, own: bool, known: bool, profile: bool) -> &'static str {
    match (was, is) {
        ("join", "join") if profile => "room.member.profile_changed",
        ("join" | "invite" | "ban" | "knock", same) if same == was => "room.member.unchanged",
        (_, "join") => "room.member.joined",
        ("knock", "invite") => "room.member.knock_accepted",
        (_, "invite") => "room.member.invited",
        ("invite", "leave") if own => "room.member.invite_rejected",
        ("invite", "leave") => "room.member.invite_withdrawn",
        ("knock", "leave") if own => "room.member.knock_withdrawn",
        ("knock", "leave") => "room.member.knock_denied",
        ("ban", "leave") => "room.member.unbanned",
        ("leave", "leave") if known => "room.member.unchanged",
        (_, "leave") if own => "room.member.left",
        (_, "leave") => "room.member.kicked",
        (_, "ban") => "room.member.banned",
        (_, "knock") => "room.member.knocked",
        _ => "room.member.changed",
    }
}

#[cfg(test)]
mod tests {
    use super::action;

    #[test]
    fn transitions_have_their_names() {
        for (was, is, own, expected) in [
            ("leave", "join", true, "room.member.joined"),
            ("invite", "join", true, "room.member.joined"),
            ("leave", "invite", false, "room.member.invited"),
            ("knock", "invite", false, "room.member.knock_accepted"),
            ("join", "leave", true, "room.member.left"),
            ("join", "leave", false, "room.member.kicked"),
            ("invite", "leave", true, "room.member.invite_rejected"),
            ("invite", "leave", false, "room.member.invite_withdrawn"),
            ("knock", "leave", true, "room.member.knock_withdrawn"),
            ("knock", "leave", false, "room.member.knock_denied"),
            ("ban", "leave", false, "room.member.unbanned"),
            ("join", "ban", false, "room.member.banned"),
            ("leave", "ban", false, "room.member.banned"),
            ("leave", "knock", true, "room.member.knocked"),
            ("join", "join", true, "room.member.unchanged"),
            ("leave", "leave", false, "room.member.unchanged"),
            ("join", "nonsense", true, "room.member.changed"),
        ] {
            assert_eq!(action(was, is, own, true, false), expected, "{was} -> {is}, own: {own}");
        }
        assert_eq!(action("join", "join", true, true, true), "room.member.profile_changed");
        assert_eq!(action("leave", "leave", false, false, false), "room.member.kicked");
    }
}
