//! The console is replaced, or taken out with the whole chart, while failure policy `Fail` holds.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::*;
use crate::{
    install::{RELEASE, helm, install},
    support::{
        console::{self, Strict},
        tenant::{kubectl_in, system_namespace},
    },
};

/// Between two changes of a bot.
const PACE: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_upgrade_of_the_console_refuses_nothing_and_misses_nothing() {
    let scene = Scene::set("upgrade", &[]).await;
    scene.audit_bot().await;
    let (trail, billing, strict) = (scene.trail("auditbot").await, billing(&scene).await, Strict::set());
    let old = console::pods(&scene.tenant.client).await;
    let (bots, ends) = (billing.bots("AuditBot"), Arc::new(AtomicBool::new(false)));
    let until = ends.clone();
    println!("-- billing changes the bot again and again");
    let changes = tokio::spawn(async move {
        let (mut pace, mut reasons) = (tokio::time::interval(PACE), Vec::new());
        while !until.load(Ordering::Relaxed) {
            pace.tick().await;
            let reason = format!("reason {}", reasons.len());
            let patch = Patch::Merge(json!({"metadata": {"annotations": {REASON: reason}}}));
            bots.patch("auditbot", &PatchParams::default(), &patch)
                .await
                .unwrap_or_else(|error| panic!("{reason}: {error}"));
            reasons.push(reason);
        }
        reasons
    });
    println!("-- the console is replaced");
    tokio::task::spawn_blocking(console::restart).await.unwrap();
    console::wait(&scene.tenant.client, 2).await;
    ends.store(true, Ordering::Relaxed);
    let asked: BTreeSet<String> = changes.await.unwrap().into_iter().collect();
    for pod in console::pods(&scene.tenant.client).await {
        assert!(old.iter().all(|old| old.metadata.uid != pod.metadata.uid), "all of it is new");
    }
    println!("   {} changes", asked.len());
    assert!(asked.len() > 20, "{asked:?}");
    eventually("a record of each", Duration::from_mins(2), || async {
        let records = trail.search(&["--action", "bot.change.requested", "--limit", "10000"]);
        let reason = |record: &Value| Some(record["context"]["reason"].as_str()?.to_owned());
        let recorded: BTreeSet<String> = records.iter().filter_map(reason).collect();
        let missing: Vec<_> = asked.difference(&recorded).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} are missing")) }
    })
    .await;
    drop(strict);
    scene.end().await;
}

/// What the API server has to trust.
fn authority() -> String {
    let words = ["get", "secret", "ems-bots-console-tls", "--output", "jsonpath={.data.ca\\.crt}"];
    let (there, said) = kubectl_in(&system_namespace(), &words);
    assert!(there && !said.is_empty(), "{said}");
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chart_goes_without_a_console_and_its_certificate_comes_back() {
    let scene = Scene::set("takenout", &[]).await;
    scene.audit_bot().await;
    let (trail, authority_before) = (scene.trail("auditbot").await, authority());
    let strict = Strict::set();
    console::scale(&scene.tenant.client, 0).await;
    println!("-- helm uninstall");
    let values = helm(&["get", "values", RELEASE, "--output", "json"]);
    helm(&["uninstall", RELEASE, "--wait"]);
    let unseen = json!({"spec": {"displayName": "Nobody is asked"}});
    scene.tenant.patch_bot("AuditBot", "auditbot", unseen).await;
    println!("-- helm install");
    install(&scene, &values).await;
    assert_eq!(authority(), authority_before, "whoever trusts it still does");
    drop(strict);
    // The first of them tell when the API server knows the webhook again.
    let record = eventually("a change that is recorded", Duration::from_mins(2), || async {
        let uid = crate::support::unique("Name");
        scene.tenant.patch_bot("AuditBot", "auditbot", json!({"spec": {"displayName": uid}})).await;
        let records = trail.search(&["--action", "bot.change.requested"]);
        records.into_iter().next().ok_or_else(|| "none".to_owned())
    })
    .await;
    let request = record["relations"].as_array().unwrap().iter().find(|one| one["kind"] == "request");
    assert_eq!(request.unwrap()["role"], "self", "the API server proves itself: {record:#}");
    println!("-- audit events arrive, too");
    eventually("a read that is recorded", Duration::from_mins(2), || async {
        assert!(scene.tenant.kubectl(&["get", "secret", "auditbot-account"]).0);
        let records = trail.search(&["--action", "secret.read"]);
        if records.is_empty() { Err("none".to_owned()) } else { Ok(()) }
    })
    .await;
    scene.end().await;
}
