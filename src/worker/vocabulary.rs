//! Every kind of record there is: the closed set of categories, actions and relations.
//!
//! The tables here, in [`super::convert`] and in [`crate::domain::vocabulary`] are what the program goes by; `docs/trail.md` explains
//! each row, and `tests/integration/docs.rs` compares the two both ways.

use super::convert::vocabulary as events;
use crate::domain::vocabulary::{INTAKE, access};
pub use crate::domain::vocabulary::{Row, Verb};
pub(crate) use crate::domain::vocabulary::{activity, operation, resource, system};

/// What the worker does, and what it finds out about itself.
pub const OWN: &[Row] = &[
    Row::new(&["the worker starts"], system("worker.started")),
    Row::new(&["the worker stops"], system("worker.stopped")),
    Row::new(&["the bot's cryptographic identity is made"], system("bot.identity.finished")),
    Row::new(&["somebody changed that identity, or it is good again"], system("bot.identity.state_changed")),
    Row::new(&["a person asks to repair that identity"], system("bot.identity.repair_asked")),
    Row::new(&["that identity was made anew"], system("bot.identity.repaired")),
    Row::new(&["a part of a room's history cannot be read"], system("capture.gap")),
    Row::new(&["the bot was suspended"], system("capture.suspended")),
    Row::new(&["the bot's configuration changed"], resource("bot.configuration.changed")),
    Row::new(&["a change of the bot takes effect"], resource("bot.change.applied")),
    Row::new(&["the bot is deleted"], operation("bot.deleted")),
    Row::new(&["the time since the worker before has ended"], system("capture.interrupted")),
    Row::new(&["another version of a program works for the bot"], system("bot.version_changed")),
    Row::new(&["an hour has passed"], system("worker.heartbeat")),
    Row::new(&["a source of the trail goes on, lags or is off"], system("capture.source_switched")),
    Row::new(&["the bot comes into a room"], system("capture.absent")),
    Row::new(&["the bot is about to act in a room"], operation("bot.act.intended")),
    Row::new(&["the bot acted"], operation("bot.act.done")),
    Row::new(&["the homeserver refused the act"], operation("bot.act.failed")),
];

/// The content of an attachment is kept.
pub const ATTACHMENT_KEPT: Verb = activity("attachment.kept");
/// The content of an attachment was looked at, or that is all that was asked for.
pub const ATTACHMENT_DESCRIBED: Verb = activity("attachment.described");
/// The content of an attachment could not be had.
pub const ATTACHMENT_NOT_KEPT: Verb = activity("attachment.not_kept");

/// What becomes of an attachment, where the configuration asks for them.
pub const ATTACHMENTS: &[Row] = &[
    Row::new(&["the content of an attachment is kept"], ATTACHMENT_KEPT),
    Row::new(&["an attachment is described, and its content not kept"], ATTACHMENT_DESCRIBED),
    Row::new(&["the content of an attachment cannot be had"], ATTACHMENT_NOT_KEPT),
];

/// What a look at the homeserver's admin API shows, compared with the look before.
pub const LOOKS: &[Row] = &[
    Row::new(&["an account is there when recording begins"], operation("account.found")),
    Row::new(&["an account is new"], operation("account.registered")),
    Row::new(&["an account becomes an administrator"], operation("account.admin_granted")),
    Row::new(&["an account is no administrator any more"], operation("account.admin_revoked")),
    Row::new(&["an account is deactivated"], operation("account.deactivated")),
    Row::new(&["an account is reactivated"], operation("account.reactivated")),
    Row::new(&["an account is erased"], operation("account.erased")),
    Row::new(&["an account is not erased any more"], operation("account.erasure_undone")),
    Row::new(&["an account is locked"], operation("account.locked")),
    Row::new(&["an account is unlocked"], operation("account.unlocked")),
    Row::new(&["an account is shadow-banned"], operation("account.shadow_banned")),
    Row::new(&["an account is not shadow-banned any more"], operation("account.shadow_ban_lifted")),
    Row::new(&["an account is suspended"], operation("account.suspended")),
    Row::new(&["an account is not suspended any more"], operation("account.suspension_lifted")),
    Row::new(&["display name or picture of an account changes"], activity("account.profile_changed")),
    Row::new(
        &["mail addresses, phone numbers or identities elsewhere of an account change"],
        operation("account.identifiers_changed"),
    ),
    Row::new(&["another fact of an account changes"], operation("account.changed")),
    Row::new(&["a session is there when recording begins"], access("session.found")),
    Row::new(&["a login: a session is new"], access("session.started")),
    Row::new(
        &["a session is used from a place or with a client that is none of its last eight"],
        access("session.address_changed"),
    ),
    Row::new(&["a session is renamed"], access("session.renamed")),
    Row::new(&["a logout: a session is gone"], access("session.ended")),
    Row::new(&["somebody uploads a file"], activity("media.uploaded")),
    Row::new(&["a file is put into quarantine"], operation("media.quarantined")),
    Row::new(&["a file is taken out of quarantine"], operation("media.quarantine_lifted")),
    Row::new(&["an event is reported to the administrators"], activity("report.event_filed")),
    Row::new(&["a user is reported to the administrators"], activity("report.user_filed")),
    Row::new(&["a room is deleted"], operation("room.deleted")),
    Row::new(&["the homeserver when recording begins"], system("homeserver.found")),
    Row::new(&["the homeserver has another version"], system("homeserver.version_changed")),
    Row::new(&["the homeserver offers something else"], system("homeserver.features_changed")),
    Row::new(
        &["a background update of the homeserver begins or ends"],
        system("homeserver.background_updates_changed"),
    ),
];

/// Messages of other programs to the trail, where they are not recorded as what they claim to be.
pub const INBOX: &[Row] = &[
    Row::new(&["a message to the trail cannot be read"], system("inbox.unreadable")),
    Row::new(&["a message to the trail is not authentic"], system("inbox.unauthenticated")),
];

/// Everything that is ever recorded: what makes the record, and as what it is recorded.
pub fn all() -> Vec<(String, Verb)> {
    let plain = [events::MESSAGES, events::STATES, events::SPECIAL, OWN, ATTACHMENTS, LOOKS, INBOX, INTAKE];
    let plain = plain.into_iter().flatten().map(|row| (row.name(), row.verb));
    let kinds = events::MSGTYPES.iter().map(|row| (format!("m.room.message with {}", row.name()), row.verb));
    let redactions =
        events::REDACTIONS.iter().map(|row| (format!("a redaction of {}", row.name()), row.verb));
    let members = events::TRANSITIONS.iter().map(|transition| (transition.name(), transition.verb));
    plain.chain(kinds).chain(redactions).chain(members).collect()
}

/// Something that the homeserver's admin API says of an account.
#[derive(Debug, Clone, Copy)]
pub struct AccountFact {
    /// Its name there.
    pub name: &'static str,
    /// What it is when it is switched on; where it is nothing to switch, when it changes.
    pub on: Verb,
    /// What it is when it is switched off.
    pub off: Verb,
}

impl AccountFact {
    const fn flag(name: &'static str, on: &'static str, off: &'static str) -> Self {
        Self { name, on: operation(on), off: operation(off) }
    }

    const fn of(name: &'static str, verb: Verb) -> Self {
        Self { name, on: verb, off: verb }
    }
}

/// A change of a fact that has no word of its own.
pub(crate) const ANOTHER_FACT: Verb = operation("account.changed");
const PROFILE: Verb = activity("account.profile_changed");
const IDENTIFIERS: Verb = operation("account.identifiers_changed");

/// What the homeserver says of an account, and what a change of it is recorded as.
pub const ACCOUNT_FACTS: &[AccountFact] = &[
    AccountFact::flag("admin", "account.admin_granted", "account.admin_revoked"),
    AccountFact::of("appservice_id", ANOTHER_FACT),
    AccountFact::of("approved", ANOTHER_FACT),
    AccountFact::of("avatar_url", PROFILE),
    AccountFact::of("consent_version", ANOTHER_FACT),
    AccountFact::flag("deactivated", "account.deactivated", "account.reactivated"),
    AccountFact::of("displayname", PROFILE),
    AccountFact::flag("erased", "account.erased", "account.erasure_undone"),
    AccountFact::of("external_ids", IDENTIFIERS),
    AccountFact::of("is_guest", ANOTHER_FACT),
    AccountFact::flag("locked", "account.locked", "account.unlocked"),
    AccountFact::flag("shadow_banned", "account.shadow_banned", "account.shadow_ban_lifted"),
    AccountFact::flag("suspended", "account.suspended", "account.suspension_lifted"),
    AccountFact::of("threepids", IDENTIFIERS),
    AccountFact::of("user_type", ANOTHER_FACT),
];

/// What it says besides, and what makes no record by itself: which account it is, and when something was.
pub const ACCOUNT_FACTS_ASIDE: &[&str] =
    &["consent_server_notice_sent", "consent_ts", "creation_ts", "last_seen_ts", "name"];

/// Kinds of resources and the parts they take in records.
pub const RELATIONS: &[(&str, &str)] = &[
    ("admission", "target"),
    ("bot", "target"),
    ("bot_account", "target"),
    ("bridge", "target"),
    ("call", "part_of"),
    ("change", "applied"),
    ("change", "requested"),
    ("device", "target"),
    ("event", "annotates"),
    ("event", "attached_to"),
    ("event", "caused"),
    ("event", "claims_to_replace"),
    ("event", "pinned"),
    ("event", "plaintext_of"),
    ("event", "reacts_to"),
    ("event", "redacted_by"),
    ("event", "redacts"),
    ("event", "references"),
    ("event", "relates_to"),
    ("event", "replaces"),
    ("event", "replaces_state"),
    ("event", "replies_to"),
    ("event", "restored"),
    ("event", "self"),
    ("event", "target"),
    ("event", "thread"),
    ("event", "unpinned"),
    ("field", "unreadable"),
    ("homeserver", "target"),
    ("media", "attached"),
    ("media", "content"),
    ("media", "target"),
    ("media", "thumbnail"),
    ("namespace", "in"),
    ("network_policy", "target"),
    ("pod", "actor"),
    ("pod", "target"),
    ("process", "target"),
    ("request", "self"),
    ("request", "unauthenticated"),
    ("role", "target"),
    ("room", "admits"),
    ("room", "child"),
    ("room", "in"),
    ("room", "predecessor"),
    ("room", "successor"),
    ("room", "target"),
    ("secret", "target"),
    ("server", "target"),
    ("service_account", "target"),
    ("space", "parent"),
    ("state", "accepts"),
    ("state", "target"),
    ("user", "actor"),
    ("user", "authorised_by"),
    ("user", "bridge_bot"),
    ("user", "creator"),
    ("user", "target"),
    ("widget", "target"),
    ("workload", "target"),
];

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::domain::record::Category;

    #[test]
    fn an_action_has_one_category_and_a_source_one_action() {
        let mut categories: BTreeMap<&str, BTreeSet<Category>> = BTreeMap::new();
        let mut sources: BTreeMap<String, BTreeSet<Verb>> = BTreeMap::new();
        for (source, verb) in all() {
            categories.entry(verb.action).or_default().insert(verb.category);
            sources.entry(source).or_default().insert(verb);
        }
        categories.retain(|_, found| found.len() > 1);
        assert!(categories.is_empty(), "{categories:?}");
        sources.retain(|_, found| found.len() > 1);
        assert!(sources.is_empty(), "{sources:?}");
        for category in Category::ALL {
            assert!(all().iter().any(|(_, verb)| verb.category == category), "{category:?}");
        }
    }
}
