//! When nothing changes, nothing is written: the API server's audit log says so.

use std::time::Duration;

use serde_json::json;

use crate::support::{
    Scene, eventually,
    writes::{Writes, writes_within},
};

/// The window that is watched.
const WINDOW: Duration = Duration::from_mins(1);
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
    let written = writes_within(&scene.tenant, WINDOW).await;
    println!("   written: {written:?}");
    let heartbeats: u64 =
        written.iter().filter(|(what, _)| what.ends_with("bots/status")).map(|(_, n)| n).sum();
    let all: u64 = written.values().sum();
    assert_eq!(all - heartbeats, 0, "nobody writes anything but a heartbeat: {written:?}");
    assert!(heartbeats <= HEARTBEATS, "at most one heartbeat a worker and minute: {written:?}");
    scene.end().await;
}
