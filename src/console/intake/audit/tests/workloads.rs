//! What runs beside a bot, and who is given what is ours.

use super::*;

#[test]
fn whatever_is_to_run_beside_a_bot_is_recorded() {
    for (group, kind) in [
        ("", "pods"),
        ("", "replicationcontrollers"),
        ("apps", "daemonsets"),
        ("apps", "deployments"),
        ("apps", "replicasets"),
        ("apps", "statefulsets"),
        ("batch", "cronjobs"),
        ("batch", "jobs"),
    ] {
        for (namespace, place) in [("tenant-a", "tenant-a"), ("ems-bots-system", "everybody")] {
            for verb in ["create", "update", "patch"] {
                let event = event("alice", verb, &of(group, kind, namespace, "anything", ""));
                assert_eq!(
                    said(&event),
                    [("workload.changed".to_owned(), place.to_owned())],
                    "{verb} {kind}"
                );
            }
            assert!(said(&event("alice", "delete", &of(group, kind, namespace, "anything", ""))).is_empty());
            assert!(
                said(&event("alice", "patch", &of(group, kind, namespace, "anything", "status"))).is_empty()
            );
        }
        assert!(said(&event("alice", "create", &of(group, kind, "elsewhere", "anything", ""))).is_empty());
    }
    // A name that the API server generates.
    assert_eq!(said(&event("alice", "create", &of("", "pods", "tenant-a", "", ""))).len(), 1);
}

#[test]
fn what_a_workload_mounts_is_shown_and_its_literals_are_not() {
    let mut made = event("alice", "create", &of("", "pods", "tenant-a", "thief", ""));
    made["requestObject"] = json!({
        "metadata": {"annotations": {"note": "geheim"}},
        "spec": {
            "serviceAccountName": "auditbot-worker",
            "volumes": [{"name": "v", "secret": {"secretName": "auditbot-backup-phrase"}}],
            "containers": [{"name": "c", "args": ["geheim"], "env": [{"name": "TOKEN", "value": "geheim"}]}],
        },
    });
    let draft = read(&made).remove(0).draft;
    let text = serde_json::to_string(&draft).unwrap();
    assert!(text.contains("auditbot-backup-phrase") && text.contains("TOKEN"), "{text}");
    assert!(!text.contains("geheim"), "{text}");
    let account = draft.changes.iter().find(|change| change.path == "/object/spec/serviceAccountName");
    assert_eq!(account.unwrap().after, Some("auditbot-worker".into()));
}

#[test]
fn roles_for_the_whole_cluster_are_recorded_if_they_may_lead_to_ours() {
    let role = of("rbac.authorization.k8s.io", "clusterroles", "", "innocent", "");
    let records = |verb: &str, object: Value, code: i64| {
        let mut event = event("alice", verb, &role);
        event["requestObject"] = object;
        event["responseStatus"]["code"] = code.into();
        read(&event).len()
    };
    let grants = |group: &str, resource: &str| json!({"rules": [{"apiGroups": [group], "resources": [resource], "verbs": ["get"]}]});
    assert_eq!(records("create", grants("", "secrets"), 201), 1);
    assert_eq!(records("create", grants("", "nodes"), 201), 0);
    assert_eq!(records("create", json!({"aggregationRule": {}}), 201), 1);
    assert_eq!(records("patch", Value::Null, 200), 1, "the policy does not show what it says");
    assert_eq!(records("patch", Value::Null, 403), 0, "and nothing came of it");
    assert_eq!(records("delete", Value::Null, 200), 0);
    assert_eq!(records("delete", json!({"kind": "DeleteOptions"}), 200), 0);
}
