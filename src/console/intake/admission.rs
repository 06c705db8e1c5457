//! A request to create, change or delete a bot, before it is done: who wants what changed, and why.
//!
//! What such a record says was *requested*. Whether it was done the worker's own record says, which
//! names the same change (UID, generation and a hash of the specification).

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::{
    Entry, Refusal, Target, bounds,
    user::{DOUBT, User},
};
use crate::{
    console::caller::Caller,
    domain::{
        BotKind, BotName,
        diff::diff,
        record::{Change, Occurred, RecordDraft, Relation, Trust},
        revision,
        vocabulary::{self, Verb},
    },
};

const GROUP: &str = "ems.element.io";
const REASON: &str = "ems.element.io/change-reason";
/// What `kubectl apply` keeps for itself: the whole object once more.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Set and taken away by the garbage collector on the way of a deletion that is recorded already.
const FINALIZERS_OF_KUBERNETES: [&str; 2] = ["foregroundDeletion", "orphan"];

/// What is asked, and what to record of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Review {
    /// Identifier of the request, which the answer repeats.
    pub uid: String,
    /// The records; none where nothing is to be recorded.
    pub entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct Envelope {
    kind: String,
    #[serde(rename = "apiVersion")]
    api_version: String,
    request: Request,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    resource: Resource,
    #[serde(default)]
    sub_resource: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
    operation: String,
    #[serde(default)]
    user_info: User,
    #[serde(default)]
    object: Option<Value>,
    #[serde(default)]
    old_object: Option<Value>,
    #[serde(default)]
    dry_run: Option<bool>,
}

#[derive(Deserialize)]
struct Resource {
    group: String,
    resource: String,
}

/// Reads an `AdmissionReview`. `own` are the users that ems-bots itself is in the cluster.
pub fn convert(body: &[u8], caller: Caller, own: &[String], now: Timestamp) -> Result<Review, Refusal> {
    let value: Value = serde_json::from_slice(body).map_err(|_| Refusal::NotJson)?;
    let not_a = Refusal::NotA("AdmissionReview of admission.k8s.io/v1");
    let envelope: Envelope = serde_json::from_value(value).map_err(|_| not_a)?;
    if envelope.kind != "AdmissionReview" || envelope.api_version != "admission.k8s.io/v1" {
        return Err(not_a);
    }
    let request = envelope.request;
    if request.uid.is_empty() || request.uid.len() > 128 {
        return Err(not_a);
    }
    let uid = request.uid.clone();
    let kind = match (request.resource.group.as_str(), request.resource.resource.as_str()) {
        (GROUP, "adminbots") => BotKind::Admin,
        (GROUP, "auditbots") => BotKind::Audit,
        _ => return Ok(Review { uid, entries: Vec::new() }),
    };
    // A dry run changes nothing; the status is the worker's and the operator's own.
    let nothing =
        request.dry_run == Some(true) || request.sub_resource.as_deref().is_some_and(|s| !s.is_empty());
    if nothing {
        return Ok(Review { uid, entries: Vec::new() });
    }
    let bot = named(&request, kind)?;
    let is_own = own.iter().any(|user| user == request.user_info.name());
    let parts = parts(&request, is_own);
    let about = About { request: &request, bot: &bot, caller, now };
    let entries = parts.into_iter().map(|part| about.entry(part)).collect();
    Ok(Review { uid, entries })
}

fn named(request: &Request, kind: BotKind) -> Result<BotName, Refusal> {
    let object = request.object.as_ref().or(request.old_object.as_ref());
    let of_object = |key: &str| object.and_then(|object| object["metadata"][key].as_str()).map(str::to_owned);
    let given = |value: &Option<String>| value.clone().filter(|name| !name.is_empty());
    // A name that the API server generates stands in the object only.
    let name = given(&request.name).or_else(|| of_object("name")).unwrap_or_default();
    let namespace = given(&request.namespace).or_else(|| of_object("namespace")).unwrap_or_default();
    if !bounds::is_name(&name) || !bounds::is_name(&namespace) {
        return Err(Refusal::Name);
    }
    Ok(BotName { namespace, name, kind })
}

/// One thing that a request asks for.
struct Part {
    verb: Verb,
    /// Tells the records of one request apart.
    mark: &'static str,
    words: &'static str,
    changes: Vec<Change>,
}

/// What people decide of an object.
fn decided(object: Option<&Value>, is_own: bool) -> Option<Value> {
    let object = object?.as_object()?;
    let metadata = object.get("metadata").and_then(Value::as_object);
    let mut kept = serde_json::Map::new();
    for part in ["labels", "annotations", "ownerReferences", "finalizers"] {
        let Some(mut value) = metadata.and_then(|metadata| metadata.get(part)).cloned() else { continue };
        if let Value::Object(annotations) = &mut value {
            annotations.remove(LAST_APPLIED);
        }
        if let Value::Array(list) = &mut value {
            let is_ours = |item: &Value| {
                let text = item.as_str();
                part == "finalizers" && text.is_some_and(|text| FINALIZERS_OF_KUBERNETES.contains(&text))
            };
            list.retain(|item| !is_ours(item));
        }
        let is_empty = match &value {
            Value::Object(members) => members.is_empty(),
            Value::Array(items) => items.is_empty(),
            _ => false,
        };
        // Our own finalizer comes and goes by rule.
        let is_rule = is_own && part == "finalizers";
        if !is_empty && !is_rule {
            kept.insert(part.to_owned(), value);
        }
    }
    let mut decided = serde_json::Map::new();
    if !kept.is_empty() {
        decided.insert("metadata".to_owned(), Value::Object(kept));
    }
    decided.extend(object.get("spec").map(|spec| ("spec".to_owned(), spec.clone())));
    Some(bounds::without_passwords(Value::Object(decided)))
}

fn parts(request: &Request, is_own: bool) -> Vec<Part> {
    let before = decided(request.old_object.as_ref(), is_own);
    let after = decided(request.object.as_ref(), is_own);
    let part = |verb, mark, words, changes| Part { verb, mark, words, changes };
    match request.operation.as_str() {
        "CREATE" => {
            vec![part(vocabulary::CREATION, "create", "create", diff("", None, after.as_ref()))]
        }
        "DELETE" => {
            vec![part(vocabulary::REMOVAL, "delete", "delete", diff("", before.as_ref(), None))]
        }
        "UPDATE" => changed(diff("", before.as_ref(), after.as_ref())),
        _ => Vec::new(),
    }
}

/// What is billed is named as that; the rest of the same request is a record of its own.
fn changed(changes: Vec<Change>) -> Vec<Part> {
    let (plan, rest): (Vec<_>, Vec<_>) =
        changes.into_iter().partition(|change| change.path == "/spec/homeserver/plan");
    let (suspend, rest): (Vec<_>, Vec<_>) =
        rest.into_iter().partition(|change| change.path == "/spec/suspend");
    let suspends = suspend.iter().any(|change| change.after == Some(Value::Bool(true)));
    let (verb, words) =
        if suspends { (vocabulary::SUSPENSION, "suspend") } else { (vocabulary::RESUMPTION, "let go on") };
    // The reason stands in the context of every record; alone it is a change like any other.
    let is_reason = |change: &Change| change.path == "/metadata/annotations/ems.element.io~1change-reason";
    let billed = !plan.is_empty() || !suspend.is_empty();
    let rest: Vec<_> = if billed && rest.iter().all(is_reason) { Vec::new() } else { rest };
    [
        Part { verb: vocabulary::PLAN_CHANGE, mark: "plan", words: "change the plan of", changes: plan },
        Part { verb, mark: "suspend", words, changes: suspend },
        Part { verb: vocabulary::CHANGE, mark: "change", words: "change", changes: rest },
    ]
    .into_iter()
    .filter(|part| !part.changes.is_empty())
    .collect()
}

struct About<'a> {
    request: &'a Request,
    bot: &'a BotName,
    caller: Caller,
    now: Timestamp,
}

impl About<'_> {
    fn entry(&self, part: Part) -> Entry {
        let user = &self.request.user_info;
        let uid = bounds::text(&self.request.uid);
        let mut context = user.context();
        context.reason = self.reason();
        let who = user.actor();
        let doubt = if self.caller.is_authenticated() { "" } else { DOUBT };
        let draft = RecordDraft {
            source_id: format!("{}{uid}:{}", vocabulary::ADMISSION_SOURCE, part.mark),
            category: part.verb.category,
            action: part.verb.action.to_owned(),
            occurred: Occurred::At(self.now.as_millisecond()),
            text: Some(format!("{} asks to {} {}{doubt}", who.id(), part.words, self.bot)),
            actor: who,
            on_behalf_of: None,
            context,
            relations: self.relations(&uid),
            changes: bounds::changes(part.changes),
            source_raw: None,
            plaintext_raw: None,
            trust: Trust::Plain,
            undecryptable_reason: None,
            subjects: user.subjects(),
        };
        Entry { target: Target::Bot(self.bot.clone()), draft }
    }

    fn relations(&self, uid: &str) -> Vec<Relation> {
        let object = self.request.object.as_ref().or(self.request.old_object.as_ref());
        let mut relations = vec![
            Relation::new("bot", self.bot.to_string(), "target"),
            Relation::new("namespace", &self.bot.namespace, "in"),
            Relation::new("request", uid, self.caller.role()),
        ];
        let Some(object) = object else { return relations };
        let server = object["spec"]["homeserver"]["serverName"].as_str();
        relations.extend(server.map(|server| Relation::new("homeserver", bounds::text(server), "target")));
        if let (Some(server), Some(username)) = (server, object["spec"]["username"].as_str()) {
            let account = bounds::text(&format!("@{username}:{server}"));
            relations.push(Relation::new("user", account, "target"));
        }
        let change = self.revision();
        relations.extend(change.map(|change| Relation::new("change", bounds::text(&change), "requested")));
        relations.extend(self.request.user_info.pod());
        relations
    }

    /// The state of the custom resource that is asked for, if it is another one than before: labels and annotations
    /// make none.
    fn revision(&self) -> Option<String> {
        let generation = |object: &Value| object["metadata"]["generation"].as_i64();
        let (old, new) = (self.request.old_object.as_ref(), self.request.object.as_ref());
        let (object, generation) = if self.request.operation == "DELETE" {
            // That it is being deleted is a state of its own, which it gets once.
            let old = old.filter(|old| old["metadata"]["deletionTimestamp"].is_null())?;
            (old, generation(old)?.checked_add(1)?)
        } else {
            let new = new?;
            let now = generation(new)?;
            (old.and_then(generation) != Some(now)).then_some((new, now))?
        };
        let mark = revision::mark(object.get("spec"));
        Some(revision::name(object["metadata"]["uid"].as_str()?, generation, &mark))
    }

    /// The reason counts only if this request set it: the annotation stays on the object.
    fn reason(&self) -> Option<String> {
        let reason = |object: &Option<Value>| {
            let text = object.as_ref()?["metadata"]["annotations"][REASON].as_str()?;
            (!text.trim().is_empty()).then(|| text.to_owned())
        };
        if !["CREATE", "UPDATE"].contains(&self.request.operation.as_str()) {
            return None;
        }
        let now = reason(&self.request.object)?;
        (reason(&self.request.old_object).as_ref() != Some(&now)).then(|| bounds::text(&now))
    }
}

#[cfg(test)]
mod tests;
