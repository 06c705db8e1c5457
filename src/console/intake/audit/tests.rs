mod entrances;
mod own;
mod refusals;
mod workloads;

use serde_json::json;

use super::*;
use crate::console::estate::tests::estate;

fn event(user: &str, verb: &str, object: &Value) -> Value {
    json!({
        "level": "Metadata", "auditID": "audit-1", "stage": "ResponseComplete", "verb": verb,
        "user": {"username": user, "groups": ["people"]},
        "sourceIPs": ["192.0.2.1"], "userAgent": "kubectl/1.34",
        "objectRef": object, "responseStatus": {"code": 200},
        "requestReceivedTimestamp": "2026-09-21T14:13:20.000000Z", "stageTimestamp": "2026-09-21T14:13:20.010000Z",
    })
}

fn list(items: &Value) -> String {
    json!({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "items": items}).to_string()
}

fn report(items: &Value) -> Report {
    convert(list(items).as_bytes(), Caller::ApiServer, &estate()).unwrap()
}

fn read(event: &Value) -> Vec<Entry> {
    let report = report(&json!([event]));
    assert_eq!((report.unreadable, report.anonymous), (0, 0));
    report.entries
}

fn said(event: &Value) -> Vec<(String, String)> {
    let entry = |entry: Entry| match entry.target {
        Target::Bot(bot) => (entry.draft.action, bot.namespace),
        Target::Everybody => (entry.draft.action, "everybody".to_owned()),
    };
    read(event).into_iter().map(entry).collect()
}

fn secret(namespace: &str, name: &str) -> Value {
    json!({"resource": "secrets", "namespace": namespace, "name": name, "apiVersion": "v1"})
}

fn of(group: &str, resource: &str, namespace: &str, name: &str, subresource: &str) -> Value {
    json!({"apiGroup": group, "resource": resource, "namespace": namespace, "name": name,
        "subresource": subresource})
}

const OPERATOR: &str = "system:serviceaccount:ems-bots-system:ems-bots-operator";
const CONSOLE: &str = "system:serviceaccount:ems-bots-system:ems-bots-console";
const CONTROLLER: &str = "system:serviceaccount:kube-system:";

#[test]
fn a_read_of_a_secret_has_who_when_and_from_where() {
    let entries = read(&event("alice", "get", &secret("tenant-a", "auditbot-backup-phrase")));
    assert_eq!(entries.len(), 1);
    let draft = &entries[0].draft;
    assert_eq!(draft.action, "secret.read");
    assert_eq!(draft.actor, Actor::KubernetesUser { id: "alice".into(), groups: vec!["people".into()] });
    assert_eq!(draft.occurred, Occurred::At(1_790_000_000_000));
    assert_eq!(draft.context.ip.as_deref(), Some("192.0.2.1"));
    assert_eq!(draft.context.user_agent.as_deref(), Some("kubectl/1.34"));
    for (kind, id, role) in [
        ("bot", "AuditBot/tenant-a/auditbot", "target"),
        ("secret", "tenant-a/auditbot-backup-phrase", "target"),
        ("request", "audit-1", "self"),
        ("namespace", "tenant-a", "in"),
    ] {
        assert!(draft.relations.contains(&Relation::new(kind, id, role)), "{kind} {:?}", draft.relations);
    }
    assert_eq!(draft.text.as_deref(), Some("alice: get secrets tenant-a/auditbot-backup-phrase"));
}

#[test]
fn what_a_person_does_is_recorded_where_it_belongs() {
    let rbac = "rbac.authorization.k8s.io";
    let admission = "admissionregistration.k8s.io";
    let cases = [
        ("get", secret("tenant-a", "ems-bots-database"), "secret.read", "tenant-a"),
        ("list", secret("tenant-a", ""), "secret.read", "tenant-a"),
        ("list", secret("", ""), "secret.read", "everybody"),
        ("get", secret("ems-bots-system", "ems-bots-console-tls"), "secret.read", "everybody"),
        ("get", secret("ems-bots-system", "platform-database"), "secret.read", "everybody"),
        ("list", secret("ems-bots-system", ""), "secret.read", "everybody"),
        ("delete", secret("tenant-b", "auditbot-account"), "secret.changed", "tenant-b"),
        ("get", secret("gone", "auditbot-account"), "secret.read", "gone"),
        ("create", of(rbac, "rolebindings", "tenant-a", "anything", ""), "rights.changed", "tenant-a"),
        ("patch", of(rbac, "clusterroles", "", "ems-bots-auditor", ""), "rights.changed", "everybody"),
        ("create", of(rbac, "clusterrolebindings", "", "anything", ""), "rights.changed", "everybody"),
        ("delete", of(rbac, "clusterrolebindings", "", "anything", ""), "rights.changed", "everybody"),
        (
            "delete",
            of(admission, "validatingwebhookconfigurations", "", "ems-bots-console", ""),
            "admission.changed",
            "everybody",
        ),
        (
            "update",
            of("networking.k8s.io", "networkpolicies", "tenant-a", "open", ""),
            "network_policy.changed",
            "tenant-a",
        ),
        (
            "patch",
            of("apps", "statefulsets", "tenant-a", "auditbot-worker", ""),
            "workload.changed",
            "tenant-a",
        ),
        (
            "patch",
            of("apps", "deployments", "ems-bots-system", "ems-bots-operator", "scale"),
            "workload.changed",
            "everybody",
        ),
        ("delete", of("", "pods", "tenant-a", "auditbot-worker-0", ""), "workload.changed", "tenant-a"),
        ("delete", of("", "configmaps", "tenant-a", "auditbot-trail", ""), "workload.changed", "tenant-a"),
        (
            "patch",
            of("", "pods", "tenant-a", "auditbot-worker-0", "ephemeralcontainers"),
            "pod.entered",
            "tenant-a",
        ),
        (
            "create",
            of("", "serviceaccounts", "tenant-a", "auditbot-worker", "token"),
            "token.issued",
            "tenant-a",
        ),
    ];
    for (verb, object, action, place) in cases {
        let event = event("alice", verb, &object);
        assert_eq!(said(&event), [(action.to_owned(), place.to_owned())], "{verb} {object}");
    }
}

#[test]
fn what_is_done_by_rule_is_no_record() {
    let controller = |name: &str| format!("{CONTROLLER}{name}");
    let cases = [
        (OPERATOR.to_owned(), "get", secret("tenant-a", "auditbot-account")),
        (OPERATOR.to_owned(), "watch", secret("tenant-a", "")),
        (OPERATOR.to_owned(), "create", secret("tenant-a", "auditbot-account")),
        (OPERATOR.to_owned(), "patch", of("apps", "statefulsets", "tenant-a", "auditbot-worker", "")),
        (
            OPERATOR.to_owned(),
            "patch",
            of("rbac.authorization.k8s.io", "roles", "tenant-a", "auditbot-worker", ""),
        ),
        (CONSOLE.to_owned(), "get", secret("tenant-a", "auditbot-inbox")),
        (CONSOLE.to_owned(), "update", secret("ems-bots-system", "ems-bots-console-tls")),
        (
            OPERATOR.to_owned(),
            "patch",
            of("", "configmaps", "ems-bots-system", "ems-bots-operator-configuration", ""),
        ),
        (
            CONSOLE.to_owned(),
            "patch",
            of("admissionregistration.k8s.io", "validatingwebhookconfigurations", "", "ems-bots-console", ""),
        ),
        ("system:node:one".to_owned(), "get", secret("tenant-a", "auditbot-account")),
        (
            "system:node:one".to_owned(),
            "create",
            of("", "serviceaccounts", "tenant-a", "auditbot-worker", "token"),
        ),
        (controller("statefulset-controller"), "create", of("", "pods", "tenant-a", "auditbot-worker-0", "")),
        (controller("job-controller"), "create", of("", "pods", "tenant-a", "backup-x7", "")),
        (controller("cronjob-controller"), "create", of("batch", "jobs", "tenant-a", "backup-1", "")),
        (controller("deployment-controller"), "create", of("apps", "replicasets", "tenant-a", "web-1", "")),
        (controller("generic-garbage-collector"), "list", secret("", "")),
        (controller("namespace-controller"), "list", secret("tenant-a", "")),
        (
            "system:kube-scheduler".to_owned(),
            "create",
            of("", "pods", "tenant-a", "auditbot-worker-0", "binding"),
        ),
    ];
    for (user, verb, object) in cases {
        let mut event = event(&user, verb, &object);
        for stage in ["ResponseStarted", "ResponseComplete"] {
            event["stage"] = stage.into();
            assert!(said(&event).is_empty(), "{user} {verb} {object}");
        }
    }
    for (verb, object) in [
        ("get", secret("tenant-a", "registry")),
        ("get", secret("tenant-a", "auditbot-../../x-account")),
        ("get", of("", "pods", "tenant-a", "auditbot-worker-0", "")),
        ("create", of("", "pods", "tenant-a", "other-0", "exec")),
        ("update", of("coordination.k8s.io", "leases", "ems-bots-system", "ems-bots-operator", "")),
        ("patch", of("ems.element.io", "auditbots", "tenant-a", "auditbot", "status")),
        ("delete", of("rbac.authorization.k8s.io", "clusterroles", "", "other", "")),
        ("patch", of("rbac.authorization.k8s.io", "others", "tenant-a", "other", "")),
        ("patch", of("admissionregistration.k8s.io", "others", "", "ems-bots-console", "")),
        ("get", secret("ems-bots-system", "ems-bots-of-somebody-else")),
    ] {
        assert!(said(&event("alice", verb, &object)).is_empty(), "{verb} {object}");
    }
}

#[test]
fn a_part_of_ours_that_does_something_else_shows() {
    let cases = [
        (OPERATOR, "update", secret("tenant-a", "auditbot-backup-phrase"), "secret.changed"),
        (
            OPERATOR,
            "patch",
            of("apps", "statefulsets", "ems-bots-system", "ems-bots-operator", ""),
            "workload.changed",
        ),
        (CONSOLE, "get", secret("tenant-a", "auditbot-backup-phrase"), "secret.read"),
        (CONSOLE, "create", secret("ems-bots-system", "ems-bots-console-tls"), "secret.changed"),
        (
            OPERATOR,
            "patch",
            of("", "configmaps", "ems-bots-system", "ems-bots-logging", ""),
            "workload.changed",
        ),
        ("system:node:one", "delete", secret("tenant-a", "auditbot-account"), "secret.changed"),
        (
            "system:serviceaccount:kube-system:namespace-controller",
            "deletecollection",
            secret("tenant-a", ""),
            "secret.changed",
        ),
        (
            "system:serviceaccount:kube-system:other",
            "get",
            secret("tenant-a", "auditbot-account"),
            "secret.read",
        ),
        ("system:serviceaccount:kube-system:backup", "list", secret("", ""), "secret.read"),
        ("system:serviceaccount:kube-system:backup", "list", secret("tenant-a", ""), "secret.read"),
        (
            "system:serviceaccount:kube-system:namespace-controller",
            "get",
            secret("tenant-a", "auditbot-account"),
            "secret.read",
        ),
    ];
    for (user, verb, object, action) in cases {
        assert_eq!(said(&event(user, verb, &object))[0].0, action, "{user} {verb} {object}");
    }
}

#[test]
fn who_acts_as_a_part_of_ours_is_named() {
    let mut event = event("alice", "get", &secret("tenant-a", "auditbot-account"));
    event["impersonatedUser"] = json!({"username": OPERATOR, "groups": []});
    let entries = read(&event);
    let actions: Vec<&str> = entries.iter().map(|entry| entry.draft.action.as_str()).collect();
    assert_eq!(actions, ["secret.read", "user.impersonated"]);
    for entry in &entries {
        assert_eq!(entry.draft.actor.id(), "alice");
        assert_eq!(entry.draft.on_behalf_of.as_deref(), Some(OPERATOR));
    }
    assert_eq!(entries[1].target, Target::Everybody);
    let account = Relation::new("service_account", "ems-bots-system/ems-bots-operator", "target");
    assert!(entries[1].draft.relations.contains(&account));
    let told = |entry: &Entry| serde_json::to_string(&entry.draft).unwrap().contains("tenant-a");
    assert!(told(&entries[0]) && !told(&entries[1]), "all are told, and nobody what is another one's");
    event["impersonatedUser"]["username"] = "system:serviceaccount:tenant-b:auditbot-worker".into();
    event["objectRef"] = of("", "nodes", "", "one", "");
    assert_eq!(said(&event), [("user.impersonated".to_owned(), "tenant-b".to_owned())]);
    event["impersonatedUser"]["username"] = "bob".into();
    assert!(said(&event).is_empty());
    event["objectRef"] = of("ems.element.io", "auditbots", "tenant-a", "auditbot", "");
    assert!(said(&event).is_empty(), "he sees it");
    event["verb"] = "patch".into();
    let entries = read(&event);
    assert_eq!(entries[0].draft.action, "user.impersonated");
    assert!(entries[0].draft.relations.contains(&Relation::new("user", "bob", "target")));
    event["objectRef"]["name"] = "../other".into();
    assert!(said(&event).is_empty());
}

#[test]
fn rights_that_are_granted_are_shown_and_secrets_are_not() {
    let rbac = "rbac.authorization.k8s.io";
    let mut grant = event("alice", "create", &of(rbac, "clusterroles", "", "innocent", ""));
    grant["requestObject"] = json!({"rules": [{"apiGroups": ["ems.element.io"], "verbs": ["get"]}]});
    let entries = read(&grant);
    assert_eq!(entries[0].target, Target::Everybody);
    assert!(entries[0].draft.changes.iter().any(|change| change.path == "/object/rules"));
    let mut bind = event("alice", "create", &of(rbac, "clusterrolebindings", "", "innocent", ""));
    bind["responseObject"] = json!({"roleRef": {"name": "cluster-admin"}, "subjects": [{"name": "bob"}]});
    let subjects = read(&bind)[0].draft.changes.iter().any(|change| change.path == "/object/subjects");
    assert!(subjects);
    let mut write = event("alice", "update", &secret("tenant-a", "auditbot-account"));
    write["requestObject"] = json!({"data": {"password": "Z2VoZWlt"}, "spec": {"a": "Z2VoZWlt"}});
    write["responseObject"] = write["requestObject"].clone();
    let text = serde_json::to_string(&read(&write)[0].draft).unwrap();
    assert!(!text.contains("Z2VoZWlt"), "{text}");
}

#[test]
fn an_event_that_cannot_be_read_loses_no_other_and_is_a_record_of_a_gap() {
    let good = event("alice", "get", &secret("tenant-a", "auditbot-account"));
    let items = json!([1, {"auditID": 1}, null, {"auditID": "lost", "objectRef": {"resource": []}}, good]);
    let found = report(&items);
    assert_eq!((found.entries.len(), found.unreadable), (2, 4));
    assert_eq!(found.entries[0].draft.action, "secret.read");
    let Entry { target, draft } = &found.entries[1];
    assert_eq!((target, draft.action.as_str()), (&Target::Everybody, "audit_events.unreadable"));
    assert_eq!(draft.relations, [Relation::new("request", "lost", "self")]);
    assert_eq!(draft.changes[0].after.as_ref().unwrap()["count"], 4);
    assert_eq!(report(&items), found, "sent again it is the same");
    let read = |body: &[u8]| convert(body, Caller::Unknown, &estate());
    assert_eq!(read(b"\xff"), Err(Refusal::NotJson));
    assert!(matches!(read(b"{\"kind\":\"EventList\",\"apiVersion\":\"v1\"}"), Err(Refusal::NotA(_))));
}

#[test]
fn an_object_that_is_too_deep_or_no_text_loses_nothing() {
    let (open, close) = ("{\"a\":".repeat(1_000), "}".repeat(1_000));
    let deep = event("alice", "update", &of("networking.k8s.io", "networkpolicies", "tenant-a", "open", ""));
    let deep = deep.to_string().replacen('{', &format!("{{\"requestObject\":{open}1{close},"), 1);
    let good = event("bob", "get", &secret("tenant-a", "auditbot-account")).to_string();
    let body = list(&json!([])).replace("[]", &format!("[{deep},{good}]"));
    let report = convert(body.as_bytes(), Caller::ApiServer, &estate()).unwrap();
    assert_eq!((report.entries.len(), report.unreadable), (2, 0));
    let object = report.entries[0].draft.changes.iter().find(|change| change.path == "/object").unwrap();
    assert_eq!(object.after.as_ref().unwrap()["bytes"], open.len() + close.len() + 1);
    let mut odd = body.replace("kubectl", "kube\u{1}ctl").into_bytes();
    odd.iter_mut().filter(|byte| **byte == 1).for_each(|byte| *byte = 0xff);
    let report = convert(&odd, Caller::ApiServer, &estate()).unwrap();
    assert_eq!(report.entries.len(), 2);
}

#[test]
fn the_same_event_is_the_same_record() {
    let event = event("alice", "get", &secret("tenant-a", "auditbot-account"));
    assert_eq!(read(&event), read(&event));
    assert_eq!(read(&event), report(&json!([event, event])).entries, "also in one report");
}
