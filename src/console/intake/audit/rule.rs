//! What is done by rule, again and again, and is no record: the acts of ems-bots itself on what it makes, and
//! those of Kubernetes' own parts. The rules are narrow: a part that does something else than its work shows.

use serde_json::Value;

use super::event::{Event, ObjectRef, Shown};
use crate::console::estate::Estate;

const READS: [&str; 3] = ["get", "list", "watch"];

/// Controllers of Kubernetes that watch everything or look after pods. Others, such as the one that empties a
/// namespace, do what a person asked for.
const CONTROLLERS: [&str; 21] = [
    "clusterrole-aggregation-controller",
    "cronjob-controller",
    "daemon-set-controller",
    "deployment-controller",
    "disruption-controller",
    "endpoint-controller",
    "endpointslice-controller",
    "expand-controller",
    "generic-garbage-collector",
    "job-controller",
    "node-controller",
    "persistent-volume-binder",
    "pod-garbage-collector",
    "pvc-protection-controller",
    "replicaset-controller",
    "replication-controller",
    "resourcequota-controller",
    "statefulset-controller",
    "taint-eviction-controller",
    "ttl-after-finished-controller",
    "validatingadmissionpolicy-status-controller",
];

/// Those of the others that list all Secrets, to find some that are none of ours.
const LISTERS: [&str; 6] = [
    "attachdetach-controller",
    "bootstrap-signer",
    "legacy-service-account-token-cleaner",
    "namespace-controller",
    "token-cleaner",
    "tokens-controller",
];

/// Parts of the control plane with users of their own.
const CONTROL_PLANE: [&str; 3] =
    ["system:apiserver", "system:kube-controller-manager", "system:kube-scheduler"];

/// In it the operator says what it runs with.
const CONFIGURATION: &str = "ems-bots-operator-configuration";

/// Whether the event is the work of one of our own or Kubernetes' parts. Somebody who only acts as one of them
/// is none of them.
pub(super) fn is_by_rule(event: &Event, object: &ObjectRef, estate: &Estate) -> bool {
    if event.impersonated_user.is_some() {
        return false;
    }
    let user = event.user.name();
    is_of_kubernetes(user, event, object)
        || (user == estate.place.operator_user() && is_operators_work(event, object, estate))
        || (user == estate.place.console_user() && is_consoles_work(event, object, estate))
}

fn is_of_kubernetes(user: &str, event: &Event, object: &ObjectRef) -> bool {
    let controller = user.strip_prefix("system:serviceaccount:kube-system:");
    let is_controller =
        CONTROL_PLANE.contains(&user) || controller.is_some_and(|name| CONTROLLERS.contains(&name));
    // A node gets the Secrets and tokens of the pods that run on it, and says how these are.
    let is_node =
        user.starts_with("system:node:") && !super::topic::ENTRANCES.contains(&object.subresource());
    if object.resource() == "secrets" {
        // Nobody of them writes Secrets but the garbage collector, which removes those whose owner is gone.
        let collects = controller == Some("generic-garbage-collector") && event.verb == "delete";
        let is_lister = controller.is_some_and(|name| LISTERS.contains(&name));
        let lists = is_lister && object.name().is_empty() && ["list", "watch"].contains(&event.verb.as_str());
        return (is_node || is_controller) && READS.contains(&event.verb.as_str()) || collects || lists;
    }
    is_node || is_controller
}

/// What the role `ems-bots-tenant` is for, on objects with the names that it gives.
fn is_operators_work(event: &Event, object: &ObjectRef, estate: &Estate) -> bool {
    let verb = event.verb.as_str();
    if !object.subresource().is_empty() {
        return false;
    }
    let is_in_tenant = estate.is_tenant(object.namespace());
    match object.resource() {
        "secrets" => {
            let is_known = !estate.owners_of_secret(object.namespace(), object.name()).is_empty();
            READS.contains(&verb) && (is_known || (is_in_tenant && object.name().is_empty()))
                || ["create", "delete"].contains(&verb) && is_known
        }
        "configmaps" if object.namespace() == estate.place.namespace => {
            object.name() == CONFIGURATION && ["create", "patch"].contains(&verb)
        }
        _ => {
            ["create", "patch", "delete"].contains(&verb)
                && !estate.owners_of_child(object.namespace(), object.name()).is_empty()
        }
    }
}

/// It reads the keys of inboxes, renews its own certificate, and tells the API server how to know it by.
fn is_consoles_work(event: &Event, object: &ObjectRef, estate: &Estate) -> bool {
    let verb = event.verb.as_str();
    match object.resource() {
        "secrets" if object.namespace() == estate.place.namespace => {
            object.name() == "ems-bots-console-tls" && ["get", "update"].contains(&verb)
        }
        "secrets" => {
            let is_known = !estate.owners_of_secret(object.namespace(), object.name()).is_empty();
            verb == "get" && is_known && object.name().ends_with("-inbox")
        }
        "validatingwebhookconfigurations" => {
            verb == "patch" && object.name() == "ems-bots-console" && tells_certificate(event)
        }
        _ => false,
    }
}

/// Whether it asks for nothing but another certificate to know it by, as far as the policy shows that: it has the right
/// to have itself asked about everything in the cluster.
fn tells_certificate(event: &Event) -> bool {
    let webhook = |one: &Value| {
        has_only(one, &["name", "clientConfig"]) && has_only(&one["clientConfig"], &["caBundle"])
    };
    match event.asked() {
        None => true,
        Some(Shown::Unreadable(_)) => false,
        Some(Shown::Object(asked)) => {
            has_only(&asked, &["apiVersion", "kind", "metadata", "webhooks"])
                && has_only(&asked["metadata"], &["name", "uid"])
                && asked["webhooks"].as_array().is_some_and(|all| all.iter().all(webhook))
        }
    }
}

fn has_only(value: &Value, keys: &[&str]) -> bool {
    value.as_object().is_some_and(|members| members.keys().all(|key| keys.contains(&key.as_str())))
}
