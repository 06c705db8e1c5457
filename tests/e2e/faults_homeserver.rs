//! What can be wrong with a homeserver, its credential or a custom resource. Every fault is a bot
//! of its own in one namespace; each says what to do, none is tried in a hot loop, and none is
//! told a secret that is not for it.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

use crate::support::{Act, Gate, Rule, Scene, eventually, leaks, scene, writes::writes_within};

/// What a bot is made with, and the words that its condition must then contain.
struct Fault {
    name: &'static str,
    spec: Value,
    words: &'static [&'static str],
}

const SECRET: &str = "a-shared-secret-that-is-wrong-0123456789";
const TOKEN: &str = "syt_unknown_token_0123456789abcdef";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_of_a_homeserver_is_a_condition_that_says_what_to_do() {
    let scene = Scene::set("hsfault", &[]).await;
    let stranger = Gate::open(None).await;
    let broken = Gate::open(Some(&scene.synapse.host_url)).await;
    broken.rules(vec![Rule::all(Act::Answer(503, "<html>bad gateway</html>"))]);
    let busy = Gate::open(Some(&scene.synapse.host_url)).await;
    busy.rules(vec![Rule::all(Act::Answer(
        429,
        r#"{"errcode":"M_LIMIT_EXCEEDED","error":"slow down","retry_after_ms":20000}"#,
    ))]);
    let person = scene.synapse.register("takenname");
    let outsider = scene.synapse.register("outsider");
    secrets(&scene, &[&stranger.url, &broken.url, &busy.url], &outsider.access_token).await;

    let faults = faults(&stranger, &broken, &busy);
    for fault in &faults {
        scene.tenant.bot("AuditBot", fault.name, &scene.synapse, fault.spec.clone()).await;
    }
    for fault in &faults {
        println!("-- {}", fault.name);
        let (reason, message) =
            scene.tenant.wait_says("AuditBot", fault.name, "AccountReady", "False", fault.words).await;
        println!("   {reason}: {message}");
        let ready = scene.tenant.condition("AuditBot", fault.name, "Ready").await.unwrap();
        assert_eq!(ready.0, "False", "{}: {ready:?}", fault.name);
        assert!(!message.contains("http://10.244.0.1") || !message.contains('?'), "{message}");
    }
    nothing_was_taken_over(&scene, &person.access_token).await;
    let seen = stranger.seen();
    assert!(seen.is_empty(), "nothing is sent to a homeserver that the Secret is not for: {seen:?}");
    no_hot_loop(&scene, faults.len(), [&broken, &busy]).await;
    leaks::assert_no_secret_shows(&scene.tenant, &[SECRET, TOKEN, &outsider.access_token]).await;
    what_is_mended_is_picked_up(&scene, &broken).await;
    scene.end().await;
}

fn reference(kind: &str, name: &str) -> Value {
    json!({"adminApi": {kind: {"name": name, "key": "value"}}})
}

fn faults(stranger: &Gate, broken: &Gate, busy: &Gate) -> Vec<Fault> {
    let fault = |name, homeserver: Value, words| Fault {
        name,
        spec: json!({"username": name, "homeserver": homeserver, "database": {"schema": "s"}}),
        words,
    };
    let at = |mut homeserver: Value, url: &str| {
        homeserver["url"] = json!(url);
        homeserver
    };
    let shared = "registrationSharedSecret";
    let mut taken = fault("taken", json!({}), &["@takenname", "username"]);
    taken.spec["username"] = json!("takenname");
    vec![
        fault("wrongsecret", reference(shared, "wrong-secret"), &["registration", "secret", "wrong-secret"]),
        fault("expired", reference("accessToken", "wrong-token"), &["token", "wrong-token"]),
        fault("nonadmin", reference("accessToken", "outsider-token"), &["server admin", "outsider-token"]),
        fault("missing", reference(shared, "not-there-yet"), &["not-there-yet"]),
        fault("nokey", json!({"adminApi": {shared: {"name": "wrong-secret", "key": "absent"}}}), &["absent"]),
        fault("mismatch", json!({"serverName": "somebody-else.example"}), &["somebody-else.example"]),
        fault("unreachable", at(reference(shared, "closed-port"), "http://10.244.0.1:9"), &["10.244.0.1:9"]),
        fault("broken", at(reference(shared, "for-broken"), &broken.url), &["503"]),
        fault("busy", at(reference(shared, "for-busy"), &busy.url), &["rate"]),
        fault("unnamed", reference(shared, "no-annotation"), &["no-annotation", "ems.element.io/homeserver"]),
        // The attack: a Secret of another homeserver shall be sent to one of the attacker's.
        fault("theft", at(json!({}), &stranger.url), &["ems-bots-homeserver", "ems.element.io/homeserver"]),
        fault(
            "mas",
            json!({"adminApi": {"mas": {"clientID": "x",
            "clientSecret": {"name": "wrong-secret", "key": "value"}}}}),
            &["not supported"],
        ),
        taken,
    ]
}

async fn secrets(scene: &Scene, gates: &[&str; 3], outsider: &str) {
    let real = scene.synapse.pod_url.as_str();
    let shared = scene.synapse.registration_shared_secret.as_str();
    for (name, value, url) in [
        ("wrong-secret", SECRET, Some(real)),
        ("wrong-token", TOKEN, Some(real)),
        ("outsider-token", outsider, Some(real)),
        ("no-annotation", shared, None),
        ("closed-port", shared, Some("http://10.244.0.1:9")),
        ("for-broken", shared, Some(gates[1])),
        ("for-busy", shared, Some(gates[2])),
    ] {
        let annotations = url.map_or(json!({}), |url| json!({"ems.element.io/homeserver": url}));
        scene.tenant.secret(name, &json!({"value": value}), &annotations).await;
    }
}

/// A person's account keeps its password, its sessions and its name.
async fn nothing_was_taken_over(scene: &Scene, token: &str) {
    let user = scene.user_id("takenname");
    let account = scene.account(&user).await.unwrap();
    assert_eq!((&account["external_ids"], &account["user_type"]), (&json!([]), &Value::Null), "{account}");
    let (status, who) = scene.synapse.request("GET", "/_matrix/client/v3/account/whoami", token, None).await;
    assert_eq!((status, &who["user_id"]), (200, &json!(user)));
    let found = scene.tenant.condition("AuditBot", "taken", "AccountReady").await.unwrap();
    assert_eq!(found.1, "AccountNotOurs");
}

/// A fault that stays is looked at again and again, but ever more rarely, and an unchanged status is not written.
async fn no_hot_loop(scene: &Scene, bots: usize, gates: [&Gate; 2]) {
    println!("-- 15 s of watching {bots} faulty bots");
    for gate in gates {
        gate.forget();
    }
    let written = writes_within(&scene.tenant, Duration::from_secs(15)).await;
    let total: u64 = written.values().sum();
    assert!(total <= bots as u64, "at most one write a bot: {written:?}");
    for gate in gates {
        assert!(gate.seen().len() <= 15, "{} requests in 15 s", gate.seen().len());
    }
}

async fn what_is_mended_is_picked_up(scene: &Scene, broken: &Gate) {
    println!("-- a Secret that appears, a key that appears, an annotation, a homeserver that recovers");
    let before = restarts(scene).await;
    let real = json!({"ems.element.io/homeserver": scene.synapse.pod_url});
    let shared = json!({"value": scene.synapse.registration_shared_secret});
    scene.tenant.secret("not-there-yet", &shared, &real).await;
    scene.tenant.secret("no-annotation", &shared, &real).await;
    let (value, key) = (SECRET, scene.synapse.registration_shared_secret.as_str());
    scene.tenant.secret("wrong-secret", &json!({"value": value, "absent": key}), &real).await;
    broken.rules(vec![]);
    for name in ["missing", "unnamed", "nokey"] {
        scene.tenant.wait_condition("AuditBot", name, "AccountReady", "True", "").await;
        assert!(scene.account(&scene.user_id(name)).await.is_some());
    }
    scene.tenant.wait_condition("AuditBot", "broken", "AccountReady", "True", "").await;
    assert_eq!(restarts(scene).await, before, "nothing is restarted to notice it");
}

/// By operator's pod. One that could not renew its lease in time, on a busy machine, has been restarted before.
async fn restarts(scene: &Scene) -> BTreeMap<Option<String>, i32> {
    let pods = crate::support::actions::operators(&scene.tenant.client).await;
    let count = |pod: &Pod| {
        let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        containers.map(|container| container.restart_count).sum()
    };
    pods.iter().map(|pod| (pod.metadata.name.clone(), count(pod))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_is_refused_with_a_sentence() {
    let tenant = crate::support::Tenant::create(&crate::support::unique("nonsense"), true).await;
    let good = || {
        json!({"apiVersion": "ems.element.io/v1alpha1", "kind": "AuditBot",
            "metadata": {"name": "auditbot", "namespace": tenant.namespace},
            "spec": {"homeserver": {"serverName": "nonsense.example", "url": "http://nonsense.example",
                "plan": "Gold"}}})
    };
    for (path, value, sentence) in [
        ("/spec/homeserver/serverName", json!("https://nonsense.example"), "not a URL"),
        (
            "/spec/homeserver/url",
            json!("http://user:password@nonsense.example"),
            "without user name, password",
        ),
        ("/spec/homeserver/url", json!("ftp://nonsense.example"), "http:// or https://"),
        ("/spec/homeserver/plan", json!("Silver"), "Gold"),
        ("/spec/username", json!("Audit Bot"), "between @ and the colon"),
        ("/spec/displayName", json!("a\nb"), "one line of text"),
        ("/spec/rooms", json!({"deny": ["#alias:x"]}), "room IDs"),
        ("/spec/rooms", json!({"creatorPattern": "("}), "regular expression"),
        ("/spec/homeserver/adminApi", json!({}), "exactly one of"),
        ("/spec/database", json!({"schema": "pg_catalog"}), "schema"),
        ("/spec/deletionPolicy", json!("Destroy"), "Retain"),
        ("/metadata/name", json!("x".repeat(41)), "at most 40 characters"),
    ] {
        let mut bot = good();
        let (parent, key) = path.rsplit_once('/').unwrap();
        bot.pointer_mut(parent).unwrap()[key] = value;
        let error = tenant.try_apply(&bot).await.expect_err(path).to_string();
        assert!(error.contains(sentence), "{path}: {error}");
    }
    println!("-- what cannot change");
    tenant.apply(&good()).await;
    for (path, value) in [
        ("/spec/homeserver/serverName", json!("other.example")),
        ("/spec/username", json!("other")),
        ("/spec/database", json!({"schema": "other"})),
    ] {
        let mut bot = good();
        let (parent, key) = path.rsplit_once('/').unwrap();
        bot.pointer_mut(parent).unwrap()[key] = value;
        let error = tenant.try_apply(&bot).await.expect_err(path).to_string();
        assert!(error.contains("delete the bot and create it anew"), "{path}: {error}");
    }
    tenant.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_that_expires_and_an_account_wanted_twice() {
    let scene = Scene::set("expiry", &[]).await;
    scene.audit_bot().await;
    println!("-- two custom resources for one account");
    scene.tenant.bot("AuditBot", "second", &scene.synapse, json!({"database": {"schema": "second"}})).await;
    let words = &["auditbot", "@auditbot"];
    let (reason, message) =
        scene.tenant.wait_says("AuditBot", "second", "AccountReady", "False", words).await;
    println!("   {reason}: {message}");
    assert_eq!(scene.tenant.condition("AuditBot", "auditbot", "Ready").await.unwrap().0, "True");
    assert_eq!(scene::devices(&scene.synapse, &scene.user_id("auditbot")).await.len(), 1);
    scene.tenant.delete_bot("AuditBot", "second").await;
    let account = scene.account(&scene.user_id("auditbot")).await.unwrap();
    assert_eq!((&account["deactivated"], &account["locked"]), (&json!(false), &json!(false)));

    println!("-- the session of the worker's admin account is revoked: another is made");
    let status = scene.tenant.status("AuditBot", "auditbot").await;
    let admin = status["adminUserID"].as_str().unwrap().to_owned();
    let old = scene.tenant.secret_data("auditbot-admin-token").await.unwrap()["access-token"].clone();
    for device in scene::devices(&scene.synapse, &admin).await {
        let user = crate::support::services::urlencode(&admin);
        let path = format!("/_synapse/admin/v2/users/{user}/devices/{device}");
        assert_eq!(scene.synapse.admin("DELETE", &path, None).await.0, 200);
    }
    // Somebody touches the resource; without that the operator finds out when it next looks.
    scene.tenant.patch_bot("AuditBot", "auditbot", json!({"spec": {"displayName": "Auditor"}})).await;
    eventually("another session", Duration::from_mins(2), || async {
        match scene.tenant.secret_data("auditbot-admin-token").await {
            Some(data) if data["access-token"] != old => Ok(()),
            other => Err(format!("{}", other.is_some())),
        }
    })
    .await;
    scene.tenant.wait_ready("AuditBot", "auditbot").await;
    eventually("the display name", Duration::from_mins(1), || async {
        let name = scene.account(&scene.user_id("auditbot")).await.unwrap()["displayname"].clone();
        if name == "Auditor" { Ok(()) } else { Err(name.to_string()) }
    })
    .await;

    println!("-- the account Secret is lost: the account is not touched any more");
    let secrets = scene.tenant.api::<Secret>();
    let kept = secrets.get("auditbot-account").await.unwrap();
    secrets.delete("auditbot-account", &DeleteParams::default()).await.unwrap();
    let words = &["auditbot-account"];
    scene.tenant.wait_says("AuditBot", "auditbot", "AccountReady", "False", words).await;
    let account = scene.account(&scene.user_id("auditbot")).await.unwrap();
    assert_eq!(account["deactivated"], false);
    println!("-- and restored");
    let restored = Secret {
        metadata: kube::core::ObjectMeta {
            name: kept.metadata.name,
            labels: kept.metadata.labels,
            annotations: kept.metadata.annotations,
            ..kube::core::ObjectMeta::default()
        },
        ..kept
    };
    secrets.create(&PostParams::default(), &restored).await.unwrap();
    scene.tenant.wait_ready("AuditBot", "auditbot").await;
    scene.end().await;
}
