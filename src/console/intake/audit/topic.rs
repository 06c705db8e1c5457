//! What an event is about, and whose trail that concerns.

use super::{
    Target, bounds,
    event::{Event, ObjectRef},
    rights,
};
use crate::{
    console::estate::Estate,
    domain::{
        BotKind, BotName,
        vocabulary::{self, Verb},
    },
};

/// Ways into a running pod.
pub(super) const ENTRANCES: [&str; 6] =
    ["attach", "checkpoint", "ephemeralcontainers", "exec", "portforward", "proxy"];
/// Those that stay open, or that the API server takes for such.
pub(super) const LASTING: [&str; 5] = ["attach", "checkpoint", "exec", "portforward", "proxy"];
const WRITES: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];
/// Names that the chart gives to what is there once, whatever its values say.
pub(super) const PROCESSES: [&str; 2] = ["ems-bots-console", "ems-bots-operator"];
/// What the names begin with that the chart gives to the rest, and Kubernetes to its pods.
const CHART: &str = "ems-bots-";
const ADMISSION: [&str; 6] = [
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
    "mutatingwebhookconfigurations",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "validatingwebhookconfigurations",
];

/// One record to be made of an event.
pub(super) struct Topic {
    pub(super) target: Target,
    pub(super) verb: Verb,
    /// Kind of the resource in the relations.
    pub(super) kind: &'static str,
    /// Which one it is, unless it is the object of the request.
    pub(super) id: Option<String>,
    /// Whether what the object says may be shown.
    pub(super) shows_object: bool,
}

impl Topic {
    /// The object as far as whoever reads the record may know of it: that of another tenant is nobody else's matter.
    pub(super) fn seen(&self, object: &ObjectRef, estate: &Estate) -> ObjectRef {
        let namespace = object.namespace();
        let is_theirs = matches!(&self.target, Target::Bot(bot) if bot.namespace == namespace);
        if is_theirs || namespace == estate.place.namespace || !estate.is_tenant(namespace) {
            return object.clone();
        }
        ObjectRef { namespace: None, name: None, uid: None, ..object.clone() }
    }
}

/// What is to be recorded of an event that is done by no rule.
pub(super) fn topics(event: &Event, object: &ObjectRef, estate: &Estate) -> Vec<Topic> {
    let mut topics = about(event, object, estate);
    topics.extend(impersonation(event, object, estate));
    // Whoever asks for an object chooses its name freely; that of a bot leads to its Secret.
    topics.retain(|topic| match &topic.target {
        Target::Bot(bot) => bounds::is_name(&bot.namespace) && bounds::is_name(&bot.name),
        Target::Everybody => true,
    });
    topics
}

fn about(event: &Event, object: &ObjectRef, estate: &Estate) -> Vec<Topic> {
    let writes = WRITES.contains(&event.verb.as_str());
    let make = |targets: Vec<Target>, verb: Verb, kind: &'static str, shows_object: bool| {
        let topic = |target| Topic { target, verb, kind, id: None, shows_object };
        targets.into_iter().map(topic).collect::<Vec<_>>()
    };
    let place = (object.group(), object.resource(), object.subresource());
    match place {
        ("", "secrets", "") => {
            let verb = if writes { vocabulary::SECRET_CHANGED } else { vocabulary::SECRET_READ };
            make(secret(object, estate), verb, "secret", false)
        }
        ("", "pods", entrance) if ENTRANCES.contains(&entrance) => {
            make(child(object, estate), vocabulary::POD_ENTERED, "pod", false)
        }
        ("", "serviceaccounts", "token") => {
            make(child(object, estate), vocabulary::TOKEN_ISSUED, "service_account", false)
        }
        _ if !writes => Vec::new(),
        ("rbac.authorization.k8s.io", kind, "") if rights::KINDS.contains(&kind) => {
            make(grants(event, object, estate), vocabulary::RIGHTS_CHANGED, "role", true)
        }
        ("admissionregistration.k8s.io", kind, "")
            if ADMISSION.contains(&kind) && is_of_the_chart(object.name()) =>
        {
            make(vec![Target::Everybody], vocabulary::ADMISSION_CHANGED, "admission", true)
        }
        ("networking.k8s.io", "networkpolicies", "") => {
            let everyone = whole_namespace(object.namespace(), estate);
            make(everyone, vocabulary::NETWORK_CHANGED, "network_policy", true)
        }
        _ if runs_pods(place) => {
            make(workload(event, object, estate), vocabulary::WORKLOAD_CHANGED, "workload", true)
        }
        ("", "pods", "eviction" | "resize")
        | ("", "replicationcontrollers", "scale")
        | ("apps", "deployments" | "replicasets" | "statefulsets", "scale")
        | ("", "persistentvolumeclaims" | "configmaps" | "serviceaccounts", "") => {
            make(child(object, estate), vocabulary::WORKLOAD_CHANGED, "workload", object.group() == "apps")
        }
        _ => Vec::new(),
    }
}

fn is_of_the_chart(name: &str) -> bool {
    name.starts_with(CHART)
}

/// Whether it is a pod, or makes pods: whatever runs in a namespace can mount its Secrets and be its service accounts.
fn runs_pods(place: (&str, &str, &str)) -> bool {
    matches!(
        place,
        ("", "pods" | "replicationcontrollers", "")
            | ("apps", "daemonsets" | "deployments" | "replicasets" | "statefulsets", "")
            | ("batch", "cronjobs" | "jobs", "")
    )
}

/// What is to run beside a bot concerns it, whatever its name is; what ends there only if it is a part of the bot.
fn workload(event: &Event, object: &ObjectRef, estate: &Estate) -> Vec<Target> {
    match event.verb.as_str() {
        "delete" | "deletecollection" => child(object, estate),
        _ => whole_namespace(object.namespace(), estate),
    }
}

fn bots(bots: Vec<BotName>) -> Vec<Target> {
    bots.into_iter().map(Target::Bot).collect()
}

/// A list shows everything, so it concerns everybody whose Secrets are in it.
fn secret(object: &ObjectRef, estate: &Estate) -> Vec<Target> {
    let place = &estate.place;
    match (object.namespace(), object.name()) {
        ("", "") => vec![Target::Everybody],
        (namespace, "") => whole_namespace(namespace, estate),
        (namespace, name) if namespace == place.namespace && place.secrets.contains(name) => {
            vec![Target::Everybody]
        }
        (namespace, name) => bots(estate.owners_of_secret(namespace, name)),
    }
}

/// A part of a bot, or of operator or console.
fn child(object: &ObjectRef, estate: &Estate) -> Vec<Target> {
    match (object.namespace(), object.name()) {
        (namespace, "") => whole_namespace(namespace, estate),
        (namespace, name) if namespace == estate.place.namespace && is_of_ours(object, name, estate) => {
            vec![Target::Everybody]
        }
        (namespace, name) => bots(estate.owners_of_child(namespace, name)),
    }
}

/// Whether this is a part of operator or console, beside which it is.
fn is_of_ours(object: &ObjectRef, name: &str, estate: &Estate) -> bool {
    match object.resource() {
        "serviceaccounts" => is_our_account(name, estate),
        _ => is_of_the_chart(name),
    }
}

fn is_our_account(name: &str, estate: &Estate) -> bool {
    name == estate.place.operator || name == estate.place.console
}

/// What holds for all pods of a namespace.
fn whole_namespace(namespace: &str, estate: &Estate) -> Vec<Target> {
    if namespace == estate.place.namespace {
        return vec![Target::Everybody];
    }
    estate.of(namespace).map(|bot| Target::Bot(bot.name.clone())).collect()
}

/// In a tenant's namespace every right can be one to its bots. Elsewhere whatever binds, and the roles that hold rights
/// to what is ours.
fn grants(event: &Event, object: &ObjectRef, estate: &Estate) -> Vec<Target> {
    let namespace = object.namespace();
    if !namespace.is_empty() {
        return whole_namespace(namespace, estate);
    }
    let is_binding = object.resource() == "clusterrolebindings";
    if is_binding || is_of_the_chart(object.name()) || rights::may_grant_ours(event) {
        vec![Target::Everybody]
    } else {
        Vec::new()
    }
}

/// Somebody acts as one of our service accounts, or as anybody else to change a bot: whoever admits that change sees
/// the other one only.
fn impersonation(event: &Event, object: &ObjectRef, estate: &Estate) -> Option<Topic> {
    let user = event.impersonated_user.as_ref()?.name();
    let verb = vocabulary::IMPERSONATED;
    let account = user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    if let Some((namespace, account)) = account {
        let is_ours = namespace == estate.place.namespace && is_our_account(account, estate);
        let owner = estate.owners_of_child(namespace, account).into_iter().next().map(Target::Bot);
        if let Some(target) = is_ours.then_some(Target::Everybody).or(owner) {
            let id = Some(format!("{namespace}/{account}"));
            return Some(Topic { target, verb, kind: "service_account", id, shows_object: false });
        }
    }
    let kind = match (object.group(), object.resource(), object.subresource()) {
        ("ems.element.io", "adminbots", "") => BotKind::Admin,
        ("ems.element.io", "auditbots", "") => BotKind::Audit,
        _ => return None,
    };
    if !WRITES.contains(&event.verb.as_str()) {
        return None;
    }
    let (namespace, name) = (object.namespace().to_owned(), object.name().to_owned());
    let target = Target::Bot(BotName { namespace, name, kind });
    Some(Topic { target, verb, kind: "user", id: Some(user.to_owned()), shows_object: false })
}
