//! What people can do to a bot's cryptographic identity while it runs. Nothing that is held is
//! lost, nothing is made anew without being asked, and the way back stands in the condition.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use crate::support::{Scene, eventually, leaks, scene::devices};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_breaks_the_identity_is_told_the_way_back() {
    let mut scene = Scene::set("identity", &["alice"]).await;
    let other = |name: &str| json!({"username": name, "database": {"schema": name}});
    scene
        .bots(&[
            ("AuditBot", "auditbot", json!({})),
            ("AuditBot", "reset", other("reset")),
            ("AuditBot", "nobackup", other("nobackup")),
            ("AuditBot", "nodevice", other("nodevice")),
        ])
        .await;
    let bots = ["auditbot", "reset", "nobackup", "nodevice"];
    let room = scene.room("alice", &[], &bots, json!({"encrypted": true}));
    scene.client.send("alice", &room, "held by everybody");
    for (name, base) in
        [("auditbot", "auditbot"), ("reset", "auditbot-reset"), ("nobackup", "auditbot-nobackup")]
    {
        let trail = crate::support::Trail::of(&scene.tenant, &scene.database, base, name).await;
        trail.wait_for_text("held by everybody").await;
    }
    the_phrase_secret_is_deleted(&scene).await;
    somebody_resets_the_identity(&mut scene, &room).await;
    somebody_deletes_the_backup(&mut scene).await;
    somebody_removes_the_device(&mut scene, &room).await;
    leaks::assert_no_secret_shows(&scene.tenant, &[]).await;
    scene.end().await;
}

async fn the_phrase_secret_is_deleted(scene: &Scene) {
    println!("-- the phrase Secret is deleted");
    let secrets = scene.tenant.api::<Secret>();
    let kept = secrets.get("auditbot-backup-phrase").await.unwrap();
    secrets.delete("auditbot-backup-phrase", &DeleteParams::default()).await.unwrap();
    let words = &["auditbot-backup-phrase", "restore"];
    let (reason, message) = scene.tenant.wait_says("AuditBot", "auditbot", "Ready", "False", words).await;
    println!("   {reason}: {message}");
    assert!(secrets.get_opt("auditbot-backup-phrase").await.unwrap().is_none(), "no second phrase is made");
    println!("-- an altered one is noticed");
    let mut altered = restored(&kept);
    altered
        .data
        .as_mut()
        .unwrap()
        .insert("phrase".to_owned(), k8s_openapi::ByteString(b"another phrase".to_vec()));
    secrets.create(&PostParams::default(), &altered).await.unwrap();
    scene
        .tenant
        .wait_says("AuditBot", "auditbot", "Ready", "False", &["auditbot-backup-phrase", "another phrase"])
        .await;
    println!("-- and the right one put back");
    secrets.delete("auditbot-backup-phrase", &DeleteParams::default()).await.unwrap();
    secrets.create(&PostParams::default(), &restored(&kept)).await.unwrap();
    scene.tenant.wait_ready("AuditBot", "auditbot").await;
}

fn restored(kept: &Secret) -> Secret {
    let mut secret = kept.clone();
    secret.metadata = kube::core::ObjectMeta {
        name: kept.metadata.name.clone(),
        labels: kept.metadata.labels.clone(),
        annotations: kept.metadata.annotations.clone(),
        ..kube::core::ObjectMeta::default()
    };
    secret
}

/// Signs in as a bot, as a person with account and phrase can.
async fn sign_in(scene: &mut Scene, bot: &str) -> (String, String) {
    let base = format!("auditbot-{bot}");
    let account = scene.tenant.secret_data(&format!("{base}-account")).await.unwrap();
    let phrase = scene.tenant.secret_data(&format!("{base}-backup-phrase")).await.unwrap()["phrase"].clone();
    let session = format!("{bot}-person");
    scene.client.recover_as_bot(&session, &scene.synapse, &account, &phrase);
    (session, account["password"].clone())
}

/// Lets a bot make its identity anew. Ready follows `EncryptionReady`, so it alone can be of before.
async fn repair(scene: &Scene, bot: &str) {
    scene.tenant.annotate("AuditBot", bot, "ems.element.io/repair-encryption", Some("yes-1")).await;
    scene.tenant.wait_says("AuditBot", bot, "EncryptionReady", "True", &[]).await;
    scene.tenant.wait_ready("AuditBot", bot).await;
}

async fn somebody_resets_the_identity(scene: &mut Scene, room: &str) {
    println!("-- somebody signed in as the bot resets its identity");
    let (session, password) = sign_in(scene, "reset").await;
    scene.client.call(
        "resetIdentity",
        json!({"user": session, "password": password, "phrase": "a phrase of somebody's own"}),
    );
    let words = &["ems.element.io/repair-encryption"];
    let (reason, message) =
        scene.tenant.wait_says("AuditBot", "reset", "EncryptionReady", "False", words).await;
    println!("   {reason}: {message}");
    let phrase = scene.tenant.secret_data("auditbot-reset-backup-phrase").await.unwrap();
    scene.client.call("logout", json!({"user": session}));
    let trail = crate::support::Trail::of(&scene.tenant, &scene.database, "auditbot-reset", "reset").await;
    assert_eq!(trail.count_text("held by everybody"), 1, "nothing that was held is lost");
    println!("-- and a person decides to let the bot make its identity anew");
    repair(scene, "reset").await;
    assert_eq!(scene.tenant.secret_data("auditbot-reset-backup-phrase").await.unwrap(), phrase);
    let approve = json!({"user": "alice", "target": scene.user_id("reset")});
    scene.client.call("approveIdentity", approve);
    scene.client.send("alice", room, "after the repair");
    trail.wait_for_text("after the repair").await;
    let (again, _) = sign_in(scene, "reset").await;
    scene.client.call("waitForBackup", json!({"user": again, "count": 1, "timeoutMs": 30_000}));
    let (bodies, _) = scene.client.read_room(&again, room);
    for text in ["held by everybody", "after the repair"] {
        assert!(bodies.iter().any(|body| body == text), "the phrase opens {text:?} again: {bodies:?}");
    }
    scene.client.call("logout", json!({"user": again}));
}

async fn somebody_deletes_the_backup(scene: &mut Scene) {
    println!("-- somebody deletes the key backup");
    let (session, _) = sign_in(scene, "nobackup").await;
    scene.client.call("deleteBackup", json!({"user": session}));
    let (reason, message) = scene
        .tenant
        .wait_says(
            "AuditBot",
            "nobackup",
            "EncryptionReady",
            "False",
            &["backup", "ems.element.io/repair-encryption"],
        )
        .await;
    println!("   {reason}: {message}");
    repair(scene, "nobackup").await;
    scene.client.call("logout", json!({"user": session}));
    let (again, _) = sign_in(scene, "nobackup").await;
    scene.client.call("waitForBackup", json!({"user": again, "count": 1, "timeoutMs": 30_000}));
    scene.client.call("logout", json!({"user": again}));
}

async fn somebody_removes_the_device(scene: &mut Scene, room: &str) {
    println!("-- somebody removes the worker's device");
    let status = scene.tenant.status("AuditBot", "nodevice").await;
    let device = status["deviceID"].as_str().unwrap().to_owned();
    let (session, password) = sign_in(scene, "nodevice").await;
    let remove = json!({"user": session, "device": device, "password": password});
    scene.client.call("deleteDevice", remove);
    scene.client.call("logout", json!({"user": session}));
    let (reason, message) =
        scene.tenant.wait_says("AuditBot", "nodevice", "EncryptionReady", "False", &["device", "pod"]).await;
    println!("   {reason}: {message}");
    let trail =
        crate::support::Trail::of(&scene.tenant, &scene.database, "auditbot-nodevice", "nodevice").await;
    assert_eq!(trail.count_text("held by everybody"), 1, "nothing that was held is lost");
    println!("-- the condition's advice: delete the pod, and it signs in on a new device");
    scene.tenant.kill_worker("auditbot-nodevice").await;
    scene.tenant.wait_ready("AuditBot", "nodevice").await;
    let user = scene.user_id("nodevice");
    eventually("one device", Duration::from_mins(1), || async {
        let seen = devices(&scene.synapse, &user).await;
        if seen.len() == 1 && seen[0] != device { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    scene.client.send("alice", room, "to the new device");
    trail.wait_for_text("to the new device").await;
    assert_eq!(trail.count_text("held by everybody"), 1);
}
