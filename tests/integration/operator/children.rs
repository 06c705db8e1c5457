//! What the operator has made is watched, most of it: what somebody deletes or changes comes back at once, and what others write beside
//! it, or the operator itself, is no reason to look at a bot.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use ems_bots::{
    crd::AuditBot,
    kube_util::{apply_status, lease::LeaseConfig, readiness::Readiness},
    operator::{
        metrics::Metrics,
        run::{LEASE, Operator},
        status::types,
    },
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    fake_api::Call,
    world::{NAMESPACE, World},
};

/// A tenant with a bot that works, and an operator at work in it.
struct Stage {
    world: World,
    _operator: AbortOnDropHandle<()>,
}

/// The clock stands still while anything can go on: it is later only when everything waits. It is far from the time at
/// which the operator looks without a reason.
async fn until_everything_waits() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}

impl Stage {
    async fn set() -> Self {
        let mut world = World::new();
        world.settings.console = Some(("ems-bots-system".to_owned(), "ems-bots-console".to_owned()));
        world.bot::<AuditBot>(&json!({}));
        let ctx = world.start();
        let operator = Operator {
            client: ctx.client.clone(),
            connect: Arc::clone(&ctx.connect),
            settings: world.settings.clone(),
            metrics: Metrics::new(&prometheus::Registry::new()).unwrap(),
            lease: LeaseConfig::new("ems-bots-system", "ems-bots-operator", "one"),
            concurrency: 2,
            readiness: Readiness::waiting_for([LEASE]),
            configuration: None,
        };
        let running = tokio::spawn(async move { operator.run(CancellationToken::new()).await.unwrap() });
        until_everything_waits().await;
        world.worker_is_ready::<AuditBot>();
        let stage = Self { world, _operator: AbortOnDropHandle::new(running) };
        stage.reports(7).await;
        until_everything_waits().await;
        assert_eq!(stage.world.condition::<AuditBot>("Ready").1, "AllReady");
        stage.asked();
        stage
    }

    /// The worker reports a trail of this size.
    async fn reports(&self, size: u32) {
        let live: AuditBot =
            serde_json::from_value(self.world.api.get("auditbots", NAMESPACE, "auditbot").unwrap()).unwrap();
        let fine = |type_: &&str| {
            json!({"type": type_, "status": "True", "reason": "Fine", "message": "", "observedGeneration": 1,
                "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        let conditions: Vec<Value> = types::OF_WORKER.iter().map(fine).collect();
        let trail = json!({"epoch": 1, "size": size, "rootHash": "a".repeat(64), "closed": false});
        let status = json!({"conditions": conditions, "trail": trail});
        apply_status(&self.world.api.client(), "ems-bots-worker", &live, &status).await.unwrap();
    }

    /// What the operator asked of the API server since the last call, but for watches and its lease.
    fn asked(&self) -> Vec<Call> {
        let by_the_way = |call: &Call| call.is_watch() || call.path.contains("/leases");
        self.world.api.take_calls().into_iter().filter(|call| !by_the_way(call)).collect()
    }

    fn get(&self, plural: &str, name: &str) -> Option<Value> {
        self.world.api.get(plural, NAMESPACE, name)
    }
}

/// Reads of an object.
fn reads(asked: &[Call], object: &str) -> usize {
    asked.iter().filter(|call| !call.is_write() && call.path.ends_with(object)).count()
}

/// Complete looks: only they read what the bot refers to.
fn complete_looks(asked: &[Call]) -> usize {
    reads(asked, "/secrets/ems-bots-database")
}

/// What a bot has that is watched, and a field of each that the operator states.
const WATCHED: [(&str, &str, &str); 5] = [
    ("networkpolicies", "auditbot-worker", "/spec/egress"),
    ("serviceaccounts", "auditbot-worker", "/metadata/ownerReferences"),
    ("services", "auditbot-worker", "/spec/ports"),
    ("persistentvolumeclaims", "auditbot-worker-data", "/metadata/labels/ems.element.io~1bot"),
    ("statefulsets", "auditbot-worker", "/metadata/labels/app.kubernetes.io~1name"),
];

/// And what is not: to read it everywhere would be a right too many, and a connection for each namespace.
const LOOKED_AT: [(&str, &str); 5] = [
    ("roles", "auditbot-worker"),
    ("rolebindings", "auditbot-worker"),
    ("configmaps", "auditbot-trail"),
    ("roles", "auditbot-inbox"),
    ("rolebindings", "auditbot-inbox"),
];

#[tokio::test(start_paused = true)]
async fn two_watches_for_each_namespace_and_one_for_each_harmless_kind_are_all() {
    let stage = Stage::set().await;
    stage.world.api.take_calls();
    // Each watch is begun again after some minutes.
    tokio::time::sleep(Duration::from_mins(8)).await;
    let calls = stage.world.api.take_calls();
    let watched: BTreeSet<&str> =
        calls.iter().filter(|call| call.is_watch()).map(|call| call.path.as_str()).collect();
    let of_tenant = [
        format!("/api/v1/namespaces/{NAMESPACE}/secrets"),
        format!("/apis/apps/v1/namespaces/{NAMESPACE}/statefulsets"),
    ];
    let mut expected: BTreeSet<&str> = of_tenant.iter().map(String::as_str).collect();
    expected.extend([
        "/api/v1/persistentvolumeclaims",
        "/api/v1/serviceaccounts",
        "/api/v1/services",
        "/apis/ems.element.io/v1alpha1/adminbots",
        "/apis/ems.element.io/v1alpha1/auditbots",
        "/apis/networking.k8s.io/v1/networkpolicies",
    ]);
    assert_eq!(watched, expected);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_watched_comes_back_with_the_next_look() {
    let stage = Stage::set().await;
    for (plural, name) in LOOKED_AT {
        stage.world.api.delete(plural, NAMESPACE, name);
    }
    tokio::time::sleep(stage.world.settings.resync).await;
    until_everything_waits().await;
    for (plural, name) in LOOKED_AT {
        assert!(stage.get(plural, name).is_some(), "{plural}/{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_changes_something_back_again_and_again_is_named_and_answered_ever_more_slowly() {
    const LABEL: &str = "/metadata/labels/ems.element.io~1bot";
    let stage = Stage::set().await;
    let label = || stage.get("networkpolicies", "auditbot-worker").unwrap().pointer(LABEL).cloned();
    let ours = label();
    let policies: Api<NetworkPolicy> = Api::namespaced(stage.world.api.client(), NAMESPACE);
    let theirs = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "auditbot-worker", "labels": {"ems.element.io/bot": "painted"}}});
    for _ in 0..60 {
        let params = PatchParams::apply("painter").force();
        policies.patch("auditbot-worker", &params, &Patch::Apply(&theirs)).await.unwrap();
        until_everything_waits().await;
    }
    let asked = stage.asked();
    let by_operator = |call: &&Call| {
        call.path.ends_with("/networkpolicies/auditbot-worker") && call.query.contains("ems-bots-operator")
    };
    let writes = asked.iter().filter(by_operator).count();
    assert!((4..=6).contains(&writes), "{writes} writes in a minute");
    let notes = stage.world.notes("ObjectFoughtOver");
    assert_eq!(notes.len(), 1, "{notes:?}");
    for name in ["painter", "NetworkPolicy tenant/auditbot-worker"] {
        assert!(notes[0].contains(name), "{notes:?}");
    }
    tokio::time::sleep(stage.world.settings.resync).await;
    until_everything_waits().await;
    assert_eq!(label(), ours, "once nobody changes it any more");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_is_no_fight_and_holds_up_what_comes_after_it() {
    let stage = Stage::set().await;
    let policies = |call: &Call| call.is_write() && call.path.ends_with("/networkpolicies/auditbot-worker");
    stage.world.api.fault(500, usize::MAX, policies);
    stage.world.api.delete("networkpolicies", NAMESPACE, "auditbot-worker");
    stage.world.api.delete("statefulsets", NAMESPACE, "auditbot-worker");
    for _ in 0..90 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let pod = stage.get("statefulsets", "auditbot-worker");
        assert!(pod.is_none(), "a pod without a policy can reach whatever it likes");
        assert_eq!(stage.world.condition::<AuditBot>("Ready").0, "False");
    }
    let tries = stage.asked().into_iter().filter(policies).count();
    assert!((10..60).contains(&tries), "{tries} tries in a quarter of an hour");
    assert_eq!(stage.world.notes("ObjectFoughtOver"), [] as [String; 0]);
    stage.world.api.clear_faults();
    tokio::time::sleep(stage.world.settings.resync).await;
    until_everything_waits().await;
    for plural in ["networkpolicies", "statefulsets"] {
        assert!(stage.get(plural, "auditbot-worker").is_some(), "{plural}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_comes_back_at_once() {
    let stage = Stage::set().await;
    for (plural, name, _) in WATCHED {
        stage.world.api.delete(plural, NAMESPACE, name);
        assert!(stage.get(plural, name).is_none());
        until_everything_waits().await;
        assert!(stage.get(plural, name).is_some(), "{plural}/{name}");
        if plural == "statefulsets" {
            stage.world.worker_is_ready::<AuditBot>();
            until_everything_waits().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_changed_is_put_right_at_once() {
    let stage = Stage::set().await;
    for (plural, name, field) in WATCHED {
        let ours = stage.get(plural, name).unwrap().pointer(field).unwrap().clone();
        // Another value, and then none at all.
        for value in [if ours.is_array() { json!([]) } else { json!("1") }, Value::Null] {
            stage.world.api.take_over(plural, NAMESPACE, name, |object| {
                let (parent, key) = field.rsplit_once('/').unwrap();
                let parent = object.pointer_mut(parent).unwrap().as_object_mut().unwrap();
                let key = key.replace("~1", "/");
                if value.is_null() {
                    parent.remove(&key)
                } else {
                    parent.insert(key, value.clone())
                };
            });
            assert_ne!(stage.get(plural, name).unwrap().pointer(field), Some(&ours));
            until_everything_waits().await;
            let now = stage.get(plural, name).unwrap();
            assert_eq!(now.pointer(field), Some(&ours), "{plural}/{name} after {value}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_loses_the_label_by_which_it_is_found_gets_it_back() {
    let stage = Stage::set().await;
    for (plural, name, _) in WATCHED {
        stage.world.api.take_over(plural, NAMESPACE, name, |object| {
            object["metadata"]["labels"].as_object_mut().unwrap().remove("app.kubernetes.io/managed-by");
        });
        until_everything_waits().await;
        let labels = &stage.get(plural, name).unwrap()["metadata"]["labels"];
        assert_eq!(labels["app.kubernetes.io/managed-by"], "ems-bots-operator", "{plural}/{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bot_of_which_nothing_changes_is_not_looked_at() {
    let stage = Stage::set().await;
    // Longer than a watch: it is begun again meanwhile.
    tokio::time::sleep(stage.world.settings.resync.mul_f64(0.8)).await;
    let asked = stage.asked();
    assert!(asked.is_empty(), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn the_copy_of_the_trail_is_no_reason_to_look_again() {
    let stage = Stage::set().await;
    for size in 8..13 {
        stage.asked();
        stage.reports(size).await;
        until_everything_waits().await;
        let asked = stage.asked();
        assert_eq!(stage.get("configmaps", "auditbot-trail").unwrap()["data"]["size"], size.to_string());
        assert_eq!(complete_looks(&asked), 0, "{asked:?}");
        assert_eq!(reads(&asked, "/statefulsets/auditbot-worker"), 1, "one look for a report: {asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_others_write_beside_it_is_theirs() {
    let stage = Stage::set().await;
    for (plural, name) in WATCHED.map(|(plural, name, _)| (plural, name)).into_iter().chain(LOOKED_AT) {
        stage.world.api.take_over(plural, NAMESPACE, name, |object| {
            object["metadata"]["annotations"] = json!({"example.org/seen-by": "somebody"});
        });
        until_everything_waits().await;
        let asked = stage.asked();
        assert_eq!(complete_looks(&asked), 0, "{plural}/{name}: {asked:?}");
        assert!(plural == "statefulsets" || asked.is_empty(), "{plural}/{name}: {asked:?}");
    }
    // The workload's status is looked at, and nothing more.
    stage.world.worker_is_away::<AuditBot>();
    until_everything_waits().await;
    assert_eq!(complete_looks(&stage.asked()), 0);
    assert_eq!(stage.world.condition::<AuditBot>("Ready").1, "WorkerNotReady");
}
