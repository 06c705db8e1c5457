//! Which roles hold rights to what is ours, or lead to them. A binding grants what its role says at any time, and a
//! role can be changed later: so all bindings for the whole cluster are recorded, and the roles that matter.

use serde_json::Value;

use super::event::{Event, Shown};

/// Kinds of objects about rights.
pub(super) const KINDS: [&str; 4] = ["clusterrolebindings", "clusterroles", "rolebindings", "roles"];
/// Groups in which every right is one to our resources, or can be made one.
const GROUPS: [&str; 4] =
    ["*", "admissionregistration.k8s.io", "ems.element.io", "rbac.authorization.k8s.io"];
/// With these everybody gets what he does not have.
const VERBS: [&str; 3] = ["bind", "escalate", "impersonate"];
/// Groups of what makes pods, which can mount Secrets; and what has to be done to it for that.
const WORKLOADS: [&str; 2] = ["apps", "batch"];
const MAKES: [&str; 4] = ["*", "create", "patch", "update"];

/// Whether a role may hold rights to what is ours, as far as the event shows what it says. Of a role of which it shows
/// nothing that cannot be ruled out.
pub(super) fn may_grant_ours(event: &Event) -> bool {
    let mut shown = event.objects().peekable();
    if shown.peek().is_none() {
        let ends = ["delete", "deletecollection"].contains(&event.verb.as_str());
        return !ends && !event.was_refused();
    }
    shown.any(|object| match object {
        Shown::Object(object) => grants_ours(&object),
        Shown::Unreadable(_) => true,
    })
}

fn grants_ours(role: &Value) -> bool {
    // A list of operations on a role that is not shown.
    if !role.is_object() {
        return true;
    }
    let mut rules = role["rules"].as_array().into_iter().flatten();
    !role["aggregationRule"].is_null() || rules.any(leads_to_ours)
}

fn leads_to_ours(rule: &Value) -> bool {
    let texts = |key: &str| rule[key].as_array().into_iter().flatten().filter_map(Value::as_str);
    let is_core = texts("apiGroups").any(str::is_empty);
    let makes = || texts("verbs").any(|verb| MAKES.contains(&verb));
    texts("apiGroups").any(|group| GROUPS.contains(&group))
        || texts("verbs").any(|verb| VERBS.contains(&verb))
        || is_core && texts("resources").any(is_way_in)
        || texts("apiGroups").any(|group| WORKLOADS.contains(&group)) && makes()
}

/// Secrets, and what has them: pods, service accounts, the kubelet.
fn is_way_in(resource: &str) -> bool {
    let (kind, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    ["*", "pods", "secrets", "serviceaccounts"].contains(&kind) || (kind, subresource) == ("nodes", "proxy")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn grants(groups: &[&str], resources: &[&str], verbs: &[&str]) -> bool {
        grants_ours(&json!({"rules": [{"apiGroups": groups, "resources": resources, "verbs": verbs}]}))
    }

    #[test]
    fn roles_matter_that_hold_our_rights_or_lead_to_them() {
        for (groups, resources, verbs) in [
            (&["ems.element.io"][..], &["auditbots"][..], &["get"][..]),
            (&["*"], &["widgets"], &["get"]),
            (&["", "apps"], &["deployments", "secrets"], &["list"]),
            (&[""], &["*"], &["get"]),
            (&[""], &["*/exec"], &["create"]),
            (&[""], &["pods"], &["create"]),
            (&[""], &["pods/exec"], &["get"]),
            (&[""], &["serviceaccounts/token"], &["create"]),
            (&[""], &["nodes/proxy"], &["get"]),
            (&[""], &["users"], &["impersonate"]),
            (&["rbac.authorization.k8s.io"], &["roles"], &["patch"]),
            (&["admissionregistration.k8s.io"], &["validatingwebhookconfigurations"], &["delete"]),
            (&["example.org"], &["x"], &["escalate"]),
            (&["apps"], &["deployments"], &["patch"]),
        ] {
            assert!(grants(groups, resources, verbs), "{groups:?} {resources:?} {verbs:?}");
        }
        for (groups, resources, verbs) in [
            (&["apps"][..], &["deployments"][..], &["get", "list"][..]),
            (&["example.org"], &["secrets"], &["get"]),
            (&[""], &["configmaps", "nodes", "nodes/status", "events"], &["get"]),
        ] {
            assert!(!grants(groups, resources, verbs), "{groups:?} {resources:?} {verbs:?}");
        }
        assert!(grants_ours(&json!({"aggregationRule": {"clusterRoleSelectors": []}})));
        assert!(grants_ours(&json!([{"op": "add", "path": "/rules/-", "value": {}}])));
        assert!(!grants_ours(&json!({"kind": "Status"})) && !grants_ours(&json!({"rules": [1, null]})));
    }
}
