use serde_json::json;

use super::*;
use crate::domain::record::Actor;

const OPERATOR: &str = "system:serviceaccount:ems-bots-system:ems-bots-operator";

fn now() -> Timestamp {
    Timestamp::from_millisecond(1_790_000_000_000).unwrap()
}

fn bot(spec: &Value, metadata: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "ems.element.io/v1alpha1", "kind": "AuditBot",
        "metadata": {"name": "auditbot", "namespace": "tenant", "uid": "life", "generation": 2},
        "spec": {"homeserver": {"serverName": "example.org", "url": "http://synapse:8008", "plan": "Gold"},
            "username": "auditbot", "suspend": false},
        "status": {"conditions": [{"type": "Ready"}]},
    });
    for (part, more) in [("spec", spec), ("metadata", metadata)] {
        for (key, value) in more.as_object().unwrap() {
            if let (Some(old), Some(new)) = (object[part][key].as_object_mut(), value.as_object()) {
                old.extend(new.clone());
            } else {
                object[part][key] = value.clone();
            }
        }
    }
    object
}

fn review(operation: &str, old: Option<&Value>, new: Option<&Value>) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "request-1", "operation": operation, "dryRun": false,
            "kind": {"group": "ems.element.io", "version": "v1alpha1", "kind": "AuditBot"},
            "resource": {"group": "ems.element.io", "version": "v1alpha1", "resource": "auditbots"},
            "name": "auditbot", "namespace": "tenant",
            "userInfo": {
                "username": "system:serviceaccount:billing:billing",
                "groups": ["system:serviceaccounts", "system:authenticated"],
                "extra": {"authentication.kubernetes.io/credential-id": ["JTI=1"],
                    "authentication.kubernetes.io/pod-name": ["billing-0"]},
            },
            "object": new, "oldObject": old,
        },
    })
}

fn drafts_of(review: &Value) -> Vec<RecordDraft> {
    let own = [OPERATOR.to_owned()];
    let review = convert(review.to_string().as_bytes(), Caller::ApiServer, &own, now()).unwrap();
    assert_eq!(review.uid, "request-1");
    review.entries.into_iter().map(|entry| entry.draft).collect()
}

fn update(spec: &Value, metadata: &Value) -> Vec<RecordDraft> {
    drafts_of(&review("UPDATE", Some(&bot(&json!({}), &json!({}))), Some(&bot(spec, metadata))))
}

fn actions(drafts: &[RecordDraft]) -> Vec<&str> {
    drafts.iter().map(|draft| draft.action.as_str()).collect()
}

#[test]
fn a_change_has_who_in_which_groups_what_before_and_after_and_why() {
    let drafts = update(
        &json!({"displayName": "New"}),
        &json!({"generation": 3, "annotations": {"ems.element.io/change-reason": "ticket 7"}}),
    );
    assert_eq!(actions(&drafts), ["bot.change.requested"]);
    let draft = &drafts[0];
    let Actor::KubernetesUser { id, groups } = &draft.actor else { panic!("{:?}", draft.actor) };
    assert_eq!(id, "system:serviceaccount:billing:billing");
    assert_eq!(groups, &["system:serviceaccounts", "system:authenticated"]);
    assert_eq!(draft.context.reason.as_deref(), Some("ticket 7"));
    assert_eq!(draft.context.session_id.as_deref(), Some("JTI=1"));
    assert_eq!(draft.occurred, Occurred::At(now().as_millisecond()));
    let change =
        |path: &str, after: &str| Change { path: path.into(), before: None, after: Some(after.into()) };
    let reason = change("/metadata/annotations/ems.element.io~1change-reason", "ticket 7");
    assert_eq!(draft.changes, [change("/spec/displayName", "New"), reason]);
    let applied = state(3, &bot(&json!({"displayName": "New"}), &json!({})));
    for (kind, id, role) in [
        ("bot", "AuditBot/tenant/auditbot", "target"),
        ("namespace", "tenant", "in"),
        ("request", "request-1", "self"),
        ("homeserver", "example.org", "target"),
        ("user", "@auditbot:example.org", "target"),
        ("change", &*applied, "requested"),
        ("pod", "billing/billing-0", "actor"),
    ] {
        assert!(draft.relations.contains(&Relation::new(kind, id, role)), "{kind} {:?}", draft.relations);
    }
    assert_eq!(draft.subjects[0].person, "system:serviceaccount:billing:billing");
}

/// The state of the bot as its worker names it.
fn state(generation: i64, object: &Value) -> String {
    revision::name("life", generation, &revision::mark(Some(&object["spec"])))
}

fn requested(draft: &RecordDraft) -> Option<&str> {
    draft.relations.iter().find(|one| one.kind == "change").map(|one| one.id.as_str())
}

#[test]
fn a_request_names_the_state_that_it_leads_to_if_it_leads_to_one() {
    let (old, generation) = (bot(&json!({}), &json!({})), |n: i64| json!({"generation": n}));
    let created = drafts_of(&review("CREATE", None, Some(&old)));
    assert_eq!(requested(&created[0]), Some(&*state(2, &old)));
    let one = update(&json!({"suspend": true}), &generation(3));
    let other = update(&json!({"displayName": "New"}), &generation(3));
    assert_eq!(requested(&one[0]), Some(&*state(3, &bot(&json!({"suspend": true}), &json!({})))));
    assert_ne!(requested(&one[0]), requested(&other[0]), "one of them was refused in the end");
    let noted = update(&json!({}), &json!({"annotations": {"a": "b"}}));
    assert_eq!((noted.len(), requested(&noted[0])), (1, None), "the specification stays as it was");
    let deleted = drafts_of(&review("DELETE", Some(&old), None));
    assert_eq!(requested(&deleted[0]), Some(&*state(3, &old)), "the mark of the deletion");
    let leaving = bot(&json!({}), &json!({"deletionTimestamp": "2026-09-21T14:13:20Z", "generation": 3}));
    let again = drafts_of(&review("DELETE", Some(&leaving), None));
    assert_eq!((again.len(), requested(&again[0])), (1, None), "it has the mark already");
}

#[test]
fn what_is_billed_is_named_as_that() {
    let plan = json!({"homeserver": {"plan": "Platinum"}});
    let reason = json!({"annotations": {"ems.element.io/change-reason": "upgrade"}});
    let cases = [
        (plan.clone(), vec!["billing.plan_change.requested"]),
        (json!({"suspend": true}), vec!["billing.suspension.requested"]),
        (
            json!({"suspend": true, "homeserver": {"plan": "Platinum"}, "displayName": "x"}),
            vec!["billing.plan_change.requested", "billing.suspension.requested", "bot.change.requested"],
        ),
    ];
    for (spec, expected) in cases {
        assert_eq!(actions(&update(&spec, &json!({}))), expected, "{spec}");
    }
    let drafts = update(&plan, &reason);
    assert_eq!(actions(&drafts), ["billing.plan_change.requested"], "the reason is no change of its own");
    assert_eq!(drafts[0].context.reason.as_deref(), Some("upgrade"));
    assert_eq!(drafts[0].changes[0].before, Some(json!("Gold")));
    assert_eq!(drafts[0].changes[0].after, Some(json!("Platinum")));
    let suspended = bot(&json!({"suspend": true}), &json!({}));
    let drafts = drafts_of(&review("UPDATE", Some(&suspended), Some(&bot(&json!({}), &json!({})))));
    assert_eq!(actions(&drafts), ["billing.resumption.requested"]);
    let ids: std::collections::BTreeSet<String> =
        update(&json!({"suspend": true, "homeserver": {"plan": "Platinum"}}), &json!({}))
            .into_iter()
            .map(|draft| draft.source_id)
            .collect();
    assert_eq!(ids.len(), 2, "each record has a source of its own");
}

#[test]
fn creation_and_removal_have_the_whole_specification() {
    let object = bot(&json!({}), &json!({}));
    let created = drafts_of(&review("CREATE", None, Some(&object)));
    assert_eq!(actions(&created), ["bot.creation.requested"]);
    assert!(created[0].changes.iter().any(|c| c.path == "/spec/homeserver/plan" && c.before.is_none()));
    let removed = drafts_of(&review("DELETE", Some(&object), None));
    assert_eq!(actions(&removed), ["billing.removal.requested"]);
    assert!(removed[0].changes.iter().any(|c| c.path == "/spec/homeserver/plan" && c.after.is_none()));
    assert!(removed[0].changes.iter().all(|c| !c.path.starts_with("/status")));
}

#[test]
fn a_generated_name_is_that_of_the_object() {
    let mut asked = review("CREATE", None, Some(&bot(&json!({}), &json!({"name": "auditbot-x7"}))));
    asked["request"]["name"] = "".into();
    let review = convert(asked.to_string().as_bytes(), Caller::ApiServer, &[], now()).unwrap();
    let Target::Bot(bot) = &review.entries[0].target else { panic!("everybody") };
    assert_eq!(bot.name, "auditbot-x7");
}

#[test]
fn a_reason_counts_only_if_this_request_set_it() {
    let with = |reason: &str| json!({"annotations": {"ems.element.io/change-reason": reason}});
    let reason = |operation: &str, old: Option<&Value>, new: Option<&Value>| {
        drafts_of(&review(operation, old, new))[0].context.reason.clone()
    };
    let old = bot(&json!({}), &with("last month's"));
    let kept = bot(&json!({"suspend": true}), &with("last month's"));
    assert_eq!(reason("UPDATE", Some(&old), Some(&kept)), None);
    let new = bot(&json!({"suspend": true}), &with("unpaid"));
    assert_eq!(reason("UPDATE", Some(&old), Some(&new)).as_deref(), Some("unpaid"));
    assert_eq!(reason("CREATE", None, Some(&new)).as_deref(), Some("unpaid"));
    assert_eq!(reason("DELETE", Some(&new), None), None, "nobody can set it while deleting");
}

#[test]
fn what_nobody_decided_is_no_record() {
    let nothing = |metadata: &Value| assert_eq!(update(&json!({}), metadata), [], "{metadata}");
    nothing(&json!({}));
    nothing(&json!({"resourceVersion": "9", "managedFields": [{"manager": "x"}], "generation": 2}));
    nothing(&json!({"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{\"secret\":1}"}}));
    nothing(&json!({"finalizers": ["foregroundDeletion"]}));
    let mut status = bot(&json!({}), &json!({}));
    status["status"] = json!({"conditions": []});
    assert_eq!(drafts_of(&review("UPDATE", Some(&bot(&json!({}), &json!({}))), Some(&status))), []);
    let mut asked = review("UPDATE", None, Some(&bot(&json!({"suspend": true}), &json!({}))));
    asked["request"]["dryRun"] = true.into();
    assert_eq!(drafts_of(&asked), [], "a dry run");
    asked["request"]["dryRun"] = false.into();
    asked["request"]["subResource"] = "status".into();
    assert_eq!(drafts_of(&asked), [], "the status");
    asked["request"]["subResource"] = Value::Null;
    asked["request"]["resource"]["resource"] = "others".into();
    assert_eq!(drafts_of(&asked), [], "another kind");
}

#[test]
fn our_finalizer_comes_and_goes_unseen_but_not_by_others() {
    let held = bot(&json!({}), &json!({"finalizers": ["ems.element.io/cleanup"]}));
    let free = bot(&json!({}), &json!({}));
    for (old, new) in [(&held, &free), (&free, &held)] {
        let mut asked = review("UPDATE", Some(old), Some(new));
        asked["request"]["userInfo"]["username"] = OPERATOR.into();
        assert_eq!(drafts_of(&asked), []);
        assert_eq!(actions(&drafts_of(&review("UPDATE", Some(old), Some(new)))), ["bot.change.requested"]);
    }
    let mut asked = review("UPDATE", Some(&free), Some(&bot(&json!({"suspend": true}), &json!({}))));
    asked["request"]["userInfo"]["username"] = OPERATOR.into();
    assert_eq!(actions(&drafts_of(&asked)), ["billing.suspension.requested"], "that it never does by rule");
}

#[test]
fn secrets_are_in_no_record() {
    let spec = json!({"homeserver": {"url": "http://user:geheim@synapse"}, "worker": {"proxy": {"url": "http://p:geheim@proxy"}}});
    let notes = json!({"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "geheim"}});
    let object = bot(&spec, &notes);
    for drafts in [
        drafts_of(&review("CREATE", None, Some(&object))),
        drafts_of(&review("DELETE", Some(&object), None)),
        update(&spec, &notes),
    ] {
        let text = serde_json::to_string(&drafts).unwrap();
        assert!(!text.contains("geheim") && text.contains("[redacted]@"), "{text}");
    }
}

#[test]
fn who_did_not_prove_to_be_the_api_server_is_marked() {
    let asked = review("DELETE", Some(&bot(&json!({}), &json!({}))), None);
    let review = convert(asked.to_string().as_bytes(), Caller::Unknown, &[], now()).unwrap();
    let draft = &review.entries[0].draft;
    assert!(draft.relations.contains(&Relation::new("request", "request-1", "unauthenticated")));
    assert!(draft.text.as_ref().unwrap().contains("did not prove"), "{:?}", draft.text);
}

#[test]
fn hostile_reports_are_refused_or_bounded() {
    let read = |body: &[u8]| convert(body, Caller::Unknown, &[], now());
    assert_eq!(read(b""), Err(Refusal::NotJson));
    assert_eq!(read("[".repeat(100_000).as_bytes()), Err(Refusal::NotJson));
    assert!(matches!(read(b"{}"), Err(Refusal::NotA(_))));
    assert!(matches!(
        read(b"{\"kind\":\"AdmissionReview\",\"apiVersion\":\"admission.k8s.io/v1\"}"),
        Err(Refusal::NotA(_))
    ));
    for (field, value) in [("name", "../../secrets/x"), ("namespace", "a/b"), ("name", "A")] {
        let mut asked = review("DELETE", Some(&bot(&json!({}), &json!({}))), None);
        asked["request"][field] = value.into();
        assert_eq!(read(asked.to_string().as_bytes()), Err(Refusal::Name), "{field} {value}");
    }
    let many: serde_json::Map<String, Value> =
        (0..20_000).map(|n| (n.to_string(), json!("x".repeat(50)))).collect();
    let mut huge = bot(&json!({}), &json!({"labels": many, "annotations": {"a": "x".repeat(1 << 20)}}));
    huge["spec"] = json!([{"a": "x".repeat(1 << 20)}]);
    let mut asked = review("CREATE", None, Some(&huge));
    asked["request"]["userInfo"]["groups"] = vec!["x".repeat(5_000); 1_000].into();
    let drafts = drafts_of(&asked);
    let size = crate::trail::content::encode(&drafts[0]).len();
    assert!(size < 1 << 20, "{size}");
}
