//! Failure policy `Fail`: what has to be possible while a database or the console is away, and what of it is recorded.

use ems_bots::domain::{Clock as _, SystemClock};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;

use super::*;
use crate::support::{
    Link,
    console::{self, Strict, waits},
    services::dev,
    unique,
};

/// A bot that was asked for before the way to its database was mended, and recorded after that.
fn assert_late(record: &Value, mended: Timestamp) {
    let time = |key: &str| record[key].as_str().unwrap().parse::<Timestamp>().unwrap();
    let (occurred, recorded) = (time("occurred_at"), time("recorded_at"));
    assert!(occurred < mended && mended < recorded, "{occurred} {mended} {recorded}: {record:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_billing_asks_for_while_the_database_is_away_is_recorded_later() {
    let scene = Scene::set("away", &[]).await;
    let link = Link::to(&scene.database).await;
    scene.tenant.secret("ems-bots-database", &link.secret, &json!({})).await;
    let (billing, _strict) = (billing(&scene).await, Strict::set());
    println!("-- the order, while the database is away");
    link.cut();
    order(&scene, &billing, AUDIT).await;
    assert!(waits(&scene.tenant, "bot.creation.requested"), "for its trail");
    scene.tenant.wait_condition("AuditBot", "auditbot", "AccountReady", "True", "").await;
    let mended = SystemClock.now();
    link.mend();
    scene.tenant.wait_ready("AuditBot", "auditbot").await;
    let trail = scene.trail("auditbot").await;
    let ordered = requested(&trail, "bot.creation.requested").await;
    assert_late(&ordered, mended);
    is_applied(&trail, &ordered).await;
    suspension_and_removal(&scene, &billing, &link, &trail).await;
    scene.end().await;
}

async fn suspension_and_removal(scene: &Scene, billing: &Tenant, link: &Link, trail: &Trail) {
    println!("-- suspension and removal, while the database is away");
    link.cut();
    let bots = billing.bots("AuditBot");
    let suspend =
        Patch::Merge(json!({"spec": {"suspend": true}, "metadata": {"annotations": {REASON: "unpaid"}}}));
    bots.patch("auditbot", &PatchParams::default(), &suspend).await.expect("it waits for no database");
    assert!(waits(&scene.tenant, "billing.suspension.requested"), "for the trail");
    bots.delete("auditbot", &DeleteParams::default()).await.expect("it waits for no database either");
    assert!(waits(&scene.tenant, "billing.removal.requested"), "so does the removal");
    let leaving = bots.get("auditbot").await.unwrap();
    assert!(leaving.metadata.deletion_timestamp.is_some(), "its trail has to be closed first");
    assert_eq!(trail.search(&["--action", "billing."]), [] as [Value; 0], "nothing of it is recorded yet");
    let mended = SystemClock.now();
    link.mend();
    gone(&scene.tenant, AUDIT).await;
    let suspension = requested(trail, "billing.suspension.requested").await;
    assert_eq!(suspension["context"]["reason"], "unpaid");
    let removal = requested(trail, "billing.removal.requested").await;
    let deleted = requested_by_anybody(trail, "bot.deleted").await;
    for request in [&suspension, &removal] {
        assert_late(request, mended);
        assert!(request["seq"].as_i64() < deleted["seq"].as_i64(), "{request:#} {deleted:#}");
    }
    is_applied(trail, &removal).await;
    let last = count(&scene.database.name, "SELECT max(seq) FROM auditbot.envelope");
    assert_eq!(deleted["seq"].as_i64(), Some(last), "a closed trail takes nothing more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_console_nobody_changes_a_bot_and_what_was_asked_for_goes_on() {
    let scene = Scene::set("noconsole", &[]).await;
    let (client, strict) = (scene.tenant.client.clone(), Strict::set());
    scene.audit_bot().await;
    let (trail, other) = (scene.trail("auditbot").await, second_tenant(&scene).await);
    // In the foreground the worker goes first: what is to be in its trail must be able to reach its inbox at once.
    requested_by_anybody(&trail, "bot.creation.requested").await;
    println!("-- the removal, while the homeserver is away: the finalizers stay");
    scene.synapse.stop();
    scene.tenant.bots("AuditBot").delete("auditbot", &DeleteParams::foreground()).await.unwrap();
    requested_by_anybody(&trail, "billing.removal.requested").await;
    println!("-- the console is away, too");
    console::scale(&client, 0).await;
    nobody_changes_a_bot(&other).await;
    println!("-- the homeserver is back: the operator's and the garbage collector's finalizers go");
    assert!(scene.tenant.bots("AuditBot").get_opt("auditbot").await.unwrap().is_some());
    dev(&["synapse", "up", &scene.synapse.name], None);
    gone(&scene.tenant, AUDIT).await;
    println!("-- the operator may work for the other bot, and writes to it");
    other.opt_in().await;
    other.wait_condition("AuditBot", "second", "AccountReady", "True", "").await;
    let finalizers = other.bots("AuditBot").get("second").await.unwrap().metadata.finalizers;
    assert!(finalizers.is_some_and(|finalizers| !finalizers.is_empty()), "it has to be taken back");
    other.wait_condition("AuditBot", "second", "DatabaseReady", "False", "").await;
    println!("-- the wrong Secret of its database is corrected");
    other.secret("ems-bots-database", &scene.database.secret, &json!({})).await;
    other.wait_ready("AuditBot", "second").await;
    println!("-- the console is back");
    let back = SystemClock.now();
    console::scale(&client, 2).await;
    let trail = Trail::of(&other, &scene.database, "auditbot-second", "second").await;
    let ordered = requested_by_anybody(&trail, "bot.creation.requested").await;
    assert_late(&ordered, back);
    is_applied(&trail, &ordered).await;
    drop(strict);
    other.remove().await;
    scene.end().await;
}

/// A tenant that did not opt in, with the order of a bot and a Secret of its database that leads nowhere.
async fn second_tenant(scene: &Scene) -> Tenant {
    let other = Tenant::create(&unique("noconsole-other"), false).await;
    other.give_secrets(&scene.synapse, &scene.database).await;
    let mut wrong = scene.database.secret.clone();
    wrong["port"] = json!("9");
    other.secret("ems-bots-database", &wrong, &json!({})).await;
    let spec = json!({"username": "second", "database": {"schema": "second"}});
    other.bot("AuditBot", "second", &scene.synapse, spec).await;
    assert!(other.api::<Secret>().get_opt("auditbot-second-account").await.unwrap().is_none());
    other
}

async fn nobody_changes_a_bot(tenant: &Tenant) {
    let bots = tenant.bots("AuditBot");
    let named = Patch::Merge(json!({"spec": {"displayName": "Unseen"}}));
    let changed = bots.patch("second", &PatchParams::default(), &named).await.map(drop);
    let removed = bots.delete("second", &DeleteParams::default()).await.map(drop);
    for refused in [changed, removed] {
        let error = refused.expect_err("nobody could record it").to_string();
        assert!(error.contains("bots.ems.element.io"), "{error}");
    }
    let bot = bots.get("second").await.unwrap();
    assert!(bot.metadata.deletion_timestamp.is_none() && bot.data["spec"]["displayName"] != "Unseen");
}
