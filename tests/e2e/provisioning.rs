//! From an applied custom resource to a bot that is Ready: accounts, identity, Secrets, status,
//! pods of both kinds, with both kinds of homeserver credential.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::Secret};
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};

use crate::support::{
    Scene, eventually, leaks,
    scene::devices,
    services::{dev, urlencode},
};

const BOTS: [(&str, &str); 2] = [("AdminBot", "adminbot"), ("AuditBot", "auditbot")];
const CONDITIONS: [&str; 11] = [
    "AccountReady",
    "DatabaseReady",
    "EncryptionReady",
    "IntegrityVerified",
    "Paused",
    "Ready",
    "Recording",
    "RoomsCovered",
    "Suspended",
    "SynapseModuleActive",
    "WorkerReady",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_kinds_become_ready_with_all_that_belongs_to_them() {
    let mut scene = Scene::set("provision", &["alice"]).await;
    let token = scene.synapse.admin_token();
    let annotation = json!({"ems.element.io/homeserver": scene.synapse.pod_url});
    scene.tenant.secret("admin-api", &json!({"token": token}), &annotation).await;
    let credential =
        json!({"homeserver": {"adminApi": {"accessToken": {"name": "admin-api", "key": "token"}}}});
    scene.bots(&[("AdminBot", "adminbot", credential), ("AuditBot", "auditbot", json!({}))]).await;

    let room = scene.room("alice", &[], &["adminbot", "auditbot"], json!({"encrypted": true}));
    for (kind, name) in BOTS {
        println!("-- {kind}: account, admin account, device, conditions, status");
        the_account_is_a_marked_bot(&scene, name).await;
        the_workers_admin_account_is_named_and_unlimited(&scene, kind, name).await;
        the_only_device_is_cross_signed(&mut scene, kind, name).await;
        conditions_are_complete(&scene, kind, name).await;
        status_is_complete(&scene, kind, name).await;
        scene.wait_admin(&room, name).await;
    }
    generated_secrets_are_kept_and_immutable(&scene).await;
    println!("-- pods hold only what they need");
    for (_, name) in BOTS {
        the_worker_holds_only_what_it_needs(&scene, name).await;
    }
    println!("-- columns");
    kubectl_shows_the_columns(&scene);
    println!("-- drift is repaired, Secrets are not touched");
    what_is_deleted_by_hand_comes_back(&scene).await;
    leaks::assert_no_secret_shows(&scene.tenant, &[&token, &scene.synapse.registration_shared_secret]).await;
    scene.end().await;
}

async fn the_account_is_a_marked_bot(scene: &Scene, name: &str) {
    let user = scene.user_id(name);
    let account = scene.account(&user).await.expect("the account exists");
    assert_eq!(account["user_type"], "bot", "{account}");
    assert_eq!(account["admin"], false, "the bot is no server admin");
    assert_eq!((&account["locked"], &account["deactivated"]), (&json!(false), &json!(false)));
    let display = if name == "adminbot" { "Admin Bot" } else { "Audit Bot" };
    assert_eq!(account["displayname"], display);
    let picture = match name {
        "adminbot" => include_bytes!("../../src/operator/avatars/adminbot.png").len(),
        _ => include_bytes!("../../src/operator/avatars/auditbot.png").len(),
    };
    let avatar =
        account["avatar_url"].as_str().and_then(|url| url.strip_prefix("mxc://")).expect("an avatar");
    let (_, media) = scene.synapse.admin("GET", &format!("/_synapse/admin/v1/media/{avatar}"), None).await;
    let media = &media["media_info"];
    assert_eq!((&media["media_type"], &media["media_length"]), (&json!("image/png"), &json!(picture)));
    let secret = scene.tenant.secret_data(&format!("{name}-account")).await.expect("it was generated");
    let keys: Vec<&str> = secret.keys().map(String::as_str).collect();
    assert_eq!(keys, ["device-prefix", "ownership", "password", "username"]);
    assert_eq!(secret["username"], name);
    assert_eq!(
        account["external_ids"],
        json!([{"auth_provider": "ems-bots", "external_id": secret["ownership"]}])
    );
}

async fn the_workers_admin_account_is_named_and_unlimited(scene: &Scene, kind: &str, name: &str) {
    let bot = scene.tenant.bots(kind).get(name).await.unwrap();
    let uid8 = bot.metadata.uid.unwrap().replace('-', "")[..8].to_owned();
    let user = scene.user_id(&format!("{name}-admin-{uid8}"));
    assert_eq!(bot.data["status"]["adminUserID"], json!(user));
    let account = scene.account(&user).await.unwrap_or_else(|| panic!("{user} exists"));
    assert_eq!((&account["admin"], &account["deactivated"]), (&json!(true), &json!(false)));
    let path = format!("/_synapse/admin/v1/users/{}/override_ratelimit", urlencode(&user));
    let (_, limits) = scene.synapse.admin("GET", &path, None).await;
    assert_eq!(limits, json!({"messages_per_second": 0, "burst_count": 0}));
}

async fn the_only_device_is_cross_signed(scene: &mut Scene, kind: &str, name: &str) {
    let status = scene.tenant.status(kind, name).await;
    let device = status["deviceID"].as_str().expect("the status names the device").to_owned();
    let user = scene.user_id(name);
    assert_eq!(devices(&scene.synapse, &user).await, [device.as_str()]);
    let secret = scene.tenant.secret_data(&format!("{name}-account")).await.unwrap();
    assert!(device.starts_with(&secret["device-prefix"]), "{device}");
    let trust = scene.client.call("trust", json!({"user": "alice", "target": user}));
    assert_eq!(trust["hasCrossSigning"], true, "{trust}");
    assert_eq!(trust["devices"], json!({device: {"signedByOwner": true}}));
}

async fn conditions_are_complete(scene: &Scene, kind: &str, name: &str) {
    let bot = scene.tenant.bots(kind).get(name).await.unwrap();
    let generation = bot.metadata.generation.unwrap();
    let conditions = bot.data["status"]["conditions"].as_array().unwrap();
    let types: BTreeSet<&str> = conditions.iter().map(|one| one["type"].as_str().unwrap()).collect();
    let missing: Vec<&str> = CONDITIONS.into_iter().filter(|one| !types.contains(one)).collect();
    // What an Admin Bot records are its own acts; whether it says so is not promised.
    assert!(missing.is_empty() || (kind == "AdminBot" && missing == ["Recording"]), "{kind}: {types:?}");
    for condition in conditions {
        assert_eq!(condition["observedGeneration"], generation, "{condition}");
        assert!(condition["lastTransitionTime"].is_string(), "{condition}");
        let reason = condition["reason"].as_str().unwrap();
        assert!(reason.starts_with(char::is_uppercase) && !reason.contains(' '), "{condition}");
        assert!(!condition["message"].as_str().unwrap().is_empty(), "{condition}");
        let expected = match condition["type"].as_str().unwrap() {
            // The homeserver of the tests has none.
            "Suspended" | "Paused" | "SynapseModuleActive" => "False",
            _ => "True",
        };
        assert_eq!(condition["status"], expected, "{condition}");
    }
    assert_eq!(bot.data["status"]["observedGeneration"], generation);
}

async fn status_is_complete(scene: &Scene, kind: &str, name: &str) {
    let status = scene.tenant.status(kind, name).await;
    assert_eq!(status["userID"], json!(scene.user_id(name)));
    assert_eq!(status["backupPhrase"]["secretRef"]["name"], format!("{name}-backup-phrase"));
    let trail = &status["trail"];
    assert_eq!(trail["epoch"], 1, "{trail}");
    let hash = trail["rootHash"].as_str().unwrap();
    assert!(hash.len() == 64 && hash.chars().all(|c| c.is_ascii_hexdigit()), "{trail}");
    // Numbers that move are written at most once a minute, so the room just made may still be missing.
    let rooms = &status["rooms"];
    assert_eq!(
        rooms["total"].as_i64().unwrap(),
        rooms["covered"].as_i64().unwrap() + rooms["pending"].as_i64().unwrap(),
        "{rooms}"
    );
}

async fn generated_secrets_are_kept_and_immutable(scene: &Scene) {
    let secrets = scene.tenant.api::<Secret>();
    for (_, name) in BOTS {
        for part in ["account", "backup-phrase", "database-roles"] {
            let secret = secrets.get(&format!("{name}-{part}")).await.unwrap();
            assert_eq!(secret.immutable, Some(true), "{name}-{part}");
            assert!(secret.metadata.owner_references.is_none(), "{name}-{part} has no owner");
            let labels = secret.metadata.labels.unwrap_or_default();
            assert!(labels.contains_key("ems.element.io/identity"), "{labels:?}");
        }
    }
    let phrases: Vec<String> = secrets
        .list(&ListParams::default())
        .await
        .unwrap()
        .into_iter()
        .filter(|secret| secret.data.as_ref().is_some_and(|data| data.contains_key("phrase")))
        .map(|secret| secret.metadata.name.unwrap())
        .collect();
    assert_eq!(phrases.len(), 2, "one phrase a bot: {phrases:?}");
}

/// The running worker sees neither the operator's credential nor the owner of the database.
async fn the_worker_holds_only_what_it_needs(scene: &Scene, name: &str) {
    let set = scene.tenant.api::<StatefulSet>().get(&format!("{name}-worker")).await.unwrap();
    let spec = set.spec.unwrap().template.spec.unwrap();
    let security = spec.security_context.clone().unwrap();
    assert_eq!(security.run_as_non_root, Some(true));
    assert_eq!(security.seccomp_profile.unwrap().type_, "RuntimeDefault");
    let volumes: BTreeMap<String, Value> = spec
        .volumes
        .unwrap()
        .into_iter()
        .map(|volume| (volume.name.clone(), serde_json::to_value(volume).unwrap()))
        .collect();
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let context = container.security_context.clone().unwrap();
        assert_eq!(context.allow_privilege_escalation, Some(false), "{}", container.name);
        assert_eq!(context.read_only_root_filesystem, Some(true), "{}", container.name);
        assert_eq!(context.capabilities.unwrap().drop.unwrap(), ["ALL"], "{}", container.name);
        for variable in container.env.iter().flatten() {
            let secret = variable.value_from.as_ref().is_some_and(|from| from.secret_key_ref.is_some());
            assert!(!secret, "{} gets a secret in its environment", container.name);
        }
    }
    let worker = &spec.containers[0];
    let mounted: Vec<&Value> =
        worker.volume_mounts.iter().flatten().map(|mount| &volumes[&mount.name]).collect();
    let text = serde_json::to_string(&mounted).unwrap();
    for forbidden in ["ems-bots-homeserver", "admin-api"] {
        assert!(!text.contains(forbidden), "the worker mounts {forbidden}: {text}");
    }
    for volume in mounted.iter().filter(|volume| volume.to_string().contains("ems-bots-database")) {
        let items = volume.pointer("/secret/items").and_then(Value::as_array).expect("chosen keys only");
        let keys: BTreeSet<&str> = items.iter().map(|item| item["key"].as_str().unwrap()).collect();
        assert!(keys.is_subset(&BTreeSet::from(["host", "port", "dbname"])), "{keys:?}");
    }
}

fn kubectl_shows_the_columns(scene: &Scene) {
    for kind in ["adb", "aub"] {
        let (ok, text) = scene.tenant.kubectl(&["get", kind]);
        assert!(ok, "{text}");
        let header: Vec<&str> = text.lines().next().unwrap().split_whitespace().collect();
        assert_eq!(header, ["NAME", "READY", "REASON", "SERVER", "ROOMS", "AGE"]);
        assert!(text.contains(&scene.synapse.server_name) && text.contains("True"), "{text}");
    }
    let (_, text) = scene.tenant.kubectl(&["get", "ems", "-o", "name"]);
    assert_eq!(text.lines().count(), 2, "the category lists both: {text}");
}

async fn what_is_deleted_by_hand_comes_back(scene: &Scene) {
    let phrase = scene.tenant.api::<Secret>().get("auditbot-backup-phrase").await.unwrap().metadata.uid;
    let services = scene.tenant.api::<k8s_openapi::api::core::v1::Service>();
    services.delete("auditbot-worker", &DeleteParams::default()).await.unwrap();
    let sets = scene.tenant.api::<StatefulSet>();
    let (ok, text) = scene.tenant.kubectl(&["scale", "statefulset/auditbot-worker", "--replicas", "3"]);
    assert!(ok, "{text}");
    eventually("the Service and one replica", std::time::Duration::from_mins(1), || async {
        let service = services.get_opt("auditbot-worker").await.unwrap().is_some();
        let replicas = sets.get("auditbot-worker").await.unwrap().spec.unwrap().replicas;
        if service && replicas == Some(1) { Ok(()) } else { Err(format!("{service} {replicas:?}")) }
    })
    .await;
    let after = scene.tenant.api::<Secret>().get("auditbot-backup-phrase").await.unwrap().metadata.uid;
    assert_eq!(phrase, after);
    dev(&["cluster", "status"], None);
}
