//! Which record each kind of event becomes, as tables. Closed: nobody can invent actions by sending
//! events. `docs/trail.md` has the same rows.

use crate::worker::vocabulary::{Row, Verb, activity, operation, resource, system};

pub(crate) const CALL_MEMBER: Verb = activity("call.member.changed");
pub(crate) const EDITED: Verb = activity("message.edited");
pub(crate) const EDIT_IGNORED: Verb = activity("message.edit_ignored");
pub(crate) const EMPTIED: Verb = activity("message.emptied");
pub(crate) const LOCATION_SHARING: Verb = activity("location.sharing.changed");
pub(crate) const MALFORMED: Verb = activity("event.malformed");
pub(crate) const OTHER_MESSAGE: Verb = activity("event.sent");
pub(crate) const OTHER_STATE: Verb = resource("room.state.changed");
pub(crate) const POLICY_RULE: Verb = system("policy.rule.changed");
pub(crate) const POLL_ANSWERED: Verb = activity("poll.answered");
pub(crate) const POLL_ENDED: Verb = activity("poll.ended");
pub(crate) const REACTION: Verb = activity("reaction.added");
pub(crate) const REACTION_REMOVED: Verb = activity("reaction.removed");
pub(crate) const REDACTED: Verb = activity("event.redacted");
pub(crate) const STATE_RESET: Verb = resource("room.state.reset");
pub(crate) const STATE_REDACTED: Verb = resource("room.state.redacted");
pub(crate) const UNDECRYPTABLE: Verb = activity("message.undecryptable");
pub(crate) const VERIFICATION: Verb = activity("verification.step");
pub(crate) const VOICE: Verb = activity("message.voice_sent");

pub(crate) const MEMBER_CHANGED: Verb = activity("room.member.changed");
pub(crate) const MEMBER_UNCHANGED: Verb = activity("room.member.unchanged");
pub(crate) const PROFILE_CHANGED: Verb = activity("room.member.profile_changed");

/// Events that are not state, by type. The first row that fits counts.
pub(crate) const MESSAGES: &[Row] = &[
    Row::new(
        &["m.room.message", "org.matrix.msc1767.message", "org.matrix.msc1767.emote"],
        activity("message.sent"),
    ),
    Row::new(
        &[
            "org.matrix.msc1767.audio",
            "org.matrix.msc1767.file",
            "org.matrix.msc1767.image",
            "org.matrix.msc1767.video",
        ],
        activity("message.file_sent"),
    ),
    Row::new(&["org.matrix.msc3245.voice.v2"], VOICE),
    Row::new(&["m.location"], activity("message.location_sent")),
    Row::new(&["m.sticker"], activity("message.sticker_sent")),
    Row::new(&["m.reaction"], REACTION),
    Row::new(&["m.poll.start", "org.matrix.msc3381.poll.start"], activity("poll.started")),
    Row::new(&["m.poll.response", "org.matrix.msc3381.poll.response"], POLL_ANSWERED),
    Row::new(&["m.poll.end", "org.matrix.msc3381.poll.end"], POLL_ENDED),
    Row::new(&["m.beacon", "org.matrix.msc3672.beacon"], activity("location.updated")),
    Row::new(&["m.call.invite"], activity("call.invited")),
    Row::new(&["m.call.answer"], activity("call.answered")),
    Row::new(
        &["m.call.reject", "m.rtc.decline", "org.matrix.msc4310.rtc.decline"],
        activity("call.rejected"),
    ),
    Row::new(&["m.call.hangup"], activity("call.ended")),
    Row::new(
        &[
            "m.call.notify",
            "m.rtc.notification",
            "org.matrix.msc4075.call.notify",
            "org.matrix.msc4075.rtc.notification",
        ],
        activity("call.announced"),
    ),
    // Sent as messages that last for a while by newer clients.
    Row::new(&["m.rtc.member", "org.matrix.msc4143.rtc.member"], CALL_MEMBER),
    Row::new(&["m.call.*", "m.rtc.*", "org.matrix.call.*", "io.element.call.*"], activity("call.signalled")),
    Row::new(&["m.key.verification.*"], VERIFICATION),
];

/// `m.room.message` by its `msgtype`, where that makes another record.
pub(crate) const MSGTYPES: &[Row] = &[
    Row::new(&["m.audio", "m.file", "m.image", "m.video"], activity("message.file_sent")),
    Row::new(&["m.location"], activity("message.location_sent")),
    Row::new(&["m.key.verification.request"], VERIFICATION),
];

/// State events by type, without `m.room.member`.
pub(crate) const STATES: &[Row] = &[
    Row::new(&["m.room.create"], resource("room.created")),
    Row::new(&["m.room.tombstone"], resource("room.upgraded")),
    Row::new(&["m.room.name"], resource("room.name.changed")),
    Row::new(&["m.room.topic"], resource("room.topic.changed")),
    Row::new(&["m.room.avatar"], resource("room.avatar.changed")),
    Row::new(&["m.room.canonical_alias", "m.room.aliases"], resource("room.alias.changed")),
    Row::new(&["m.room.pinned_events"], resource("room.pinned.changed")),
    Row::new(&["m.room.join_rules"], resource("room.join_rules.changed")),
    Row::new(&["m.room.history_visibility"], resource("room.history_visibility.changed")),
    Row::new(&["m.room.guest_access"], resource("room.guest_access.changed")),
    Row::new(&["m.room.encryption"], resource("room.encryption.changed")),
    Row::new(&["m.room.power_levels"], activity("room.power_levels.changed")),
    Row::new(&["m.room.third_party_invite"], activity("room.third_party_invite.changed")),
    Row::new(&["m.room.server_acl"], system("room.server_acl.changed")),
    Row::new(&["m.room.retention"], system("room.retention.changed")),
    Row::new(&["m.room.policy", "org.matrix.msc4284.policy"], system("room.policy_server.changed")),
    Row::new(&["m.policy.rule.*", "m.room.rule.*", "org.matrix.mjolnir.rule.*"], POLICY_RULE),
    Row::new(&["m.space.child"], operation("space.child.changed")),
    Row::new(&["m.space.parent"], operation("space.parent.changed")),
    Row::new(&["m.bridge", "uk.half-shot.bridge"], resource("room.bridge.changed")),
    Row::new(&["m.widget", "im.vector.modular.widgets"], resource("room.widget.changed")),
    Row::new(&["io.element.functional_members"], resource("room.functional_members.changed")),
    Row::new(&["m.beacon_info", "org.matrix.msc3672.beacon_info"], LOCATION_SHARING),
    Row::new(&["m.call.member", "org.matrix.msc3401.call.member"], CALL_MEMBER),
    Row::new(
        &["m.call", "m.rtc.slot", "org.matrix.msc3401.call", "org.matrix.msc4143.rtc.slot"],
        activity("call.session.changed"),
    ),
];

/// Redactions by the type of what they take away.
pub(crate) const REDACTIONS: &[Row] = &[
    Row::new(&["m.room.message", "m.room.encrypted", "m.sticker"], activity("message.redacted")),
    Row::new(&["m.reaction"], REACTION_REMOVED),
];

/// What is not told by the type alone.
pub(crate) const SPECIAL: &[Row] = &[
    Row::new(&["any other type that is not state"], OTHER_MESSAGE),
    Row::new(&["any other type of state"], OTHER_STATE),
    Row::new(&["an older setting is in force again, and no event says so"], STATE_RESET),
    Row::new(&["a voice message"], VOICE),
    Row::new(&["an edit by the author"], EDITED),
    Row::new(&["an edit by somebody else, or of another type"], EDIT_IGNORED),
    Row::new(&["a redaction of state"], STATE_REDACTED),
    Row::new(&["a redaction of anything else, or of what nobody knows"], REDACTED),
    Row::new(&["an encrypted message that was redacted before it was seen"], EMPTIED),
    Row::new(&["an event that cannot be decrypted"], UNDECRYPTABLE),
    Row::new(&["an event that cannot be read"], MALFORMED),
    Row::new(&["join → join, with another name or picture"], PROFILE_CHANGED),
    Row::new(&["the same membership again"], MEMBER_UNCHANGED),
    Row::new(&["a membership that nobody knows"], MEMBER_CHANGED),
];

/// Stands for every membership.
const ANY: &str = "any";

/// From one membership to another one.
pub(crate) struct Transition {
    was: &'static str,
    is: &'static str,
    /// Whether the person did it, where that matters.
    own: Option<bool>,
    pub(crate) verb: Verb,
}

impl Transition {
    const fn new(was: &'static str, is: &'static str, own: Option<bool>, action: &'static str) -> Self {
        Self { was, is, own, verb: activity(action) }
    }

    pub(crate) fn fits(&self, was: &str, is: &str, own: bool) -> bool {
        (self.was == ANY || self.was == was) && self.is == is && self.own.is_none_or(|wanted| wanted == own)
    }

    /// As the document names it.
    pub(crate) fn name(&self) -> String {
        let who = match self.own {
            None => "",
            Some(true) => ", by the person",
            Some(false) => ", by somebody else",
        };
        format!("{} → {}{who}", self.was, self.is)
    }
}

/// The transitions of the Matrix specification ("Room membership"). The first that fits counts.
pub(crate) const TRANSITIONS: &[Transition] = &[
    Transition::new(ANY, "join", None, "room.member.joined"),
    Transition::new("knock", "invite", None, "room.member.knock_accepted"),
    Transition::new(ANY, "invite", None, "room.member.invited"),
    Transition::new("invite", "leave", Some(true), "room.member.invite_rejected"),
    Transition::new("invite", "leave", Some(false), "room.member.invite_withdrawn"),
    Transition::new("knock", "leave", Some(true), "room.member.knock_withdrawn"),
    Transition::new("knock", "leave", Some(false), "room.member.knock_denied"),
    Transition::new("ban", "leave", None, "room.member.unbanned"),
    Transition::new(ANY, "leave", Some(true), "room.member.left"),
    Transition::new(ANY, "leave", Some(false), "room.member.kicked"),
    Transition::new(ANY, "ban", None, "room.member.banned"),
    Transition::new(ANY, "knock", None, "room.member.knocked"),
];

/// The verb of the first row that is of this type.
pub(super) fn find(rows: &[Row], kind: &str) -> Option<Verb> {
    rows.iter().find(|row| row.is_of(kind)).map(|row| row.verb)
}
