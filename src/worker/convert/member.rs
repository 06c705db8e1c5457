//! Membership: which of the many transitions it was.

use serde_json::Value;

use super::{
    Event, diff,
    draft::Draft,
    lenient::{at, str_at},
    vocabulary::{MEMBER_CHANGED, MEMBER_UNCHANGED, PROFILE_CHANGED, TRANSITIONS},
};
use crate::worker::vocabulary::Verb;

pub(super) fn convert(draft: &mut Draft, event: &Event, before: Option<&Value>, content: &Value) {
    let target = event.state_key().unwrap_or_default();
    let own = event.sender() == Some(target);
    let was = before.and_then(|before| str_at(before, &["membership"])).unwrap_or("leave");
    let known = before.is_some();
    let is = str_at(content, &["membership"]).unwrap_or_default();
    let profile = ["displayname", "avatar_url"]
        .iter()
        .any(|key| at(content, &[key]) != before.and_then(|before| at(before, &[key])));
    draft.verb(verb(was, is, own, known, profile));
    draft.reason(str_at(content, &["reason"]));
    draft.person(target, "target");
    // Of somebody who was invited by mail or phone only what that invitation called them is known.
    let name = str_at(content, &["displayname"]);
    draft.text(name.or_else(|| str_at(content, &["third_party_invite", "display_name"])).map(str::to_owned));
    if let Some(by) = str_at(content, &["join_authorised_via_users_server"]) {
        draft.relate("user", by, "authorised_by");
    }
    if let Some(token) = str_at(content, &["third_party_invite", "signed", "token"]) {
        draft.relate("state", &format!("m.room.third_party_invite/{token}"), "accepts");
    }
    draft.changed(diff::diff(&diff::join("/m.room.member", target), before, Some(content)));
}

fn verb(was: &str, is: &str, own: bool, known: bool, profile: bool) -> Verb {
    // Who was never there cannot stay away: that is somebody who left before the bot knew of them.
    let same = was == is && (known || is != "leave");
    if same && ["join", "invite", "ban", "knock", "leave"].contains(&is) {
        return if is == "join" && profile { PROFILE_CHANGED } else { MEMBER_UNCHANGED };
    }
    let transition = TRANSITIONS.iter().find(|transition| transition.fits(was, is, own));
    transition.map_or(MEMBER_CHANGED, |transition| transition.verb)
}

#[cfg(test)]
mod tests {
    use super::verb;

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
            ("any", "any", true, "room.member.changed"),
            ("nonsense", "nonsense", true, "room.member.changed"),
        ] {
            assert_eq!(verb(was, is, own, true, false).action, expected, "{was} -> {is}, own: {own}");
        }
        assert_eq!(verb("join", "join", true, true, true).action, "room.member.profile_changed");
        assert_eq!(verb("leave", "leave", false, false, false).action, "room.member.kicked");
    }
}
