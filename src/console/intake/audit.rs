//! Audit events of the API server: who read or wrote what the bots rest on, and how they got in.
//!
//! What ems-bots itself and the parts of Kubernetes do by rule is not recorded: `rule` says which.

mod event;
mod kubelet;
mod refused;
mod rights;
mod rule;
#[cfg(test)]
mod tests;
mod topic;

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use sha2::{Digest as _, Sha256};

use self::{
    event::{Event, ObjectRef, Shown},
    topic::{Topic, topics},
};
use super::{Entry, Refusal, Target, bounds, user};
use crate::{
    console::{caller::Caller, estate::Estate},
    domain::{
        diff::diff,
        record::{Actor, Change, Context, Occurred, RecordDraft, Relation, Subject, Trust},
        vocabulary,
    },
};

/// So many events that cannot be read are named in the record of them.
const MAX_NAMED: usize = 20;

/// What a report of audit events says.
#[derive(Debug, Default, PartialEq)]
pub struct Report {
    /// The records.
    pub entries: Vec<Entry>,
    /// So many events cannot be read; one of the records says so.
    pub unreadable: usize,
    /// So many requests were refused of which nobody knows who asked: they are no records.
    pub anonymous: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct List {
    kind: String,
    api_version: String,
    #[serde(default)]
    items: Option<Vec<Box<RawValue>>>,
}

/// Reads an `EventList`. An event in it that cannot be read is counted; the others are not lost by it.
pub fn convert(body: &[u8], caller: Caller, estate: &Estate) -> Result<Report, Refusal> {
    let text = String::from_utf8_lossy(body);
    let not_a = Refusal::NotA("EventList of audit.k8s.io/v1");
    let list: List = serde_json::from_str(&text)
        .map_err(|error| if error.is_data() { not_a } else { Refusal::NotJson })?;
    if list.kind != "EventList" || list.api_version != "audit.k8s.io/v1" {
        return Err(not_a);
    }
    let (mut report, mut unreadable, mut seen) = (Report::default(), Vec::new(), BTreeSet::new());
    for item in list.items.iter().flatten() {
        let Ok(event) = serde_json::from_str::<Event>(item.get()) else {
            unreadable.push(item.get());
            continue;
        };
        let mut entries = entries_of(&event, caller, estate);
        if event.was_refused() && refused::is_anonymous(&event) {
            report.anonymous += usize::from(!entries.is_empty());
            continue;
        }
        // The refusals of an hour are one record.
        entries.retain(|entry| seen.insert((entry.target.clone(), entry.draft.source_id.clone())));
        report.entries.append(&mut entries);
    }
    report.unreadable = unreadable.len();
    report.entries.extend(gap(&unreadable, caller));
    Ok(report)
}

fn entries_of(event: &Event, caller: Caller, estate: &Estate) -> Vec<Entry> {
    let Some(object) = event.object() else { return Vec::new() };
    let object = &object;
    if event.audit_id.is_empty() || !event.is_the_one(object) || rule::is_by_rule(event, object, estate) {
        return Vec::new();
    }
    let topics = topics(event, object, estate).into_iter();
    let Some(received) = event.received().filter(|_| event.was_refused()) else {
        let entry = |topic: Topic| Entry {
            draft: draft(event, &topic.seen(object, estate), &topic, caller),
            target: topic.target,
        };
        return topics.map(entry).collect();
    };
    let (event, object) = (event.coarse(), refused::coarse(object, estate));
    let entry = |topic: Topic| {
        let object = topic.seen(&object, estate);
        let draft = refused::of_the_hour(draft(&event, &object, &topic, caller), received);
        Entry { draft, target: topic.target }
    };
    topics.filter(|topic| refused::is_about_something(topic, estate)).map(entry).collect()
}

fn record(source_id: String, verb: vocabulary::Verb) -> RecordDraft {
    RecordDraft {
        source_id,
        category: verb.category,
        action: verb.action.to_owned(),
        occurred: Occurred::Unknown,
        text: None,
        actor: Actor::Unknown,
        on_behalf_of: None,
        context: Context::default(),
        relations: Vec::new(),
        changes: Vec::new(),
        source_raw: None,
        plaintext_raw: None,
        trust: Trust::Plain,
        undecryptable_reason: None,
        subjects: Vec::new(),
    }
}

fn draft(event: &Event, object: &ObjectRef, topic: &Topic, caller: Caller) -> RecordDraft {
    let id = bounds::text(&event.audit_id);
    let who = event.user.actor();
    let behalf = event.impersonated_user.as_ref().map(|user| bounds::text(user.name()));
    RecordDraft {
        occurred: event.received().map_or(Occurred::Unknown, |time| Occurred::At(time.as_millisecond())),
        text: Some(sentence(event, object, &who, behalf.as_deref(), caller)),
        actor: who,
        on_behalf_of: behalf.clone(),
        context: context(event),
        relations: relations(event, object, topic, &id, caller),
        changes: changes(event, object, topic),
        subjects: subjects(event, behalf),
        ..record(format!("{}{id}:{}", vocabulary::AUDIT_SOURCES[0], topic.verb.action), topic.verb)
    }
}

fn sentence(event: &Event, object: &ObjectRef, who: &Actor, behalf: Option<&str>, caller: Caller) -> String {
    let behalf = behalf.map(|user| format!(" as {user}")).unwrap_or_default();
    let outcome = match event.code() {
        code if event.was_refused() => format!(", refused with {code}"),
        code if code >= 500 => format!(", failed with {code}"),
        _ => String::new(),
    };
    let doubt = if caller.is_authenticated() { "" } else { user::DOUBT };
    let verb = bounds::text(&event.verb);
    format!("{}{behalf}: {verb} {}{outcome}{doubt}", who.id(), object.describe())
}

fn context(event: &Event) -> Context {
    let mut context = event.user.context();
    let ips = event.source_ips.iter().flatten().take(8).map(|ip| bounds::text(ip)).collect::<Vec<_>>();
    context.ip = (!ips.is_empty()).then(|| ips.join(", "));
    context.user_agent = event.user_agent.as_deref().map(bounds::text);
    context
}

fn subjects(event: &Event, behalf: Option<String>) -> Vec<Subject> {
    let mut subjects = event.user.subjects();
    subjects.extend(behalf.map(|person| Subject { person, role: "on_behalf_of".to_owned() }));
    subjects
}

fn relations(event: &Event, object: &ObjectRef, topic: &Topic, id: &str, caller: Caller) -> Vec<Relation> {
    let mut relations = Vec::new();
    // That of many requests names none of them.
    if !id.is_empty() {
        relations.push(Relation::new("request", id, caller.role()));
    }
    if let Target::Bot(bot) = &topic.target {
        relations.push(Relation::new("bot", bot.to_string(), "target"));
    }
    if !object.namespace().is_empty() {
        relations.push(Relation::new("namespace", bounds::text(object.namespace()), "in"));
    }
    let id = topic.id.clone().unwrap_or_else(|| object.place());
    relations.push(Relation::new(topic.kind, bounds::text(&id), "target"));
    relations.extend(event.user.pod());
    relations
}

fn said(path: &str, value: impl Into<Value>) -> Change {
    Change { path: path.to_owned(), before: None, after: Some(value.into()) }
}

/// What the object says now, where the policy has it reported; what it said before no audit event tells.
/// Never that of a Secret.
fn changes(event: &Event, object: &ObjectRef, topic: &Topic) -> Vec<Change> {
    // First what the request was: it must not be what is left out of a long list.
    let mut changes = vec![said("/request/verb", bounds::text(&event.verb))];
    if !object.subresource().is_empty() {
        changes.push(said("/request/subresource", bounds::text(object.subresource())));
    }
    // The port that is gone to, where there is one, or the node that leads to the pod.
    let is_other = |name: &&str| !object.name().is_empty() && *name != object.name();
    let asked = event.object_ref.as_ref().map(ObjectRef::name).filter(is_other);
    changes.extend(asked.map(|name| said("/request/name", bounds::text(name))));
    if event.code() != 0 {
        changes.push(said("/response/code", event.code()));
    }
    changes.extend(object.uid.as_deref().map(|uid| said("/object/uid", bounds::text(uid))));
    let shown = if topic.shows_object { event.shown() } else { None };
    match shown {
        Some(Shown::Object(object)) => {
            for part in ["rules", "aggregationRule", "roleRef", "subjects", "spec", "webhooks"] {
                let value = object.get(part).cloned();
                let value = value.map(bounds::without_passwords).map(bounds::without_literals);
                changes.extend(diff(&format!("/object/{part}"), None, value.as_ref()));
            }
        }
        Some(Shown::Unreadable(text)) => changes.push(said("/object", bounds::stand_in(text))),
        None => {}
    }
    bounds::changes(changes)
}

/// What cannot be read may be about anything.
fn gap(unreadable: &[&str], caller: Caller) -> Option<Entry> {
    #[derive(Deserialize)]
    struct Named {
        #[serde(rename = "auditID")]
        id: String,
    }
    if unreadable.is_empty() {
        return None;
    }
    let hash = hex::encode(Sha256::digest(unreadable.join("\n")));
    let named = |item: &&str| serde_json::from_str::<Named>(item).ok();
    let relation = |named: Named| Relation::new("request", bounds::text(&named.id), caller.role());
    let bytes: usize = unreadable.iter().map(|item| item.len()).sum();
    let count = unreadable.len();
    let draft = RecordDraft {
        text: Some(format!("audit events that the API server reported and that cannot be read: {count}")),
        relations: unreadable.iter().filter_map(named).take(MAX_NAMED).map(relation).collect(),
        changes: vec![said("/events", json!({"count": count, "bytes": bytes, "sha256": hash}))],
        ..record(format!("{}unreadable:{hash}", vocabulary::AUDIT_SOURCES[0]), vocabulary::EVENTS_UNREADABLE)
    };
    Some(Entry { target: Target::Everybody, draft })
}
