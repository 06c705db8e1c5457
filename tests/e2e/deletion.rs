//! The end of a bot, and its return: deletion policies, what stays, suspension.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, Pod, Secret},
};
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::support::{Scene, Trail, eventually, services::dev, tenant::merge};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_deletion_policy_does_what_it_says_and_a_bot_can_come_back() {
    let mut scene = Scene::set("delete", &["alice", "bob", "carol"]).await;
    let policy = |name: &str, policy: &str| json!({"username": name, "database": {"schema": name}, "deletionPolicy": policy});
    // Rooms that carol makes are the leaver's alone.
    let without_carol = json!({"rooms": {"creatorPattern": "^@(alice|bob):"}});
    let mut ender = policy("ender", "Deactivate");
    merge(&mut ender, without_carol.clone());
    scene
        .bots(&[
            ("AuditBot", "auditbot", without_carol),
            ("AuditBot", "leaver", policy("leaver", "LeaveRooms")),
            ("AdminBot", "ender", ender),
        ])
        .await;
    let bots = ["auditbot", "leaver", "ender"];
    let room = scene.room("alice", &["bob"], &bots, json!({"encrypted": true}));
    scene.client.send("alice", &room, "first words");
    let trail = scene.trail("auditbot").await;
    trail.wait_for_text("first words").await;

    retained_bot_leaves_its_account_and_its_point(&mut scene, &room).await;
    leaver_leaves_the_rooms(&mut scene, &room).await;
    ender_is_deactivated(&scene, &room).await;
    the_same_identity_goes_on(&mut scene, &trail, &room).await;
    deletion_waits_for_a_homeserver_that_is_down(&scene).await;
    scene.end().await;
}

async fn retained_bot_leaves_its_account_and_its_point(scene: &mut Scene, room: &str) {
    println!("-- Retain");
    let kept = kept(scene).await;
    let admin = scene.tenant.status("AuditBot", "auditbot").await["adminUserID"].as_str().unwrap().to_owned();
    scene.tenant.delete_bot("AuditBot", "auditbot").await;
    assert_eq!(kept, self::kept(scene).await, "account, phrase and role passwords stay as they were");
    let account = scene.account(&scene.user_id("auditbot")).await.unwrap();
    assert_eq!((&account["deactivated"], &account["locked"]), (&json!(false), &json!(false)));
    assert_eq!(scene.synapse.standing(room, &scene.user_id("auditbot")).await, ("join".to_owned(), 100));
    let admin = scene.account(&admin).await.expect("the account remains as a name");
    assert_eq!(admin["deactivated"], true, "the worker's admin account is no more");
    let (epoch, size, hash) = kept_point(scene, "auditbot").await;
    let head = crate::support::sql::sql(
        &scene.database.name,
        "SELECT epoch || '|' || size || '|' || encode(hash, 'hex') FROM auditbot.head",
    );
    assert_eq!(format!("{epoch}|{size}|{hash}"), head, "the ConfigMap holds the last point");
    let last = crate::support::sql::count(&scene.database.name, "SELECT max(seq) FROM auditbot.envelope");
    assert_eq!(last, size);
    eventually("its pod and its admin Secrets to go", Duration::from_mins(1), || async {
        let set = scene.tenant.api::<StatefulSet>().get_opt("auditbot-worker").await.unwrap().is_some();
        let pod = scene.tenant.api::<Pod>().get_opt("auditbot-worker-0").await.unwrap().is_some();
        let (_, secrets) = scene.tenant.kubectl(&["get", "secrets", "-o", "name"]);
        let admin = secrets.lines().any(|name| name.contains("secret/auditbot-admin"));
        if set || pod || admin { Err(format!("{set} {pod} {secrets}")) } else { Ok(()) }
    })
    .await;
}

/// Resource versions of what must never be made anew.
async fn kept(scene: &Scene) -> BTreeMap<String, Option<String>> {
    let mut versions = BTreeMap::new();
    for part in ["account", "backup-phrase", "database-roles"] {
        let secret = scene.tenant.api::<Secret>().get(&format!("auditbot-{part}")).await.unwrap();
        versions.insert(part.to_owned(), secret.metadata.resource_version);
    }
    versions
}

async fn kept_point(scene: &Scene, base: &str) -> (i64, i64, String) {
    let map = scene.tenant.api::<ConfigMap>().get(&format!("{base}-trail")).await.unwrap();
    assert!(map.metadata.owner_references.is_none(), "it outlives the bot");
    let data = map.data.unwrap();
    (data["epoch"].parse().unwrap(), data["size"].parse().unwrap(), data["rootHash"].clone())
}

async fn leaver_leaves_the_rooms(scene: &mut Scene, room: &str) {
    println!("-- LeaveRooms, and hands over where nobody else is an admin");
    let carol = scene.user_id("carol");
    let theirs = scene.room("carol", &["bob"], &["leaver"], json!({"roomVersion": "11"}));
    scene.wait_admin(&theirs, "leaver").await;
    let step_down = json!({"user": "carol", "room": theirs, "target": carol, "level": 50});
    scene.client.call("setPowerLevel", step_down);
    let trail = Trail::of(&scene.tenant, &scene.database, "auditbot-leaver", "leaver").await;
    let preview =
        ["exec", "auditbot-leaver-worker-0", "--", "/usr/local/bin/ems-bots", "rooms", "preview-removal"];
    let (done, said) = scene.tenant.kubectl(&[&preview[..], &["--output", "json", "--hand-overs"]].concat());
    let line: Value = said.lines().find_map(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    assert!(done && line["room_id"] == theirs.as_str() && line["heir"] == carol.as_str(), "{said}");
    assert_eq!(scene.synapse.standing(&theirs, &carol).await.1, 50, "nothing was changed");
    scene.tenant.delete_bot("AuditBot", "leaver").await;
    for room in [room, &theirs] {
        assert_eq!(scene.synapse.standing(room, &scene.user_id("leaver")).await.0, "leave");
    }
    assert_eq!(scene.synapse.standing(&theirs, &carol).await, ("join".to_owned(), 100));
    assert_eq!(scene.synapse.standing(&theirs, &scene.user_id("bob")).await, ("join".to_owned(), 0));
    let acts = trail.search(&["--room", &theirs, "--action", "bot.act.done", "--limit", "100"]);
    let last: Vec<_> = acts.iter().take(2).map(|act| act["text"].clone()).collect();
    assert_eq!(last, ["leave", "hand_over"], "{acts:#?}");
    let account = scene.account(&scene.user_id("leaver")).await.unwrap();
    assert_eq!((&account["deactivated"], &account["locked"]), (&json!(false), &json!(false)));
    assert!(kept_point(scene, "auditbot-leaver").await.1 > 0);
}

async fn ender_is_deactivated(scene: &Scene, room: &str) {
    println!("-- Deactivate, in the foreground: the garbage collector takes the children first");
    let bots = scene.tenant.bots("AdminBot");
    bots.delete("ender", &DeleteParams::foreground()).await.unwrap();
    eventually("deletion in the foreground", Duration::from_mins(2), || async {
        match bots.get_opt("ender").await.unwrap() {
            None => Ok(()),
            Some(bot) => Err(format!("{}", bot.data["status"]["conditions"])),
        }
    })
    .await;
    let account = scene.account(&scene.user_id("ender")).await.unwrap();
    assert_eq!(account["deactivated"], true, "{account}");
    assert_eq!(scene.synapse.standing(room, &scene.user_id("ender")).await.0, "leave");
    assert!(scene.tenant.secret_data("adminbot-ender-backup-phrase").await.is_some());
    kept_point(scene, "adminbot-ender").await;
}

async fn the_same_identity_goes_on(scene: &mut Scene, trail: &Trail, room: &str) {
    println!("-- a custom resource of the same identity takes phrase and trail up again");
    let (before, point) = (kept(scene).await, kept_point(scene, "auditbot").await);
    scene.client.send("bob", room, "while nobody watched");
    scene.audit_bot().await;
    assert_eq!(before, kept(scene).await, "the Secrets were adopted");
    scene.client.send("alice", room, "with the bot again");
    trail.wait_for_text("with the bot again").await;
    for text in ["first words", "with the bot again"] {
        assert_eq!(trail.count_text(text), 1, "{text:?}");
    }
    let deletion = trail.search(&["--action", "bot.", "--limit", "50"]);
    assert!(deletion.iter().any(|one| one["action"].as_str().unwrap().contains("delet")), "{deletion:#?}");
    let head = crate::support::sql::count(&scene.database.name, "SELECT size FROM auditbot.head");
    let epoch = crate::support::sql::count(&scene.database.name, "SELECT epoch FROM auditbot.head");
    assert!(epoch == point.0 && head > point.1, "{epoch} {head} goes on from {point:?}");
    let account = scene.tenant.secret_data("auditbot-account").await.unwrap();
    let phrase = scene.tenant.secret_data("auditbot-backup-phrase").await.unwrap()["phrase"].clone();
    scene.client.recover_as_bot("person", &scene.synapse, &account, &phrase);
    let (bodies, _) = scene.client.read_room("person", room);
    assert!(bodies.iter().any(|body| body == "first words"), "old messages decrypt: {bodies:?}");
    scene.client.call("logout", json!({"user": "person"}));
    let devices = crate::support::scene::devices(&scene.synapse, &scene.user_id("auditbot")).await;
    assert_eq!(devices.len(), 1, "one device: {devices:?}");
}

async fn deletion_waits_for_a_homeserver_that_is_down(scene: &Scene) {
    println!("-- deletion while the homeserver is down");
    scene.synapse.stop();
    scene.tenant.bots("AuditBot").delete("auditbot", &DeleteParams::default()).await.unwrap();
    // Before that, Ready may say that the worker does not reach its homeserver.
    let how_to_give_up = ["homeserver", "ems.element.io/abandon-cleanup"];
    scene.tenant.wait_says("AuditBot", "auditbot", "Ready", "False", &how_to_give_up).await;
    let bots = scene.tenant.bots("AuditBot");
    assert!(bots.get_opt("auditbot").await.unwrap().is_some(), "the finalizer waits");
    scene.tenant.annotate("AuditBot", "auditbot", "ems.element.io/abandon-cleanup", Some("true")).await;
    eventually("the bot to be let go", Duration::from_mins(1), || async {
        match bots.get_opt("auditbot").await.unwrap() {
            None => Ok(()),
            Some(bot) => Err(bot.data["status"]["conditions"].to_string()),
        }
    })
    .await;
    let events = scene.tenant.events("auditbot").await;
    assert!(
        events.iter().any(|(reason, message)| reason.contains("Abandon") || message.contains("abandon")),
        "an Event says so: {events:?}"
    );
    kept(scene).await;
    kept_point(scene, "auditbot").await;
    dev(&["synapse", "up", &scene.synapse.name], None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_bot_sees_nothing_and_says_from_when_to_when() {
    let mut scene = Scene::set("suspend", &["alice", "bob"]).await;
    let catcher =
        json!({"username": "catcher", "database": {"schema": "catcher"}, "suspendCapture": "CatchUp"});
    scene.bots(&[("AuditBot", "auditbot", json!({})), ("AuditBot", "catcher", catcher)]).await;
    let bots = [("auditbot", "auditbot"), ("catcher", "auditbot-catcher")];
    let public = json!({"preset": "public_chat"});
    let room = scene.room("alice", &["bob"], &["auditbot", "catcher"], public);
    scene.client.send("alice", &room, "seen before");
    let mut trails = Vec::new();
    for (name, base) in bots {
        trails.push(Trail::of(&scene.tenant, &scene.database, base, name).await);
    }
    for trail in &trails {
        trail.wait_for_text("seen before").await;
    }
    println!("-- suspend");
    for (name, _) in bots {
        scene.tenant.patch_bot("AuditBot", name, json!({"spec": {"suspend": true}})).await;
    }
    for (name, _) in bots {
        scene.tenant.wait_condition("AuditBot", name, "Suspended", "True", "").await;
        let account = scene.account(&scene.user_id(name)).await.unwrap();
        assert_eq!(account["locked"], true, "{name}: {account}");
        let ready = scene.tenant.condition("AuditBot", name, "Ready").await.unwrap();
        assert_eq!(ready.0, "False", "a suspended bot does not work: {ready:?}");
    }
    eventually("the Matrix side to stop", Duration::from_secs(30), || async {
        let mut open = Vec::new();
        for (name, _) in bots {
            let recording = scene.tenant.condition("AuditBot", name, "Recording").await;
            open.extend(recording.filter(|condition| condition.0 == "True"));
        }
        if open.is_empty() { Ok(()) } else { Err(format!("{open:?}")) }
    })
    .await;
    scene.client.send("alice", &room, "said in between");
    let unwatched = scene.room("bob", &[], &[], json!({"preset": "public_chat"}));
    println!("-- resume");
    for (name, _) in bots {
        scene.tenant.patch_bot("AuditBot", name, json!({"spec": {"suspend": false}})).await;
    }
    for (name, _) in bots {
        scene.tenant.wait_condition("AuditBot", name, "Suspended", "False", "").await;
        scene.tenant.wait_ready("AuditBot", name).await;
        let account = scene.account(&scene.user_id(name)).await.unwrap();
        assert_eq!(account["locked"], false, "{name}: {account}");
        scene.wait_admin(&unwatched, name).await;
    }
    scene.client.send("alice", &room, "seen after");
    for trail in &trails {
        trail.wait_for_text("seen after").await;
        assert_eq!(trail.count_text("seen before"), 1);
        span_is_recorded(trail).await;
    }
    assert_eq!(trails[0].count_text("said in between"), 0, "Skip leaves it out");
    trails[1].wait_for_text("said in between").await;
    assert_eq!(trails[1].count_text("said in between"), 1, "CatchUp fills it in, once");
    a_namespace_goes_with_its_bots(scene, &room).await;
}

/// Secrets, rights and workers go in any order while the operator says goodbye; nothing may hang.
async fn a_namespace_goes_with_its_bots(scene: Scene, room: &str) {
    println!("-- the namespace is deleted");
    scene.tenant.delete_namespace().await;
    for name in ["auditbot", "catcher"] {
        let account = scene.account(&scene.user_id(name)).await.unwrap();
        assert_eq!(account["deactivated"], false, "nobody was asked to end {name}: {account}");
        assert_eq!(scene.synapse.standing(room, &scene.user_id(name)).await.0, "join");
    }
}

async fn span_is_recorded(trail: &Trail) {
    let record = trail.wait_for(&["--action", "capture.suspended"], "the span", |_| true).await;
    let text = record.to_string();
    assert_eq!(record["category"], "system_change", "{record}");
    let span = record["occurred"]["between"].as_array().cloned().unwrap_or_default();
    assert!(span.len() == 2 && span[0].as_i64() < span[1].as_i64(), "from and to: {text}");
}
