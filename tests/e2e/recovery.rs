//! What survives: an independent client with only the phrase, the restart of every pod, the loss
//! of the volume.

use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use serde_json::{Value, json};

use crate::support::{Scene, Trail, actions, eventually, scene::devices, sql::count};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_with_a_pod_or_a_volume_and_the_phrase_opens_everything() {
    let mut scene = Scene::set("recover", &["alice", "bob"]).await;
    scene.bots(&[("AdminBot", "adminbot", json!({})), ("AuditBot", "auditbot", json!({}))]).await;
    let bots = ["adminbot", "auditbot"];
    let room = scene.room("alice", &["bob"], &bots, json!({"encrypted": true, "name": "Board"}));
    let trail = scene.trail("auditbot").await;
    for number in 0..3 {
        scene.client.send("alice", &room, &format!("before number{number}"));
    }
    trail.wait_for_text("before number2").await;

    every_pod_restarts(&mut scene, &trail, &room).await;
    for bot in ["adminbot", "auditbot"] {
        the_phrase_alone_opens_old_messages(&mut scene, bot, &room).await;
    }
    the_volume_is_lost(&mut scene, &trail, &room).await;
    the_phrase_alone_opens_old_messages(&mut scene, "auditbot", &room).await;
    scene.end().await;
}

async fn every_pod_restarts(scene: &mut Scene, trail: &Trail, room: &str) {
    println!("-- every pod is killed while people talk");
    let mut old = Vec::new();
    for base in ["adminbot", "auditbot"] {
        old.push((base, actions::uid(&scene.tenant.worker(base).await.unwrap())));
    }
    let phrases = phrase_versions(scene).await;
    scene.client.send("alice", room, "during number0");
    actions::kill_operator(&scene.tenant.client).await;
    for (base, _) in &old {
        scene.tenant.kill_worker(base).await;
    }
    for number in 1..6 {
        scene.client.send(
            if number % 2 == 0 { "alice" } else { "bob" },
            room,
            &format!("during number{number}"),
        );
    }
    // Once more while it catches up.
    scene.tenant.wait_new_worker("auditbot", &old[1].1).await;
    scene.tenant.kill_worker("auditbot").await;
    scene.client.send("bob", room, "during number6");
    actions::wait_operator(&scene.tenant.client).await;
    for (kind, name) in [("AdminBot", "adminbot"), ("AuditBot", "auditbot")] {
        wait_ready_again(scene, kind, name).await;
    }
    for number in 0..3 {
        scene.client.send("bob", room, &format!("after number{number}"));
    }
    trail.wait_for_text("after number2").await;
    let sent = (0..3).map(|n| format!("before number{n}"));
    let sent = sent.chain((0..7).map(|n| format!("during number{n}")));
    for text in sent.chain((0..3).map(|n| format!("after number{n}"))) {
        trail.wait_for_text(&text).await;
        assert_eq!(trail.count_text(&text), 1, "{text:?} is recorded exactly once");
    }
    let dense = "SELECT (count(*) = max(seq))::int FROM auditbot.envelope";
    assert_eq!(count(&scene.database.name, dense), 1, "numbers are dense");
    let unreadable = "SELECT count(*) FROM auditbot.pending";
    assert_eq!(count(&scene.database.name, unreadable), 0, "no event waits for its key");
    assert_eq!(phrases, phrase_versions(scene).await, "no Secret was made anew");
}

/// Waits until the worker's own conditions count again after its restart.
async fn wait_ready_again(scene: &Scene, kind: &str, name: &str) {
    eventually(&format!("{name}'s pod"), Duration::from_mins(2), || async {
        match scene.tenant.worker(name).await {
            Some(pod) if actions::is_ready(&pod) => Ok(()),
            _ => Err("not ready".to_owned()),
        }
    })
    .await;
    scene.tenant.wait_ready(kind, name).await;
}

async fn phrase_versions(scene: &Scene) -> Vec<Option<String>> {
    let mut versions = Vec::new();
    for name in ["adminbot-backup-phrase", "auditbot-backup-phrase", "adminbot-account", "auditbot-account"] {
        versions.push(scene.tenant.api::<Secret>().get(name).await.unwrap().metadata.resource_version);
    }
    versions
}

/// A person who signs in as the bot and types the phrase reads what the bot can read. The worker
/// is away meanwhile: it might hand over keys and hide a broken backup.
async fn the_phrase_alone_opens_old_messages(scene: &mut Scene, bot: &str, room: &str) {
    println!("-- {bot}: another client, with the phrase alone, while the worker is away");
    let kind = if bot == "adminbot" { "AdminBot" } else { "AuditBot" };
    let tenant = &scene.tenant;
    let secret = tenant.secret_data(&format!("{bot}-account")).await.unwrap();
    let phrase = tenant.secret_data(&format!("{bot}-backup-phrase")).await.unwrap()["phrase"].clone();
    tenant.annotate(kind, bot, "ems.element.io/paused", Some("true")).await;
    tenant.wait_condition(kind, bot, "Paused", "True", "").await;
    let set = format!("statefulset/{bot}-worker");
    let (ok, text) = tenant.kubectl(&["scale", &set, "--replicas", "0"]);
    assert!(ok, "{text}");
    eventually("the worker is away", Duration::from_mins(1), || async {
        if tenant.worker(bot).await.is_none() { Ok(()) } else { Err("it runs".to_owned()) }
    })
    .await;
    let session = format!("{bot}-person");
    let opened = scene.client.recover_as_bot(&session, &scene.synapse, &secret, &phrase);
    assert_eq!(opened["backupTrusted"], true, "{opened}");
    assert_eq!(opened["crossSigned"], true, "{opened}");
    let (bodies, failures) = scene.client.read_room(&session, room);
    assert_eq!(failures, 0, "everything is readable: {bodies:?}");
    for text in ["before number0", "during number3", "after number2"] {
        assert!(bodies.iter().any(|body| body == text), "{text:?} is among {bodies:?}");
    }
    assert_eq!(scene.tenant.worker(bot).await.map(|_| ()), None, "a paused bot is left alone");
    scene.client.call("logout", json!({"user": session}));
    scene.tenant.annotate(kind, bot, "ems.element.io/paused", None).await;
    wait_ready_again(scene, kind, bot).await;
    scene.tenant.wait_condition(kind, bot, "Paused", "False", "").await;
    let wrong = scene.client.try_call(
        "recoverWithPhrase",
        json!({"user": secret["username"], "session": "wrong", "password": secret["password"],
            "homeserver": scene.synapse.host_public_url, "phrase": format!("{phrase}x")}),
    );
    assert!(wrong.is_err(), "another phrase opens nothing");
}

async fn the_volume_is_lost(scene: &mut Scene, trail: &Trail, room: &str) {
    println!("-- the volume is lost");
    let user = scene.user_id("auditbot");
    let before = scene.tenant.status("AuditBot", "auditbot").await;
    let device = before["deviceID"].as_str().unwrap().to_owned();
    let phrases = phrase_versions(scene).await;
    let identity = master_key(scene, &user).await;
    let backup = backup_version(scene).await;
    let old_pod = actions::uid(&scene.tenant.worker("auditbot").await.unwrap());
    let claim = scene.tenant.api::<PersistentVolumeClaim>().get("auditbot-worker-data").await.unwrap();
    scene.tenant.lose_volume("auditbot").await;
    scene.tenant.wait_new_worker("auditbot", &old_pod).await;
    let now = eventually("another device in the status", Duration::from_mins(2), || async {
        let status = scene.tenant.status("AuditBot", "auditbot").await;
        let seen = status["deviceID"].as_str().unwrap_or_default().to_owned();
        if !seen.is_empty() && seen != device {
            Ok(seen)
        } else {
            Err(format!("{seen} {}", status["conditions"]))
        }
    })
    .await;
    scene.tenant.wait_ready("AuditBot", "auditbot").await;
    let new_claim = scene.tenant.api::<PersistentVolumeClaim>().get("auditbot-worker-data").await.unwrap();
    assert_ne!(claim.metadata.uid, new_claim.metadata.uid);
    assert_eq!(devices(&scene.synapse, &user).await, [now.as_str()], "the old device {device} is gone");
    assert_eq!(master_key(scene, &user).await, identity, "the identity is the same");
    assert_eq!(backup_version(scene).await, backup, "the key backup is the same");
    assert_eq!(phrases, phrase_versions(scene).await, "no Secret was made anew");
    let trust = scene.client.call("trust", json!({"user": "alice", "target": user}));
    assert_eq!(trust["devices"][&now]["signedByOwner"], true, "{trust}");
    assert_eq!(trust["needsApproval"], false, "nobody is asked to approve anything: {trust}");
    scene.client.send("alice", room, "with another device");
    let record = trail.wait_for_text("with another device").await;
    assert_eq!(record["trust"], "verified_device", "{record}");
    for text in ["before number0", "during number3", "after number2", "with another device"] {
        assert_eq!(trail.count_text(text), 1, "{text:?} is recorded exactly once");
    }
}

async fn master_key(scene: &Scene, user: &str) -> Value {
    let token = alice_token(scene);
    let query = json!({"device_keys": {user: []}});
    let (_, keys) = scene.synapse.request("POST", "/_matrix/client/v3/keys/query", &token, Some(query)).await;
    let key = keys["master_keys"][user]["keys"].clone();
    assert!(key.is_object(), "{user} has an identity: {keys}");
    key
}

fn alice_token(scene: &Scene) -> String {
    scene.synapse.register("alice").access_token
}

/// As the homeserver says it to the bot; a puppet token is nobody's device.
async fn backup_version(scene: &Scene) -> Value {
    let path = format!(
        "/_synapse/admin/v1/users/{}/login",
        crate::support::services::urlencode(&scene.user_id("auditbot"))
    );
    let (_, login) = scene.synapse.admin("POST", &path, Some(json!({}))).await;
    let token = login["access_token"].as_str().expect("an admin may act as the bot").to_owned();
    let (status, backup) =
        scene.synapse.request("GET", "/_matrix/client/v3/room_keys/version", &token, None).await;
    assert_eq!(status, 200, "{backup}");
    backup["version"].clone()
}
