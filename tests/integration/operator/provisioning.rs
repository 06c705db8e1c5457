//! From an applied custom resource to everything that a bot needs.

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use base64::Engine as _;
use ems_bots::{
    crd::{AdminBot, AuditBot},
    homeserver::HomeserverError,
};
use http::Method;
use serde_json::{Value, json};

use super::world::{Kind, NAMESPACE, World};

async fn everything_is_made<B: Kind>() {
    let world = World::new();
    world.bot::<B>(&json!({}));
    let ctx = world.start();
    world.settle::<B>(&ctx).await;
    let base = B::NAME;
    for plural in ["serviceaccounts", "roles", "rolebindings", "services", "networkpolicies", "statefulsets"]
    {
        assert_eq!(world.api.names(plural, NAMESPACE), [format!("{base}-worker")], "{plural}");
    }
    assert_eq!(world.api.names("persistentvolumeclaims", NAMESPACE), [format!("{base}-worker-data")]);
    let secrets = world.api.names("secrets", NAMESPACE);
    for part in ["account", "backup-phrase", "database-roles", "admin-token"] {
        assert!(secrets.contains(&format!("{base}-{part}")), "{part} is missing in {secrets:?}");
    }
    for name in &secrets {
        let secret = world.api.get("secrets", NAMESPACE, name).unwrap();
        assert!(secret["metadata"]["ownerReferences"].is_null(), "{name} goes with nobody");
    }
    assert_eq!(world.condition::<B>("AccountReady").0, "True");
    assert_eq!(world.condition::<B>("WorkerReady").1, "Starting");
    assert_eq!(world.condition::<B>("EncryptionReady").0, "Unknown");
    let bot = world.api.get(B::PLURAL, NAMESPACE, base).unwrap();
    assert_eq!(bot["metadata"]["finalizers"], json!(["ems.element.io/cleanup"]));
    assert_eq!(bot["status"]["userID"], format!("@{base}:example.org"));
    assert_eq!(bot["status"]["backupPhrase"]["secretRef"]["name"], format!("{base}-backup-phrase"));

    let account = world.homeserver.world().users[&format!("@{base}:example.org")].clone();
    assert_eq!(account.password, world.secret_text(&format!("{base}-account"), "password"));
    assert_eq!(
        account.account.ownership.as_deref(),
        Some(world.secret_text(&format!("{base}-account"), "ownership").as_str())
    );
    assert!(!account.account.admin);
    let admin = world.secret_text(&format!("{base}-admin-token"), "user-id");
    assert!(world.homeserver.world().users[&admin].account.admin);
    assert!(world.homeserver.world().users[&admin].unlimited);
}

#[tokio::test]
async fn an_admin_bot_gets_everything_that_it_needs() {
    everything_is_made::<AdminBot>().await;
}

#[tokio::test]
async fn an_audit_bot_gets_everything_that_it_needs() {
    everything_is_made::<AuditBot>().await;
}

#[tokio::test]
async fn an_idle_system_is_not_written_to_also_not_by_a_new_process() {
    let world = World::new();
    world.bot::<AuditBot>(&json!({}));
    let ctx = world.start();
    world.settle::<AuditBot>(&ctx).await;
    let users = world.homeserver.world().users.len();
    let logins = world.homeserver.count("login") + world.homeserver.count("register_admin");
    for ctx in [&ctx, &world.start()] {
        for _ in 0..3 {
            world.reconcile::<AuditBot>(ctx).await.unwrap().unwrap();
        }
    }
    assert!(world.writes().is_empty());
    assert_eq!(world.homeserver.world().users.len(), users);
    assert_eq!(
        world.homeserver.count("login") + world.homeserver.count("register_admin"),
        logins,
        "a restart logs in nowhere"
    );
    assert_eq!(world.homeserver.count("set_display_name"), 0, "an unchanged name is expensive to set");
    assert_eq!(world.homeserver.count("set_avatar"), 1, "an unchanged avatar is, too");
}

#[tokio::test]
async fn a_homeserver_that_takes_no_picture_is_no_obstacle_and_one_that_is_there_stays() {
    let world = World::new();
    world.homeserver.fail("set_avatar", 1, || HomeserverError::NotOffered { what: "upload of an avatar" });
    world.bot::<AuditBot>(&json!({}));
    let ctx = world.start();
    world.settle::<AuditBot>(&ctx).await;
    let avatar = || {
        let world = world.homeserver.world();
        world.users["@auditbot:example.org"].account.avatar_url.clone()
    };
    let tries = world.homeserver.count("set_avatar");
    assert!(tries >= 1);
    world.reconcile::<AuditBot>(&ctx).await.unwrap().unwrap();
    assert!(avatar().is_some());
    let other = Some("mxc://example.org/other".to_owned());
    world.homeserver.world().users.get_mut("@auditbot:example.org").unwrap().account.avatar_url =
        other.clone();
    world.reconcile::<AuditBot>(&ctx).await.unwrap().unwrap();
    assert_eq!(avatar(), other);
}

#[tokio::test]
async fn a_report_of_the_worker_costs_no_look_at_the_homeserver() {
    let world = World::new();
    world.bot::<AuditBot>(&json!({}));
    let ctx = world.start();
    world.settle::<AuditBot>(&ctx).await;
    world.worker_is_ready::<AuditBot>();
    world.settle::<AuditBot>(&ctx).await;
    let calls = world.homeserver.calls().len();
    world.api.edit("auditbots", NAMESPACE, "auditbot", |bot| {
        bot["status"]["trail"] = json!({"epoch": 1, "size": 7, "rootHash": "a".repeat(64)});
    });
    world.settle::<AuditBot>(&ctx).await;
    assert_eq!(world.homeserver.calls().len(), calls);
    let kept = world.api.get("configmaps", NAMESPACE, "auditbot-trail").unwrap();
    assert_eq!(kept["data"], json!({"epoch": "1", "size": "7", "rootHash": "a".repeat(64)}));
    assert!(kept["metadata"]["ownerReferences"].is_null(), "it outlives the bot");
}

#[tokio::test]
async fn a_secret_that_goes_while_everything_is_looked_at_is_missed_in_the_next_look() {
    let world = World::new();
    world.bot::<AuditBot>(&json!({}));
    let ctx = world.start();
    world.settle::<AuditBot>(&ctx).await;
    let uid = world.api.get("auditbots", NAMESPACE, "auditbot").unwrap()["metadata"]["uid"].clone();
    let uid = uid.as_str().unwrap().to_owned();
    // The watch tells of the Secret when the look that was begun has read it already.
    ctx.recent.forget(&uid);
    let watch = Arc::clone(&ctx);
    world.api.fault(500, usize::MAX, move |call| {
        if call.path.contains("/statefulsets/") {
            watch.recent.forget(&uid);
        }
        false
    });
    world.reconcile::<AuditBot>(&ctx).await.unwrap().unwrap();
    world.api.clear_faults();
    world.api.delete("secrets", NAMESPACE, "auditbot-account");
    world.reconcile::<AuditBot>(&ctx).await.unwrap().unwrap_err();
    assert_eq!(world.condition::<AuditBot>("AccountReady").1, "AccountSecretMissing");
}

#[tokio::test]
async fn the_workers_conditions_are_unknown_while_it_is_not_ready_and_its_own_when_it_is() {
    let world = World::new();
    world.bot::<AuditBot>(&json!({}));
    let ctx = world.start();
    world.settle::<AuditBot>(&ctx).await;
    assert_eq!(
        world.condition::<AuditBot>("Recording"),
        (
            "Unknown".into(),
            "WorkerNotReady".into(),
            "not known while the worker is not ready; see WorkerReady".into()
        )
    );
    world.worker_is_ready::<AuditBot>();
    world.settle::<AuditBot>(&ctx).await;
    assert_eq!(world.condition::<AuditBot>("WorkerReady").0, "True");
    assert_eq!(world.condition::<AuditBot>("Recording").0, "Unknown", "until the worker says more");
    assert_eq!(world.condition::<AuditBot>("Ready").1, "DatabaseNotReady");
    world.worker_reports::<AuditBot>().await;
    world.settle::<AuditBot>(&ctx).await;
    assert_eq!(world.condition::<AuditBot>("Ready").0, "True");
    assert!(world.events().contains(&"Ready".to_owned()));
    // The pod goes away and comes back.
    world.worker_is_away::<AuditBot>();
    world.settle_through_errors().await;
    assert_eq!(world.condition::<AuditBot>("Recording").1, "WorkerNotReady");
    world.worker_is_ready::<AuditBot>();
    world.settle_through_errors().await;
    assert_eq!(world.condition::<AuditBot>("WorkerReady").0, "True");
    world.worker_reports::<AuditBot>().await;
    world.settle_through_errors().await;
    assert_eq!(world.condition::<AuditBot>("Ready").0, "True");
}

#[tokio::test]
async fn a_migration_that_fails_says_why_in_its_own_words() {
    let world = World::new();
    world.bot::<AuditBot>(&json!({}));
    let ctx = world.start();
    world.settle::<AuditBot>(&ctx).await;
    world.api.put("pods", json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "auditbot-worker-0", "namespace": NAMESPACE}, "spec": {"containers": []},
        "status": {"initContainerStatuses": [{"name": "migrate", "ready": false, "restartCount": 3, "image": "i",
            "imageID": "", "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 1, "message": "database refuses the password of role owner"}}}]}}));
    world.settle::<AuditBot>(&ctx).await;
    let (status, reason, message) = world.condition::<AuditBot>("DatabaseReady");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "MigrationFailed"));
    assert_eq!(message, "database refuses the password of role owner");
}

#[tokio::test]
async fn a_changed_secret_restarts_the_worker_without_showing_in_the_hash() {
    let world = World::new();
    world.bot::<AuditBot>(&json!({}));
    let hash = || {
        let set = world.api.get("statefulsets", NAMESPACE, "auditbot-worker").unwrap();
        set["spec"]["template"]["metadata"]["annotations"]["ems.element.io/secrets-hash"].clone()
    };
    world.settle::<AuditBot>(&world.start()).await;
    let first = hash();
    world.api.edit("secrets", NAMESPACE, "ems-bots-database", |secret| {
        secret["data"]["password"] = "b3RoZXI=".into();
    });
    world.settle::<AuditBot>(&world.start()).await;
    assert_ne!(first, hash());
    // Another tenant with the same database password has another hash.
    let other = World::new();
    other.bot::<AuditBot>(&json!({"username": "another"}));
    other.skip_entropy();
    other.settle::<AuditBot>(&other.start()).await;
    let set = other.api.get("statefulsets", NAMESPACE, "auditbot-worker").unwrap();
    assert_ne!(set["spec"]["template"]["metadata"]["annotations"]["ems.element.io/secrets-hash"], first);
}

#[tokio::test]
async fn drift_of_every_object_is_mended() {
    let world = World::new();
    world.bot::<AuditBot>(&json!({}));
    world.settle::<AuditBot>(&world.start()).await;
    for plural in ["serviceaccounts", "roles", "rolebindings", "services", "networkpolicies", "statefulsets"]
    {
        let before = world.api.get(plural, NAMESPACE, "auditbot-worker").unwrap();
        world.api.delete(plural, NAMESPACE, "auditbot-worker");
        world.settle::<AuditBot>(&world.start()).await;
        let after = world.api.get(plural, NAMESPACE, "auditbot-worker").unwrap();
        assert_eq!(before["spec"], after["spec"], "{plural}");
    }
}

#[tokio::test]
async fn suspend_locks_the_account_and_resume_unlocks_it() {
    let world = World::new();
    world.bot::<AuditBot>(&json!({}));
    let ctx = world.start();
    world.settle::<AuditBot>(&ctx).await;
    let locked = || world.homeserver.world().users["@auditbot:example.org"].account.locked;
    for suspend in [true, false] {
        world.api.edit("auditbots", NAMESPACE, "auditbot", |bot| bot["spec"]["suspend"] = suspend.into());
        world.settle::<AuditBot>(&ctx).await;
        assert_eq!(locked(), suspend);
        assert_eq!(world.condition::<AuditBot>("Suspended").0, if suspend { "True" } else { "False" });
        assert_eq!(world.condition::<AuditBot>("Ready").1 == "Suspended", suspend);
    }
}

#[tokio::test]
async fn nothing_is_touched_while_paused() {
    let world = World::new();
    world.bot::<AuditBot>(&json!({}));
    let ctx = world.start();
    world.settle::<AuditBot>(&ctx).await;
    world.api.delete("services", NAMESPACE, "auditbot-worker");
    world.api.edit("auditbots", NAMESPACE, "auditbot", |bot| {
        bot["metadata"]["annotations"] = json!({"ems.element.io/paused": "true"});
    });
    world.settle::<AuditBot>(&ctx).await;
    assert!(world.api.get("services", NAMESPACE, "auditbot-worker").is_none());
    assert_eq!(world.condition::<AuditBot>("Paused").0, "True");
    assert_eq!(world.condition::<AuditBot>("AccountReady").0, "True", "what was said stays");
    world.api.edit("auditbots", NAMESPACE, "auditbot", |bot| bot["metadata"]["annotations"] = json!({}));
    world.settle::<AuditBot>(&ctx).await;
    assert!(world.api.get("services", NAMESPACE, "auditbot-worker").is_some());
    assert_eq!(world.condition::<AuditBot>("Paused").0, "False");
}

#[tokio::test]
async fn an_operator_that_is_paused_says_so_and_does_nothing() {
    let mut world = World::new();
    world.bot::<AuditBot>(&json!({}));
    world.settle::<AuditBot>(&world.start()).await;
    world.api.delete("services", NAMESPACE, "auditbot-worker");
    let calls = world.homeserver.calls().len();
    world.settings.paused = true;
    world.settle::<AuditBot>(&world.start()).await;
    assert!(world.api.get("services", NAMESPACE, "auditbot-worker").is_none());
    let (status, reason, _) = world.condition::<AuditBot>("Paused");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "OperatorPaused"));
    world.api.delete("auditbots", NAMESPACE, "auditbot");
    world.settle::<AuditBot>(&world.start()).await;
    assert_eq!(world.condition::<AuditBot>("Paused").1, "OperatorPaused", "it waits with its finalizer");
    assert!(world.api.get("statefulsets", NAMESPACE, "auditbot-worker").is_some());
    assert_eq!(world.homeserver.calls().len(), calls);
    world.settings.paused = false;
    world.reconcile::<AuditBot>(&world.start()).await.unwrap().unwrap();
    assert!(world.api.get("auditbots", NAMESPACE, "auditbot").is_none());
}

#[tokio::test]
async fn what_an_earlier_release_made_under_another_name_goes() {
    let world = World::new();
    world.bot::<AuditBot>(&json!({}));
    world.settle::<AuditBot>(&world.start()).await;
    let mut owned = world.api.get("services", NAMESPACE, "auditbot-worker").unwrap();
    for field in ["uid", "resourceVersion", "managedFields"] {
        owned["metadata"].as_object_mut().unwrap().remove(field);
    }
    owned["metadata"]["name"] = "auditbot-old".into();
    let mut foreign = owned.clone();
    foreign["metadata"]["name"] = "auditbot-foreign".into();
    foreign["metadata"].as_object_mut().unwrap().remove("ownerReferences");
    world.api.put("services", owned);
    world.api.put("services", foreign);
    world.settle::<AuditBot>(&world.start()).await;
    assert_eq!(world.api.names("services", NAMESPACE), ["auditbot-foreign", "auditbot-worker"]);
}

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_secret_leaves_the_secrets() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let world = World::new();
    world.bot::<AuditBot>(&json!({}));
    let ctx = world.start();
    let mut calls = Vec::new();
    for fault in ["server_version", "account", "create_account", "set_unlimited", ""] {
        if !fault.is_empty() {
            world.homeserver.lose_answer(fault, 1);
        }
        world.reconcile::<AuditBot>(&ctx).await;
        calls.extend(world.api.take_calls());
    }
    let (old, ready) = (world.condition::<AuditBot>("AccountReady"), world.condition::<AuditBot>("Ready"));
    assert_eq!(old.0, "True", "{old:?} {ready:?}");
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let values = world.secret_values();
    assert!(values.len() >= 11, "{}", values.len());
    for value in values {
        assert!(!logged.contains(&value), "a secret was logged");
        for call in &calls {
            let is_secret = call.method == Method::POST && call.path.ends_with("/secrets");
            let body = call.body.to_string();
            let encoded = base64::engine::general_purpose::STANDARD.encode(&value);
            let is_inside = body.contains(&value) || body.contains(&encoded);
            assert!(is_secret || !is_inside, "a secret went to {}", call.path);
            assert!(!call.path.contains(&value) && !call.query.contains(&value));
        }
        for plural in ["auditbots", "statefulsets", "events", "configmaps"] {
            for name in world.api.names(plural, NAMESPACE) {
                let object: Value = world.api.get(plural, NAMESPACE, &name).unwrap();
                assert!(!object.to_string().contains(&value), "a secret is in {plural} {name}");
            }
        }
    }
}
