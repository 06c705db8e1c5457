//! What was refused, and how much of it anybody can have recorded.

use super::*;
use crate::{console::intake::counter, trail::content};

fn refused(user: &str, verb: &str, object: &Value) -> Value {
    let mut event = event(user, verb, object);
    event["responseStatus"]["code"] = 403.into();
    event
}

#[test]
fn what_was_refused_is_one_record_an_hour_whatever_is_chosen_freely() {
    let first = refused("mallory", "get", &secret("tenant-a", "auditbot-account"));
    let record = read(&first).remove(0);
    assert_eq!(record.draft.action, "secret.read");
    assert_eq!(
        record.draft.text.as_deref(),
        Some("mallory: get secrets tenant-a/auditbot-account, refused with 403")
    );
    let hour = 1_789_999_200_000;
    assert_eq!(record.draft.occurred, Occurred::Between(hour, hour + 3_600_000));
    let mut again = first.clone();
    again["auditID"] = "another".into();
    again["sourceIPs"] = json!(["198.51.100.7"]);
    again["userAgent"] = "something else".into();
    again["user"]["extra"] = json!({"authentication.kubernetes.io/credential-id": ["JTI=2"]});
    again["requestReceivedTimestamp"] = "2026-09-21T14:59:59.999999Z".into();
    again["objectRef"]["uid"] = "uid".into();
    again["requestObject"] = json!({"a": 1});
    let same = read(&again).remove(0);
    assert_eq!(content::encode(&same.draft), content::encode(&record.draft), "the same message");
    assert_eq!(counter(&same.draft.source_id), counter(&record.draft.source_id));
    assert_eq!(report(&json!([first, again])).entries.len(), 1);
    for (path, value) in [
        ("/verb", "list"),
        ("/user/username", "bob"),
        ("/objectRef/name", "auditbot-backup-phrase"),
        ("/requestReceivedTimestamp", "2026-09-21T15:00:00Z"),
    ] {
        let mut other = first.clone();
        *other.pointer_mut(path).unwrap() = value.into();
        assert_ne!(read(&other)[0].draft.source_id, record.draft.source_id, "{path}");
    }
    let mut failed = first.clone();
    failed["responseStatus"]["code"] = 504.into();
    let failed = read(&failed).remove(0);
    assert_eq!(failed.draft.occurred, Occurred::At(1_790_000_000_000), "it may have been done");
    assert!(failed.draft.text.unwrap().ends_with("failed with 504"));
}

#[test]
fn names_that_nothing_has_make_no_records_of_their_own() {
    const RBAC: &str = "rbac.authorization.k8s.io";
    type Make = fn(&str) -> (&'static str, Value);
    let cases: [(Make, usize); 6] = [
        (|name| ("get", secret("tenant-a", &format!("auditbot-admin-{name}"))), 1),
        (|name| ("patch", of("", "pods", "tenant-a", name, "")), 1),
        (|name| ("update", of(RBAC, "rolebindings", "tenant-a", name, "")), 1),
        (|name| ("update", of(RBAC, "clusterrolebindings", "", name, "")), 2),
        (|name| ("get", secret("tenant-a", &format!("auditbot-{name}-account"))), 0),
        (|name| ("get", secret(name, "auditbot-account")), 0),
    ];
    for (make, trails) in cases {
        let events: Vec<Value> = (0..50)
            .map(|n| make(&format!("{n:08x}")))
            .map(|(verb, object)| refused("mallory", verb, &object))
            .collect();
        let found = report(&events.into());
        // What concerns everybody is a record in each trail.
        assert_eq!(found.entries.len(), trails.min(1), "{:?}", found.entries);
        for entry in &found.entries {
            assert_eq!(entry.target == Target::Everybody, trails == 2);
            let text = entry.draft.text.as_deref().unwrap();
            assert!(!text.contains("000000"), "no name that nothing has: {text}");
        }
    }
    let own = refused("mallory", "delete", &of("apps", "statefulsets", "tenant-a", "auditbot-worker", ""));
    let workload = Relation::new("workload", "tenant-a/auditbot-worker", "target");
    assert!(read(&own)[0].draft.relations.contains(&workload));
}

#[test]
fn refusals_of_nobody_are_counted_and_what_nobody_got_is_recorded() {
    for user in [
        json!({"username": "system:anonymous", "groups": ["system:unauthenticated"]}),
        json!({"username": "system:anonymous"}),
        json!({"username": "x", "groups": ["system:unauthenticated"]}),
    ] {
        let mut event = refused("", "list", &secret("", ""));
        event["user"] = user;
        let other = refused("", "get", &of("", "nodes", "", "one", ""));
        let found = report(&json!([event, event, other]));
        assert_eq!((found.entries.len(), found.anonymous), (0, 2));
        event["responseStatus"]["code"] = 200.into();
        assert_eq!(read(&event)[0].draft.action, "secret.read", "the door is open");
    }
}
