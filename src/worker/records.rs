//! Records of the worker's own acts and states.

use jiff::Timestamp;
use serde_json::Value;

use super::{session::IdentityFacts, sources::Since};
use crate::{
    coverage::{Act, ActOutcome},
    domain::{
        BotName, UserId,
        record::{Actor, Category, Change, Occurred, RecordDraft, Relation, Subject},
        worker::{Instructions, SuspendCapture},
    },
};

/// A record of the worker itself; `what` makes its source id unique.
pub(crate) fn own(
    bot: &BotName,
    category: Category,
    action: &str,
    what: &str,
    now: Timestamp,
) -> RecordDraft {
    RecordDraft {
        actor: Actor::worker(),
        relations: vec![Relation::new("bot", bot.to_string(), "target")],
        ..RecordDraft::bare(format!("worker:{what}"), category, action, Occurred::At(now.as_millisecond()))
    }
}

fn change(path: &str, before: Option<Value>, after: Option<Value>) -> Change {
    Change { path: path.to_owned(), before, after }
}

/// The worker goes on recording.
pub(crate) fn started(bot: &BotName, run: &str, device: &str, now: Timestamp) -> RecordDraft {
    let mut draft = own(bot, Category::SystemChange, "worker.started", &format!("started:{run}"), now);
    draft.context.device_id = Some(device.to_owned());
    draft.context.session_id = Some(run.to_owned());
    draft.changes = vec![change("/worker/version", None, Some(env!("CARGO_PKG_VERSION").into()))];
    draft.text = Some(format!("ems-bots {} started", env!("CARGO_PKG_VERSION")));
    draft
}

/// The worker stops recording, in order.
pub(crate) fn stopped(bot: &BotName, run: &str, now: Timestamp) -> RecordDraft {
    let mut draft = own(bot, Category::SystemChange, "worker.stopped", &format!("stopped:{run}"), now);
    draft.context.session_id = Some(run.to_owned());
    draft.changes = vec![change("/worker/version", Some(env!("CARGO_PKG_VERSION").into()), None)];
    draft.text = Some(format!("ems-bots {} stopped", env!("CARGO_PKG_VERSION")));
    draft
}

/// The bot's identity is finished: it is not made anew from now on without a person's decision.
pub(crate) fn identity_finished(bot: &BotName, facts: &IdentityFacts, now: Timestamp) -> RecordDraft {
    let what = format!("identity:{}", facts.master_key);
    let mut draft = own(bot, Category::SystemChange, "bot.identity.finished", &what, now);
    draft.source_raw = serde_json::to_string(facts).ok();
    draft.changes = vec![
        change("/identity/masterKey", None, Some(facts.master_key.clone().into())),
        change("/identity/backupVersion", None, Some(facts.backup_version.clone().into())),
    ];
    draft
}

/// A person decided to have the identity made anew.
pub(crate) fn repair_asked(bot: &BotName, value: &str, why: &str, now: Timestamp) -> RecordDraft {
    let what = format!("repair-encryption:{value}");
    let mut draft = own(bot, Category::SystemChange, "bot.identity.repair_asked", &what, now);
    draft.context.reason = Some(value.to_owned());
    draft.text = Some(why.to_owned());
    draft
}

/// The identity was made anew.
pub(crate) fn repaired(
    bot: &BotName,
    value: &str,
    before: &IdentityFacts,
    after: &IdentityFacts,
    now: Timestamp,
) -> RecordDraft {
    let what = format!("repaired-encryption:{value}");
    let mut draft = own(bot, Category::SystemChange, "bot.identity.repaired", &what, now);
    draft.source_raw = serde_json::to_string(after).ok();
    let changed = |path, before: &str, after: &str| {
        (before != after).then(|| change(path, Some(before.into()), Some(after.into())))
    };
    draft.changes = [
        changed("/identity/masterKey", &before.master_key, &after.master_key),
        changed("/identity/backupVersion", &before.backup_version, &after.backup_version),
        changed("/identity/secretStorageKey", &before.secret_storage_key, &after.secret_storage_key),
    ]
    .into_iter()
    .flatten()
    .collect();
    draft
}

/// Somebody or something changed the identity, or it is good again.
pub(crate) fn identity_state(
    bot: &BotName,
    before: Option<&str>,
    after: Option<&str>,
    now: Timestamp,
) -> RecordDraft {
    let what = format!("identity-state:{}", now.as_microsecond());
    let mut draft = own(bot, Category::SystemChange, "bot.identity.state_changed", &what, now);
    draft.changes = vec![change("/identity/trouble", before.map(Value::from), after.map(Value::from))];
    draft
}

/// The Matrix side was stopped from then till now.
pub(crate) fn suspended(bot: &BotName, from_ms: i64, told: &Instructions, now: Timestamp) -> RecordDraft {
    let what = format!("suspended:{from_ms}");
    let mut draft = own(bot, Category::SystemChange, "capture.suspended", &what, now);
    draft.occurred = Occurred::Between(from_ms, now.as_millisecond());
    let policy = told.suspend_capture;
    let caught_up = policy == SuspendCapture::CatchUp && !told.deleting;
    draft.context.reason = Some(format!("spec.suspend; spec.suspendCapture: {}", policy.as_str()));
    let time = |ms: i64| Timestamp::from_millisecond(ms).map_or(Value::Null, |time| time.to_string().into());
    draft.changes = vec![
        change("/capture/from", None, Some(time(from_ms))),
        change("/capture/to", None, Some(time(now.as_millisecond()))),
        change("/capture/caughtUp", None, Some(caught_up.into())),
    ];
    draft
}

/// The configuration changed.
pub(crate) fn configured(
    bot: &BotName,
    generation: i64,
    changes: Vec<Change>,
    now: Timestamp,
) -> RecordDraft {
    let id = format!("configured:{generation}:{}", now.as_microsecond());
    let mut draft = own(bot, Category::ResourceChange, "bot.configuration.changed", &id, now);
    draft.changes = changes;
    draft
}

/// The worker goes by another generation of the custom resource: what somebody asked for is done.
pub(crate) fn applied(
    bot: &BotName,
    before: Option<&str>,
    told: &Instructions,
    now: Timestamp,
) -> RecordDraft {
    let id = told.change();
    let mut draft = own(bot, Category::ResourceChange, "bot.change.applied", &format!("applied:{id}"), now);
    draft.relations.push(Relation::new("change", &id, "applied"));
    // Generations in between were replaced before the worker saw them.
    let same_life = before.and_then(|before| before.strip_prefix(&*told.uid)?.strip_prefix('/'));
    let before = same_life.and_then(|rest| rest.split('/').next()?.parse::<i64>().ok());
    // Another definition of the resource can give the same generation other defaults.
    if before != Some(told.generation) {
        let before = before.map(Value::from);
        draft.changes = vec![change("/metadata/generation", before, Some(told.generation.into()))];
    }
    draft
}

/// The custom resource is being deleted: the trail's last record of this resource.
pub(crate) fn deleted(bot: &BotName, told: &Instructions, now: Timestamp) -> RecordDraft {
    // A custom resource is deleted once, and another one of the same name has another UID: so every
    // deletion is recorded, and a restart in the middle does not repeat it. A file has no UID.
    let life = if told.uid.is_empty() { told.generation.to_string() } else { told.uid.clone() };
    own(bot, Category::AdminOperation, "bot.deleted", &format!("deleted:{bot}:{life}"), now)
}

/// A span of a room's history that could not be read.
pub(crate) fn gap(bot: &BotName, room: &str, from: &str, why: &str, now: Timestamp) -> RecordDraft {
    let mut draft = own(bot, Category::SystemChange, "capture.gap", &format!("gap:{room}:{from}"), now);
    draft.relations.push(Relation::new("room", room, "in"));
    draft.context.reason = Some(why.to_owned());
    draft
}

/// The trail goes on although nothing happens: once an hour, whatever restarts.
pub(crate) fn heartbeat(bot: &BotName, now: Timestamp) -> RecordDraft {
    let hour = now.as_second() / 3_600;
    own(bot, Category::SystemChange, "worker.heartbeat", &format!("heartbeat:{hour}"), now)
}

/// Nothing could be recorded from then till now; what happened in rooms is read afterwards.
pub(crate) fn interrupted(bot: &BotName, from_ms: i64, why: &str, now: Timestamp) -> RecordDraft {
    let what = format!("interrupted:{from_ms}");
    let mut draft = own(bot, Category::SystemChange, "capture.interrupted", &what, now);
    draft.occurred = Occurred::Between(from_ms, now.as_millisecond());
    draft.context.reason = Some(why.to_owned());
    draft
}

/// Another version of a program works for the bot, or the first one.
pub(crate) fn version_changed(
    bot: &BotName,
    program: &str,
    before: Option<&str>,
    after: &str,
    now: Timestamp,
) -> RecordDraft {
    let what = format!("version:{program}:{}", now.as_microsecond());
    let mut draft = own(bot, Category::SystemChange, "bot.version_changed", &what, now);
    draft.text = Some(format!("{program} {after}"));
    draft.changes =
        vec![change(&format!("/versions/{program}"), before.map(Value::from), Some(after.into()))];
    draft
}

/// A source is followed, lags or is off, since then.
pub(crate) fn source_switched(
    bot: &BotName,
    source: &str,
    before: Option<&Since>,
    after: &Since,
) -> RecordDraft {
    let what = format!("source:{source}:{}:{}", after.standing, after.since_ms);
    let at = Timestamp::from_millisecond(after.since_ms).unwrap_or_default();
    let mut draft = own(bot, Category::SystemChange, "capture.source_switched", &what, at);
    if let Some(before) = before.filter(|before| before.why.is_some()) {
        // It was behind or off from then till now.
        draft.occurred = Occurred::Between(before.since_ms, after.since_ms);
    }
    let why = after.why.as_ref().or(before.and_then(|before| before.why.as_ref()));
    draft.context.reason = why.cloned();
    let value = |since: &Since| Value::from(since.standing.clone());
    draft.changes = vec![change(&format!("/sources/{source}"), before.map(value), Some(value(after)))];
    draft
}

/// The bot was not in a room until this event.
pub(crate) fn absent(bot: &BotName, joined: &str, now: Timestamp) -> RecordDraft {
    own(bot, Category::SystemChange, "capture.absent", &format!("absent:{joined}"), now)
}

/// An act of coverage is about to be done.
pub(crate) fn act_intended(bot: &BotName, user: &UserId, act: &Act, now: Timestamp) -> RecordDraft {
    act_record(bot, user, act, ("intended", "bot.act.intended"), now)
}

/// How an act of coverage ended.
pub(crate) fn act_ended(
    bot: &BotName,
    user: &UserId,
    act: &Act,
    outcome: &ActOutcome,
    now: Timestamp,
) -> RecordDraft {
    let (action, sent, error) = match outcome {
        ActOutcome::Done { sent } => ("bot.act.done", sent, None),
        ActOutcome::Failed { category, sent } => ("bot.act.failed", sent, Some(*category)),
    };
    let mut draft = act_record(bot, user, act, ("ended", action), now);
    draft.changes.extend(error.map(|error| change("/act/error", None, Some(error.into()))));
    for event in sent {
        draft.relations.push(Relation::new("event", &event.event_id, "caused"));
        draft.on_behalf_of = Some(event.sender.clone());
    }
    draft
}

fn act_record(
    bot: &BotName,
    user: &UserId,
    act: &Act,
    (part, action): (&str, &str),
    now: Timestamp,
) -> RecordDraft {
    let mut draft = own(bot, Category::AdminOperation, action, &format!("act:{}:{part}", act.id), now);
    draft.actor = Actor::matrix(user.as_str());
    draft.on_behalf_of.clone_from(&act.on_behalf_of);
    draft.context.reason = Some(act.reason.to_owned());
    draft.text = Some(act.kind.as_str().to_owned());
    draft.relations.push(Relation::new("room", act.room_id.as_str(), "in"));
    if let Some(person) = &act.person {
        draft.relations.push(Relation::new("user", person, "target"));
        draft.subjects.push(Subject { person: person.clone(), role: "target".to_owned() });
    }
    draft.changes = vec![change("/act/kind", None, Some(act.kind.as_str().into()))];
    for person in draft.on_behalf_of.iter().chain([&user.to_string()]) {
        let role = if person == user.as_str() { "actor" } else { "on_behalf_of" };
        draft.subjects.push(Subject { person: person.clone(), role: role.to_owned() });
    }
    draft
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        coverage::{SentEvent, planner::StepKind},
        domain::{BotKind, Localpart, RoomId, ServerName, selection::RoomSelection},
        worker::vocabulary,
    };

    fn told(uid: &str, generation: i64) -> Instructions {
        Instructions {
            uid: uid.to_owned(),
            generation,
            mark: "0123456789ab".to_owned(),
            server_name: ServerName::parse("example.org").unwrap(),
            username: Localpart::parse("auditbot").unwrap(),
            display_name: String::new(),
            rooms: RoomSelection::default(),
            suspend: false,
            suspend_capture: SuspendCapture::Skip,
            media: None,
            coverage_paused: false,
            repair_encryption: None,
            log_filter: String::new(),
            deleting: true,
            leaves_rooms: false,
            promised: None,
        }
    }

    #[test]
    fn every_life_of_a_bot_has_a_deletion_of_its_own() {
        let bot = BotName { namespace: "n".into(), name: "b".into(), kind: BotKind::Audit };
        let id = |uid, generation| deleted(&bot, &told(uid, generation), Timestamp::UNIX_EPOCH).source_id;
        assert_ne!(id("one", 2), id("two", 2));
        assert_eq!(id("one", 2), id("one", 3), "it may be changed while it is being deleted");
        assert_ne!(id("", 2), id("", 3), "a file has no UID");
    }

    #[test]
    fn what_was_asked_for_and_what_was_done_name_the_same_change() {
        let bot = BotName { namespace: "n".into(), name: "b".into(), kind: BotKind::Audit };
        let draft = |before| applied(&bot, before, &told("life", 3), Timestamp::UNIX_EPOCH);
        let change = Relation::new("change", "life/3/0123456789ab", "applied");
        assert!(draft(None).relations.contains(&change));
        assert_eq!(draft(Some("life/1/mark")).changes[0].before, Some(1.into()));
        assert_eq!(draft(Some("other/9/mark")).changes[0].before, None, "another life of the same name");
        let refreshed = draft(Some("life/3/mark"));
        assert_eq!(refreshed.changes, [], "the same generation means something else now");
        assert_eq!(refreshed.source_id, "worker:applied:life/3/0123456789ab");
    }

    fn every_record(bot: &BotName) -> Vec<RecordDraft> {
        let now = Timestamp::UNIX_EPOCH;
        let facts = |key: &str| IdentityFacts {
            master_key: key.to_owned(),
            backup_version: "1".to_owned(),
            secret_storage_key: "s".to_owned(),
        };
        let user = UserId::parse("@auditbot:example.org").unwrap();
        let act = Act {
            id: "1-1".to_owned(),
            room_id: RoomId::parse("!room:example.org").unwrap(),
            kind: StepKind::Return,
            person: Some("@alice:example.org".to_owned()),
            on_behalf_of: None,
            reason: "coverage",
        };
        let sent = vec![SentEvent {
            event_id: "$e".to_owned(),
            event_type: "m.room.power_levels".to_owned(),
            sender: "@alice:example.org".to_owned(),
        }];
        let since = Since { standing: "on".to_owned(), why: None, since_ms: 0 };
        vec![
            started(bot, "run", "DEV", now),
            stopped(bot, "run", now),
            identity_finished(bot, &facts("one"), now),
            repair_asked(bot, "today", "IdentityReplaced", now),
            repaired(bot, "today", &facts("one"), &facts("two"), now),
            identity_state(bot, None, Some("IdentityReplaced"), now),
            suspended(bot, 0, &told("uid", 2), now),
            configured(bot, 2, Vec::new(), now),
            applied(bot, None, &told("uid", 2), now),
            deleted(bot, &told("uid", 2), now),
            interrupted(bot, 0, "why", now),
            version_changed(bot, "worker", None, "1", now),
            heartbeat(bot, now),
            source_switched(bot, "rooms", None, &since),
            absent(bot, "$joined", now),
            gap(bot, "!room:example.org", "token", "why", now),
            act_intended(bot, &user, &act, now),
            act_ended(bot, &user, &act, &ActOutcome::Done { sent: sent.clone() }, now),
            act_ended(bot, &user, &act, &ActOutcome::Failed { category: "refused", sent }, now),
        ]
    }

    #[test]
    fn what_the_worker_records_is_what_the_vocabulary_says() {
        let bot = BotName { namespace: "n".into(), name: "b".into(), kind: BotKind::Audit };
        let records = every_record(&bot);
        let made: BTreeSet<(Category, &str)> =
            records.iter().map(|record| (record.category, record.action.as_str())).collect();
        let listed = vocabulary::OWN.iter().map(|row| (row.verb.category, row.verb.action)).collect();
        assert_eq!(made, listed);
        for Relation { kind, role, .. } in records.iter().flat_map(|record| &record.relations) {
            assert!(vocabulary::RELATIONS.contains(&(kind.as_str(), role.as_str())), "{kind} {role}");
        }
    }
}
