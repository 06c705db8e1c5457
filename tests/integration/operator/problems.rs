//! What can be wrong, and that the condition says what to do.

use std::time::Duration;

use ems_bots::{
    crd::{AdminBot, AuditBot},
    domain::{BotKind, Failure as _, Retry},
    homeserver::HomeserverError,
    operator::{Error, error_policy, validate::Claim},
};
use jiff::Timestamp;
use kube::{core::DeserializeGuard, runtime::controller::Action};
use serde_json::json;

use super::world::{NAMESPACE, URL, World};

/// Makes a bot in a world that something is wrong with; returns reason and message of the condition.
async fn says(world: &World, condition: &str) -> (String, String) {
    if world.api.get("auditbots", NAMESPACE, "auditbot").is_none() {
        world.bot::<AuditBot>(&json!({}));
    }
    world.settle::<AuditBot>(&world.start()).await;
    let (status, reason, message) = world.condition::<AuditBot>(condition);
    assert_eq!(status, "False", "{reason}: {message}");
    assert_ne!(world.condition::<AuditBot>("Ready").0, "True");
    assert!(world.events().contains(&reason), "no Event {reason}: {:?}", world.events());
    (reason, message)
}

/// The reason that a condition shows, the call that fails, and how.
type Trouble = (&'static str, &'static str, fn() -> HomeserverError);

#[tokio::test]
async fn a_homeserver_that_is_in_trouble() {
    let unreachable = || HomeserverError::Unreachable { host: "synapse".into(), problem: "refused".into() };
    let limited =
        || HomeserverError::RateLimited { what: "login", retry_after: Some(Duration::from_secs(300)) };
    let cases: [Trouble; 6] = [
        ("HomeserverUnreachable", "server_name", unreachable),
        ("HomeserverFailing", "server_version", || HomeserverError::Server { status: 502, what: "version" }),
        ("HomeserverRateLimited", "register_admin", limited),
        ("SharedSecretRefused", "register_admin", || HomeserverError::SharedSecretRefused),
        ("AdminAccountDemoted", "server_version", || HomeserverError::NotAdmin),
        ("AdminApiNotOffered", "register_admin", || HomeserverError::NotOffered { what: "registration" }),
    ];
    for (reason, call, error) in cases {
        let world = World::new();
        world.homeserver.fail_always(call, error);
        assert_eq!(says(&world, "AccountReady").await.0, reason);
        assert!(world.api.names("statefulsets", NAMESPACE).is_empty());
        world.homeserver.heal();
        world.settle::<AuditBot>(&world.start()).await;
        assert_eq!(world.condition::<AuditBot>("AccountReady").0, "True", "{reason} heals");
    }
}

#[tokio::test]
async fn an_admin_account_that_was_demoted_is_not_mended_in_a_secret() {
    let world = World::new();
    world.bot::<AuditBot>(&json!({}));
    world.settle::<AuditBot>(&world.start()).await;
    let admin = world.secret_text("auditbot-admin-token", "user-id");
    let promote = |is_admin| world.homeserver.world().users.get_mut(&admin).unwrap().account.admin = is_admin;
    promote(false);
    let (reason, message) = says(&world, "AccountReady").await;
    assert_eq!(reason, "AdminAccountDemoted");
    assert!(message.contains(&format!("make {admin} a server admin again")), "{message}");
    assert!(!message.contains("Secret") && !message.contains("token"), "{message}");
    promote(true);
    world.settle::<AuditBot>(&world.start()).await;
    assert_eq!(world.condition::<AuditBot>("AccountReady").0, "True");
}

#[tokio::test]
async fn an_access_token_of_somebody_who_is_no_admin_is_to_be_replaced() {
    let world = World::new();
    world.bot_with_access_token(false);
    let (reason, message) = says(&world, "AccountReady").await;
    assert_eq!(reason, "CredentialNotAdmin");
    assert!(
        message.contains("put the access token of a server admin into key token of Secret token"),
        "{message}"
    );
}

#[tokio::test]
async fn a_homeserver_with_another_name_is_not_touched() {
    let world = World::new();
    world.bot::<AuditBot>(&json!({"homeserver": {"serverName": "other.example"}}));
    let (reason, message) = says(&world, "AccountReady").await;
    assert_eq!(reason, "ServerNameMismatch");
    assert!(message.contains("example.org") && message.contains("other.example"), "{message}");
    assert!(world.homeserver.world().users.is_empty());
}

#[tokio::test]
async fn an_account_of_a_person_is_never_taken_over() {
    let world = World::new();
    world.homeserver.add_user(&"auditbot".parse().unwrap(), false);
    let before = world.homeserver.world().users["@auditbot:example.org"].clone();
    assert_eq!(says(&world, "AccountReady").await.0, "AccountNotOurs");
    let after = world.homeserver.world().users["@auditbot:example.org"].clone();
    assert_eq!((before.account, before.password), (after.account, after.password));
    assert!(world.api.names("statefulsets", NAMESPACE).is_empty());
}

#[tokio::test]
async fn a_secret_that_is_missing_is_named_and_picked_up() {
    for (name, condition) in [("ems-bots-homeserver", "AccountReady"), ("ems-bots-database", "WorkerReady")] {
        let world = World::new();
        let secret = world.api.get("secrets", NAMESPACE, name).unwrap();
        world.api.delete("secrets", NAMESPACE, name);
        let (reason, message) = says(&world, condition).await;
        assert_eq!(reason, "SecretMissing");
        assert!(message.contains(name), "{message}");
        world.api.put("secrets", secret);
        let ctx = world.start();
        world.settle::<AuditBot>(&ctx).await;
        assert_eq!(world.condition::<AuditBot>("AccountReady").0, "True");
        assert_eq!(world.condition::<AuditBot>("WorkerReady").1, "Starting");
    }
}

#[tokio::test]
async fn a_key_that_is_missing_is_named() {
    let world = World::new();
    world.api.edit("secrets", NAMESPACE, "ems-bots-database", |secret| {
        secret["data"].as_object_mut().unwrap().remove("dbname");
    });
    let (reason, message) = says(&world, "WorkerReady").await;
    assert_eq!(reason, "SecretKeyMissing");
    assert!(message.contains("dbname") && message.contains("ems-bots-database"), "{message}");
    assert_eq!(world.condition::<AuditBot>("AccountReady").0, "True", "the account does not need it");
}

#[tokio::test]
async fn a_credential_for_another_url_is_not_sent() {
    for annotation in [json!({}), json!({"ems.element.io/homeserver": "http://elsewhere:8008"})] {
        let world = World::new();
        world.api.edit("secrets", NAMESPACE, "ems-bots-homeserver", |secret| {
            secret["metadata"]["annotations"] = annotation.clone();
        });
        let (reason, message) = says(&world, "AccountReady").await;
        assert_eq!(reason, "CredentialNotForThisHomeserver");
        assert!(message.contains("ems-bots-homeserver") && message.contains(URL), "{message}");
        let is_complete = message.contains("kubectl annotate secret ems-bots-homeserver --namespace tenant ");
        assert_eq!(is_complete, annotation == json!({}), "{message}");
        assert!(world.opened.lock().unwrap().is_empty(), "no connection was opened");
    }
}

#[tokio::test]
async fn a_proxy_that_the_credentials_secret_does_not_name_gets_nothing() {
    const PROXY: &str = "http://proxy.example.org:3128";
    let names = |url: &str| json!({"ems.element.io/homeserver": URL, "ems.element.io/proxy": url});
    let bot = json!({"worker": {"proxy": {"url": PROXY}}});
    for annotations in [json!({"ems.element.io/homeserver": URL}), names("http://evil.example.org:3128")] {
        let world = World::new();
        world.api.edit("secrets", NAMESPACE, "ems-bots-homeserver", |secret| {
            secret["metadata"]["annotations"] = annotations.clone();
        });
        world.bot::<AuditBot>(&bot);
        world.settle::<AuditBot>(&world.start()).await;
        let (_, reason, message) = world.condition::<AuditBot>("AccountReady");
        assert_eq!(reason, "CredentialNotForThisProxy");
        assert!(message.contains("ems-bots-homeserver") && message.contains(PROXY), "{message}");
        assert!(world.opened.lock().unwrap().is_empty(), "no connection was opened");
    }
    let world = World::new();
    world.api.edit("secrets", NAMESPACE, "ems-bots-homeserver", |secret| {
        secret["metadata"]["annotations"] = names(PROXY);
    });
    world.bot::<AuditBot>(&bot);
    world.settle::<AuditBot>(&world.start()).await;
    assert_eq!(world.condition::<AuditBot>("AccountReady").0, "True");
}

#[tokio::test]
async fn a_url_that_changes_later_gets_nothing_either() {
    let world = World::new();
    world.bot::<AuditBot>(&json!({}));
    world.settle::<AuditBot>(&world.start()).await;
    world.opened.lock().unwrap().clear();
    world.api.edit("auditbots", NAMESPACE, "auditbot", |bot| {
        bot["spec"]["homeserver"]["url"] = "http://evil:8008".into();
    });
    assert_eq!(says(&world, "AccountReady").await.0, "CredentialNotForThisHomeserver");
    assert!(world.opened.lock().unwrap().is_empty(), "no connection was opened");
    let set = world.api.get("statefulsets", NAMESPACE, "auditbot-worker").unwrap();
    assert!(!set.to_string().contains("evil"), "nor does the worker go there");
}

#[tokio::test]
async fn the_authentication_service_is_not_supported_yet() {
    let world = World::new();
    let mas = json!({"clientID": "c", "clientSecret": {"name": "s", "key": "k"}});
    world.bot::<AuditBot>(&json!({"homeserver": {"adminApi": {"mas": mas}}}));
    assert_eq!(says(&world, "AccountReady").await.0, "MasNotSupportedYet");
}

#[tokio::test]
async fn of_two_bots_for_an_account_the_older_has_it() {
    let world = World::new();
    let older = Claim {
        uid: "0".into(),
        since: Timestamp::UNIX_EPOCH,
        kind: BotKind::Audit,
        namespace: NAMESPACE.into(),
        name: "first".into(),
    };
    *world.claims.lock().unwrap() = vec![older.clone()];
    let (reason, message) = says(&world, "AccountReady").await;
    assert_eq!(reason, "AccountClaimed");
    assert!(message.contains("AuditBot first"), "{message}");
    assert!(world.homeserver.world().users.is_empty());
    // Of another tenant nothing is told.
    *world.claims.lock().unwrap() = vec![Claim { namespace: "secret-customer".into(), ..older.clone() }];
    let (_, message) = says(&world, "AccountReady").await;
    assert!(!message.contains("secret-customer") && !message.contains("first"), "{message}");
    // The younger one does not matter.
    *world.claims.lock().unwrap() = vec![Claim { since: Timestamp::MAX, ..older }];
    world.settle::<AuditBot>(&world.start()).await;
    assert_eq!(world.condition::<AuditBot>("AccountReady").0, "True");
}

#[tokio::test]
async fn a_deleted_phrase_is_never_replaced() {
    for keeps_status in [true, false] {
        let world = World::new();
        world.bot::<AuditBot>(&json!({}));
        world.settle::<AuditBot>(&world.start()).await;
        let phrase = world.api.get("secrets", NAMESPACE, "auditbot-backup-phrase").unwrap();
        world.api.delete("secrets", NAMESPACE, "auditbot-backup-phrase");
        if !keeps_status {
            world.api.edit("auditbots", NAMESPACE, "auditbot", |bot| bot["status"] = json!({}));
        }
        let (reason, message) = says(&world, "AccountReady").await;
        assert_eq!(reason, "BackupPhraseMissing");
        assert!(message.contains("auditbot-backup-phrase"), "{message}");
        assert!(world.api.get("secrets", NAMESPACE, "auditbot-backup-phrase").is_none());
        world.api.put("secrets", phrase);
        world.settle::<AuditBot>(&world.start()).await;
        assert_eq!(world.condition::<AuditBot>("AccountReady").0, "True");
    }
}

#[tokio::test]
async fn an_altered_phrase_is_noticed() {
    let world = World::new();
    world.bot::<AuditBot>(&json!({}));
    world.settle::<AuditBot>(&world.start()).await;
    world.api.edit("secrets", NAMESPACE, "auditbot-backup-phrase", |secret| {
        secret["data"]["phrase"] = "b3RoZXI=".into();
    });
    assert_eq!(says(&world, "AccountReady").await.0, "BackupPhraseAltered");
}

#[tokio::test]
async fn a_deleted_account_secret_is_never_replaced() {
    let world = World::new();
    world.bot::<AuditBot>(&json!({}));
    world.settle::<AuditBot>(&world.start()).await;
    world.api.delete("secrets", NAMESPACE, "auditbot-account");
    assert_eq!(says(&world, "AccountReady").await.0, "AccountSecretMissing");
    assert!(world.api.get("secrets", NAMESPACE, "auditbot-account").is_none());
}

#[tokio::test]
async fn a_secret_of_somebody_else_with_our_name_is_not_used() {
    let world = World::new();
    world.secret("auditbot-backup-phrase", &[("phrase", "theirs")]);
    assert_eq!(says(&world, "AccountReady").await.0, "SecretNotOurs");
    assert_eq!(world.secret_text("auditbot-backup-phrase", "phrase"), "theirs");
}

#[tokio::test]
async fn a_namespace_that_did_not_opt_in_gets_the_command() {
    let world = World::new();
    world.api.fault(403, usize::MAX, |call| call.path.contains("/secrets"));
    let (reason, message) = says(&world, "AccountReady").await;
    assert_eq!(reason, "NamespaceNotOpened");
    let command = "kubectl create rolebinding ems-bots-tenant --namespace tenant --clusterrole ems-bots-tenant \
                   --serviceaccount ems-bots-system:ems-bots-operator";
    assert!(message.contains(command), "{message}");
    let bot = world.api.get("auditbots", NAMESPACE, "auditbot").unwrap();
    assert!(
        bot["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty),
        "nothing has to be taken back: {bot}"
    );
    world.api.clear_faults();
    world.settle::<AuditBot>(&world.start()).await;
    assert_eq!(world.condition::<AuditBot>("AccountReady").0, "True");
}

#[tokio::test]
async fn an_object_that_is_refused_is_not_tried_in_a_loop() {
    let world = World::new();
    world.api.fault(422, usize::MAX, |call| call.is_write() && call.path.contains("/statefulsets"));
    world.bot::<AuditBot>(&json!({}));
    let ctx = world.start();
    for _ in 0..3 {
        let error = world.reconcile::<AuditBot>(&ctx).await.unwrap().unwrap_err();
        assert_eq!(error.retry(), Retry::After(Duration::from_mins(5)));
    }
    let (status, reason, message) = world.condition::<AuditBot>("WorkerReady");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "ObjectRefused"));
    assert!(message.contains("StatefulSet"), "{message}");
    assert_eq!(world.condition::<AuditBot>("AccountReady").0, "True");
}

#[tokio::test]
async fn what_is_forbidden_later_is_not_the_accounts_trouble() {
    let world = World::new();
    world.api.fault(403, usize::MAX, |call| call.is_write() && call.path.contains("/statefulsets"));
    world.bot::<AuditBot>(&json!({}));
    assert!(world.reconcile::<AuditBot>(&world.start()).await.unwrap().is_err());
    let (status, _, message) = world.condition::<AuditBot>("WorkerReady");
    assert_eq!(status, "False", "{message}");
    assert!(message.contains("StatefulSet"), "{message}");
    assert_eq!(world.condition::<AuditBot>("AccountReady").0, "True");
}

#[tokio::test]
async fn an_element_web_that_is_not_allowed_gets_nobody() {
    let world = World::new();
    world.bot::<AuditBot>(&json!({"elementWeb": {"host": "evil.example"}}));
    world.settle::<AuditBot>(&world.start()).await;
    let url = || world.api.get("auditbots", NAMESPACE, "auditbot").unwrap()["status"]["loginURL"].clone();
    assert!(url().is_null());
    assert!(world.events().contains(&"ElementWebHostNotAllowed".to_owned()));
    world.api.edit("auditbots", NAMESPACE, "auditbot", |bot| {
        bot["spec"]["elementWeb"]["host"] = "app.example.org".into();
    });
    world.settle::<AuditBot>(&world.start()).await;
    assert_eq!(url(), "https://app.example.org/");
}

#[tokio::test]
async fn a_failing_bot_is_tried_less_and_less_often() {
    let world = World::new();
    world.bot::<AuditBot>(&json!({}));
    let ctx = world.start();
    let object: std::sync::Arc<DeserializeGuard<AuditBot>> = std::sync::Arc::new(
        serde_json::from_value(world.api.get("auditbots", NAMESPACE, "auditbot").unwrap()).unwrap(),
    );
    let error = Error::Homeserver(HomeserverError::Server { status: 500, what: "version" });
    let first = error_policy(object.clone(), &error, ctx.clone());
    for _ in 0..8 {
        error_policy(object.clone(), &error, ctx.clone());
    }
    let later = error_policy(object.clone(), &error, ctx.clone());
    assert_ne!(first, later);
    assert_ne!(first, Action::requeue(Duration::ZERO));
    // However often it failed before: what is under way is looked at again soon.
    let waiting = Error::Waiting("pod auditbot-worker-0 has yet to end".to_owned());
    assert_eq!(error_policy(object, &waiting, ctx), Action::requeue(Duration::from_secs(15)));
}

#[tokio::test]
async fn a_bot_that_cannot_be_read_is_told_of_and_left_alone() {
    let world = World::new();
    world.bot::<AdminBot>(&json!({"displayName": {"not": "a text"}}));
    world.settle::<AdminBot>(&world.start()).await;
    assert_eq!(world.events(), ["InvalidSpec"]);
    assert_eq!(world.api.names("secrets", NAMESPACE).len(), 2);
    assert_eq!(world.condition::<AdminBot>("Ready").1, "InvalidSpec");
}

#[tokio::test]
async fn a_bot_that_cannot_be_read_any_more_is_not_ready_and_loses_nothing() {
    let world = World::new();
    world.bot::<AuditBot>(&json!({"displayName": "Auditor"}));
    world.settle::<AuditBot>(&world.start()).await;
    world.worker_is_ready::<AuditBot>();
    world.worker_reports::<AuditBot>().await;
    world.settle::<AuditBot>(&world.start()).await;
    assert_eq!(world.condition::<AuditBot>("Ready").0, "True");
    let status = || world.api.get("auditbots", NAMESPACE, "auditbot").unwrap()["status"].clone();
    let before = status();
    let name = |name| {
        world.api.edit("auditbots", NAMESPACE, "auditbot", |bot| bot["spec"]["displayName"] = name);
    };
    name(json!({"not": "a text"}));
    world.settle::<AuditBot>(&world.start()).await;
    let (ready, reason, message) = world.condition::<AuditBot>("Ready");
    assert_eq!((ready.as_str(), reason.as_str()), ("False", "InvalidSpec"));
    assert!(message.contains("kubectl edit"), "{message}");
    for field in ["userID", "adminUserID", "backupPhrase"] {
        assert!(!before[field].is_null() && before[field] == status()[field], "{field}");
    }
    assert_eq!(world.condition::<AuditBot>("AccountReady").0, "True", "its account is as it was");
    name(json!("Auditor"));
    world.settle::<AuditBot>(&world.start()).await;
    assert_eq!(world.condition::<AuditBot>("Ready").0, "True");
}
