//! When nothing changes, nothing is written: the API server's audit log says so.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;

use crate::support::{
    Scene, eventually,
    writes::{Writes, writes_within},
};

/// The window that is watched.
const WINDOW: Duration = Duration::from_mins(1);
/// How many there are at most until one is silent.
const WINDOWS: usize = 3;
/// A worker reports numbers that move at most once a minute.
const HEARTBEATS: u64 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_idle_bots_cost_no_writes() {
    let mut scene = Scene::set("idle", &["alice"]).await;
    let from_the_start = Writes::from_now();
    scene.bots(&[("AdminBot", "adminbot", json!({})), ("AuditBot", "auditbot", json!({}))]).await;
    let room = scene.room("alice", &[], &["adminbot", "auditbot"], json!({}));
    scene.client.send("alice", &room, "the last words");
    scene.trail("auditbot").await.wait_for_text("the last words").await;
    println!("-- until the numbers of the last words are reported");
    eventually("a status that stays as it is", Duration::from_mins(3), || async {
        let versions = || async {
            let mut all = Vec::new();
            for (kind, name) in [("AdminBot", "adminbot"), ("AuditBot", "auditbot")] {
                all.push(scene.tenant.bots(kind).get(name).await.unwrap().metadata.resource_version);
            }
            all
        };
        let covered = scene.tenant.status("AuditBot", "auditbot").await["rooms"]["covered"] == json!(1);
        let before = versions().await;
        let quiet = writes_within(&scene.tenant, Duration::from_secs(10)).await;
        if covered && before == versions().await && quiet.is_empty() {
            Ok(())
        } else {
            Err(format!("{quiet:?}"))
        }
    })
    .await;
    let made = from_the_start.of(&scene.tenant);
    for what in ["ems-bots-operator patch services/", "auditbot-worker patch auditbots/status"] {
        assert!(made.contains_key(what), "what was made is in the log: {made:?}");
    }
    println!("-- {WINDOW:?} of silence");
    // Where other tests share the machine, something may really change for a moment: a homeserver that answers late
    // is a statement of its own. Whoever writes without a reason writes in every one of them.
    let mut seen = Vec::new();
    while !seen.last().is_some_and(is_silent) {
        assert!(seen.len() < WINDOWS, "nobody writes anything but a heartbeat: {seen:?}");
        seen.push(writes_within(&scene.tenant, WINDOW).await);
        println!("   written: {:?}", seen.last());
    }
    scene.end().await;
}

/// Nothing but a heartbeat of each worker, and the operator's copy of the point of the trail that it reports.
fn is_silent(written: &BTreeMap<String, u64>) -> bool {
    let count =
        |what: &str| written.iter().filter(|(name, _)| name.ends_with(what)).map(|(_, n)| n).sum::<u64>();
    let (heartbeats, copies) = (count("bots/status"), count("ems-bots-operator patch configmaps/"));
    written.values().sum::<u64>() == heartbeats + copies && copies <= heartbeats && heartbeats <= HEARTBEATS
}
