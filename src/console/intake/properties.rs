//! No report ends the process, whatever is in it, and none makes a record that an inbox refuses.

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{admission, audit, counter};
use crate::{
    console::{caller::Caller, estate::tests::estate},
    trail::content,
};

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
        prop::sample::select(vec![
            "AuditBot",
            "tenant-a",
            "auditbot",
            "auditbot-account",
            "secrets",
            "pods",
            "exec",
            "get",
            "create",
            "a://b:c@d",
            "system:serviceaccount:ems-bots-system:ems-bots-operator",
            "ResponseComplete",
            "ResponseStarted",
        ])
        .prop_map(Value::from),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(4, 40, 6, |inner| {
        let key = prop_oneof![
            ".{0,10}",
            prop::sample::select(vec![
                "metadata",
                "spec",
                "annotations",
                "name",
                "namespace",
                "finalizers",
                "homeserver"
            ])
            .prop_map(str::to_owned),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..6).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

fn fields(names: &'static [&'static str]) -> impl Strategy<Value = Value> {
    prop::collection::vec((prop::sample::select(names), value()), 0..names.len())
        .prop_map(|pairs| pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..400)) {
        let _read = admission::convert(&body, Caller::Unknown, &[], Timestamp::UNIX_EPOCH);
        let _read = audit::convert(&body, Caller::Unknown, &estate());
    }

    #[test]
    fn any_request_is_read_or_refused(
        (old, new) in (value(), value()),
        operation in prop::sample::select(vec!["CREATE", "UPDATE", "DELETE", "CONNECT", ""]),
        user in fields(&["username", "groups", "extra"]),
    ) {
        let mut review = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {
            "uid": "u", "name": "auditbot", "namespace": "tenant-a", "operation": operation,
            "resource": {"group": "ems.element.io", "resource": "auditbots"},
            "object": new, "oldObject": old,
        }});
        for body in [review.clone(), { review["request"]["userInfo"] = user; review }] {
            let read = admission::convert(body.to_string().as_bytes(), Caller::ApiServer, &[], Timestamp::UNIX_EPOCH);
            for entry in read.into_iter().flat_map(|review| review.entries) {
                let bytes = content::encode(&entry.draft);
                prop_assert!(bytes.len() < 1 << 20);
                prop_assert_eq!(content::decode(&bytes).ok(), Some(entry.draft));
            }
        }
    }

    #[test]
    fn any_event_is_read_or_left_out(
        event in fields(&["auditID", "stage", "verb", "user", "impersonatedUser", "sourceIPs", "userAgent",
            "objectRef", "responseStatus", "requestObject", "responseObject", "requestReceivedTimestamp"]),
        object in fields(&["apiGroup", "resource", "namespace", "name", "subresource", "uid"]),
    ) {
        let mut known = event.clone();
        known["auditID"] = "a".into();
        known["stage"] = "ResponseComplete".into();
        known["objectRef"] = object;
        let list = json!({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "items": [event, known]});
        let report = audit::convert(list.to_string().as_bytes(), Caller::ApiServer, &estate()).unwrap();
        prop_assert!(report.unreadable <= 2);
        for entry in report.entries {
            prop_assert!(content::encode(&entry.draft).len() < 1 << 20);
            prop_assert!(counter(&entry.draft.source_id) > 0);
        }
    }
}
