//! Who orders, changes and removes bots, who reads their Secrets and goes into their pods, is in the trail; and
//! nothing is that happens by rule.

mod fail;
mod replaced;
mod traffic;
mod ways;

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::{
    Scene, Tenant, Trail, eventually,
    sql::count,
    trail::{actor, change, relates},
};

const BILLING: &str = "billing";
const USER: &str = "system:serviceaccount:billing:billing";
const REASON: &str = "ems.element.io/change-reason";
/// Who uses `kubectl` in these tests.
const PERSON: &str = "ems-bots-dev-admin";

/// Kind and name of a bot.
type Bot = (&'static str, &'static str);
const ADMIN: Bot = ("AdminBot", "adminbot");
const AUDIT: Bot = ("AuditBot", "auditbot");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_billing_asks_for_and_what_is_read_is_in_the_trail() {
    let scene = Scene::set("intake", &[]).await;
    let billing = billing(&scene).await;
    println!("-- the order: its trail does not exist yet");
    order(&scene, &billing, AUDIT).await;
    scene.tenant.wait_ready("AuditBot", "auditbot").await;
    let trail = scene.trail("auditbot").await;
    let ordered = requested(&trail, "bot.creation.requested").await;
    assert_eq!(ordered["context"]["reason"], "order 1");
    is_applied(&trail, &ordered).await;
    changes(&scene, &billing, &trail, AUDIT).await;
    reads(&scene, &billing, &trail).await;
    silence(&scene, &trail).await;
    removal(&scene, &billing, &trail, AUDIT).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_and_what_is_refused_before_leave_no_record() {
    let scene = Scene::set("dryrun", &[]).await;
    scene.audit_bot().await;
    let trail = scene.trail("auditbot").await;
    requested_by_anybody(&trail, "bot.creation.requested").await;
    let bots = scene.tenant.bots("AuditBot");
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    bots.patch("auditbot", &dry, &Patch::Merge(json!({"spec": {"suspend": true}}))).await.unwrap();
    let nonsense = Patch::Merge(json!({"spec": {"homeserver": {"plan": "Bronze"}}}));
    bots.patch("auditbot", &PatchParams::default(), &nonsense).await.unwrap_err();
    // What comes after them is there, and they are not.
    let named = Patch::Merge(json!({"spec": {"displayName": "Another name"}}));
    bots.patch("auditbot", &PatchParams::default(), &named).await.unwrap();
    requested_by_anybody(&trail, "bot.change.requested").await;
    assert!(trail.search(&["--action", "billing."]).is_empty());
    scene.end().await;
}

async fn billing(scene: &Scene) -> Tenant {
    let office = Tenant::create(BILLING, false).await;
    office
        .apply(&json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": BILLING, "namespace": BILLING}}))
        .await;
    let client = scene.tenant.client_as(BILLING, BILLING).await;
    Tenant { namespace: scene.tenant.namespace.clone(), client }
}

async fn order(scene: &Scene, billing: &Tenant, (kind, name): Bot) {
    let bot = json!({"apiVersion": "ems.element.io/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": billing.namespace, "annotations": {REASON: "order 1"}},
        "spec": {"homeserver": {"serverName": scene.synapse.server_name, "url": scene.synapse.pod_url,
            "publicURL": scene.synapse.pod_public_url, "plan": "Gold"}}});
    billing.apply(&bot).await;
}

/// What waits for its trail is tried again after up to two minutes.
async fn requested_by_anybody(trail: &Trail, action: &str) -> Value {
    eventually(&format!("record of {action}"), Duration::from_mins(3), || async {
        trail.search(&["--action", action]).into_iter().next().ok_or_else(|| "none".to_owned())
    })
    .await
}

async fn gone(tenant: &Tenant, (kind, name): Bot) {
    let bots = tenant.bots(kind);
    eventually(&format!("the end of {name}"), Duration::from_mins(3), || async {
        match bots.get_opt(name).await.unwrap() {
            None => Ok(()),
            Some(bot) => Err(format!("{:?} {}", bot.metadata.finalizers, bot.data["status"]["conditions"])),
        }
    })
    .await;
}

/// The record of a request of billing's, with all that belongs to it.
async fn requested(trail: &Trail, action: &str) -> Value {
    let record = requested_by_anybody(trail, action).await;
    assert_eq!(actor(&record), USER);
    let groups = record["actor"]["groups"].as_array().expect("groups of the user");
    assert!(groups.contains(&json!("system:serviceaccounts:billing")), "{groups:?}");
    let proven = record["relations"]
        .as_array()
        .unwrap()
        .iter()
        .any(|one| one["kind"] == "request" && one["role"] == "self");
    assert!(proven, "the API server proved itself: {record:#}");
    let category = if action.starts_with("billing.") { "admin_operation" } else { "resource_change" };
    assert_eq!(record["category"], category);
    record
}

/// What was asked for took effect: another record names the same change.
async fn is_applied(trail: &Trail, requested: &Value) {
    let change =
        requested["relations"].as_array().unwrap().iter().find(|one| one["kind"] == "change").cloned();
    let id = change.expect("the change is named")["id"].as_str().unwrap().to_owned();
    let applied = "bot.change.applied";
    let fits = |record: &Value| relates(record, "change", &id, "applied");
    trail.wait_for(&["--action", applied], applied, fits).await;
}

async fn changes(scene: &Scene, billing: &Tenant, trail: &Trail, (kind, name): Bot) {
    println!("-- {kind}: plan, suspension, resumption");
    let bots = billing.bots(kind);
    let patch = async |patch: Value| {
        bots.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    };
    patch(json!({"spec": {"homeserver": {"plan": "Platinum"}}, "metadata": {"annotations": {REASON: "upgrade"}}})).await;
    let plan = requested(trail, "billing.plan_change.requested").await;
    assert_eq!(change(&plan, "/spec/homeserver/plan"), Some((json!("Gold"), json!("Platinum"))));
    assert_eq!(plan["context"]["reason"], "upgrade");
    is_applied(trail, &plan).await;
    patch(json!({"spec": {"suspend": true}})).await;
    let suspended = requested(trail, "billing.suspension.requested").await;
    assert_eq!(suspended["context"]["reason"], Value::Null, "that of the change before does not count");
    is_applied(trail, &suspended).await;
    scene.tenant.wait_condition(kind, name, "Suspended", "True", "").await;
    patch(json!({"spec": {"suspend": false}})).await;
    let resumed = requested(trail, "billing.resumption.requested").await;
    is_applied(trail, &resumed).await;
    scene.tenant.wait_ready(kind, name).await;
}

async fn removal(scene: &Scene, billing: &Tenant, trail: &Trail, bot: Bot) {
    println!("-- {}: the removal", bot.0);
    billing.bots(bot.0).delete(bot.1, &DeleteParams::default()).await.unwrap();
    let removed = requested(trail, "billing.removal.requested").await;
    is_applied(trail, &removed).await;
    gone(&scene.tenant, bot).await;
}

async fn reads(scene: &Scene, billing: &Tenant, trail: &Trail) {
    println!("-- a Secret is read, and refused to billing");
    for _ in 0..5 {
        let refused = billing.api::<Secret>().get("auditbot-backup-phrase").await.unwrap_err();
        assert!(matches!(&refused, kube::Error::Api(status) if status.code == 403), "{refused}");
    }
    let (read, said) = scene.tenant.kubectl(&["get", "secret", "auditbot-backup-phrase"]);
    assert!(read, "{said}");
    let secret = format!("{}/auditbot-backup-phrase", scene.tenant.namespace);
    let fits = |record: &Value| {
        relates(record, "secret", &secret, "target") && record["context"]["user_agent"].is_string()
    };
    let record = trail.wait_for(&["--action", "secret.read"], "a read Secret", fits).await;
    assert_eq!(actor(&record), PERSON);
    assert!(record["context"]["user_agent"].as_str().unwrap().starts_with("kubectl/"), "{record:#}");
    trail.wait_for(&["--action", "secret.read", "--actor", USER], "a refusal", |_| true).await;
    let refused = trail.search(&["--action", "secret.read", "--actor", USER, "--limit", "100"]);
    let hours: BTreeSet<&str> = refused.iter().filter_map(|record| record["occurred_at"].as_str()).collect();
    assert!(!refused.is_empty() && refused.len() == hours.len(), "once an hour: {refused:#?}");
    a_thief_is_seen(scene, trail).await;
}

/// Whatever runs beside the bot can mount its Secrets.
async fn a_thief_is_seen(scene: &Scene, trail: &Trail) {
    println!("-- a workload is to mount the phrase");
    let namespace = &scene.tenant.namespace;
    let container = json!({"name": "c", "image": "i", "env": [{"name": "TOKEN", "value": "a-literal-secret"}],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let pod = json!({"containers": [container],
        "volumes": [{"name": "v", "secret": {"secretName": "auditbot-backup-phrase"}}]});
    scene
        .tenant
        .apply(&json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "thief", "namespace": namespace},
            "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "thief"}},
                "template": {"metadata": {"labels": {"app": "thief"}}, "spec": pod}}}))
        .await;
    let workload = format!("{namespace}/thief");
    let fits = |record: &Value| relates(record, "workload", &workload, "target");
    let record = trail.wait_for(&["--action", "workload.changed"], "a workload", fits).await.to_string();
    assert!(record.contains("auditbot-backup-phrase"), "what it mounts: {record}");
    assert!(!record.contains("a-literal-secret"), "{record}");
}

/// What operator, console, worker and Kubernetes do by rule is no record. What is about all bots is left out: other
/// tests may be about them, too.
async fn silence(scene: &Scene, trail: &Trail) {
    println!("-- a minute of silence");
    let newest = || count(&scene.database.name, "SELECT max(seq) FROM auditbot.envelope");
    // What belongs to the last change has to be there before.
    eventually("a trail that stays as it is", Duration::from_mins(3), || async {
        let before = newest();
        tokio::time::sleep(Duration::from_secs(10)).await;
        let after = newest();
        if before == after { Ok(()) } else { Err(format!("{before}, then {after}")) }
    })
    .await;
    let before = newest();
    tokio::time::sleep(Duration::from_mins(1)).await;
    let mut new = trail.search(&["--limit", "1000"]);
    let bot = format!("AuditBot/{}/auditbot", scene.tenant.namespace);
    let is_ours = |record: &Value| {
        relates(record, "bot", &bot, "target") || relates(record, "namespace", &scene.tenant.namespace, "in")
    };
    new.retain(|record| {
        record["seq"].as_i64() > Some(before) && record["action"] != "worker.heartbeat" && is_ours(record)
    });
    assert!(new.is_empty(), "{new:#?}");
}
