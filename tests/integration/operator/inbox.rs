//! The inbox of a trail is opened to the console, as far as that needs it and no further; and the console goes where that
//! leads, whatever it led to before.

use std::{sync::Arc, time::Duration};

use base64::Engine as _;
use ems_bots::{
    cli::console::inboxes::KubeInboxes,
    console::{
        deliver::{Delivery, messages},
        estate::Estate,
        forward::Forwarder,
        intake::{Entry, Target},
        metrics::Metrics,
        ports::Inboxes as _,
    },
    crd::AuditBot,
    domain::{BotKind, BotName},
    store::{
        AuditStore as _,
        pg::{Role, platform::PgPlatform},
        platform::PlatformStore as _,
    },
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};

use super::{
    cleanup::{close, goes, is_gone, working_in},
    fake_api::FakeApi,
    world::{NAMESPACE, World},
};
use crate::{postgres::TestDatabase, store_append::message};

fn with_console() -> World {
    let mut world = World::new();
    world.settings.console = Some(("ems-bots-system".to_owned(), "ems-bots-console".to_owned()));
    world
}

#[tokio::test]
async fn the_console_gets_the_password_of_the_inbox_and_no_other() {
    let world = with_console();
    world.bot::<AuditBot>(&json!({"database": {"schema": "trail"}}));
    let ctx = world.start();
    world.settle::<AuditBot>(&ctx).await;
    let secret = world.api.get("secrets", NAMESPACE, "auditbot-inbox").unwrap();
    let keys: Vec<&str> = secret["data"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["dbname", "host", "password", "port", "schema"]);
    let text = |key: &str| world.secret_text("auditbot-inbox", key);
    assert_eq!(text("password"), world.secret_text("auditbot-database-roles", "inbox-password"));
    assert_eq!([text("host"), text("port"), text("dbname"), text("schema")], ["db", "5432", "d", "trail"]);
    assert_eq!(secret["immutable"], true);
    assert_eq!(secret["metadata"]["ownerReferences"][0]["name"], "auditbot");
    let role = world.api.get("roles", NAMESPACE, "auditbot-inbox").unwrap();
    assert_eq!(
        role["rules"],
        json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["auditbot-inbox"], "verbs": ["get"]}])
    );
    let binding = world.api.get("rolebindings", NAMESPACE, "auditbot-inbox").unwrap();
    assert_eq!(
        binding["subjects"],
        json!([{"kind": "ServiceAccount", "name": "ems-bots-console", "namespace": "ems-bots-system"}])
    );
    world.reconcile::<AuditBot>(&world.start()).await.unwrap().unwrap();
    assert!(world.writes().is_empty(), "an idle system is not written to");
}

#[tokio::test]
async fn a_corrected_database_reaches_the_console() {
    let world = with_console();
    world.bot::<AuditBot>(&json!({}));
    let ctx = world.start();
    world.settle::<AuditBot>(&ctx).await;
    let of = [
        ("host", "right"),
        ("port", "5432"),
        ("dbname", "d"),
        ("username", "owner"),
        ("password", "owner-pw"),
    ];
    world.secret("ems-bots-database", &of);
    world.settle_through_errors().await;
    assert_eq!(world.secret_text("auditbot-inbox", "host"), "right");
}

#[tokio::test]
async fn a_secret_of_that_name_that_is_not_the_bots_is_left_alone_and_stops_nothing() {
    let world = with_console();
    world.secret("auditbot-inbox", &[("password", "somebody's")]);
    world.bot::<AuditBot>(&json!({}));
    let ctx = world.start();
    world.settle::<AuditBot>(&ctx).await;
    assert_eq!(world.secret_text("auditbot-inbox", "password"), "somebody's");
    assert!(world.api.get("statefulsets", NAMESPACE, "auditbot-worker").is_some(), "the bot itself works");
    assert_ne!(world.condition::<AuditBot>("WorkerReady").1, "InboxNotOpen");
    let notes = world.notes("InboxNotOpen");
    assert!(notes.len() == 1 && notes[0].contains("Secret auditbot-inbox exists"), "{notes:?}");
    // A change of the bot reaches its worker all the same.
    world.api.edit("auditbots", NAMESPACE, "auditbot", |bot| {
        bot["spec"]["worker"]["scheduling"] = json!({"nodeSelector": {"disk": "fast"}});
    });
    world.settle::<AuditBot>(&ctx).await;
    let set = world.api.get("statefulsets", NAMESPACE, "auditbot-worker").unwrap();
    assert_eq!(set["spec"]["template"]["spec"]["nodeSelector"], json!({"disk": "fast"}));
    world.api.delete("secrets", NAMESPACE, "auditbot-inbox");
    world.settle::<AuditBot>(&ctx).await;
    assert_eq!(world.secret_text("auditbot-inbox", "host"), "db", "it is looked at again without being told");
}

#[tokio::test]
async fn without_a_console_nobody_gets_in() {
    let mut world = with_console();
    world.bot::<AuditBot>(&json!({}));
    world.settle::<AuditBot>(&world.start()).await;
    assert!(world.api.get("secrets", NAMESPACE, "auditbot-inbox").is_some());
    world.settings.console = None;
    world.settle::<AuditBot>(&world.start()).await;
    for plural in ["roles", "rolebindings"] {
        assert_eq!(world.api.names(plural, NAMESPACE), ["auditbot-worker"], "{plural}");
    }
    assert!(world.api.get("secrets", NAMESPACE, "auditbot-inbox").is_none(), "nor has its password");
    world.secret("auditbot-inbox", &[("password", "somebody's")]);
    world.settle::<AuditBot>(&world.start()).await;
    assert_eq!(world.secret_text("auditbot-inbox", "password"), "somebody's");
}

#[tokio::test]
async fn a_database_that_is_corrected_during_the_deletion_reaches_the_console() {
    let world = working_in(with_console(), "Retain").await;
    world.api.delete("auditbots", NAMESPACE, "auditbot");
    let of = [
        ("host", "right"),
        ("port", "5432"),
        ("dbname", "d"),
        ("username", "owner"),
        ("password", "owner-pw"),
    ];
    world.secret("ems-bots-database", &of);
    let ctx = world.start();
    for _ in 0..3 {
        assert!(world.reconcile::<AuditBot>(&ctx).await.unwrap().is_err(), "the last record is waited for");
    }
    assert_eq!(world.secret_text("auditbot-inbox", "host"), "right");
    // What is wrong with it holds up no deletion.
    world.api.delete("secrets", NAMESPACE, "ems-bots-database");
    world.reconcile::<AuditBot>(&ctx).await;
    close(&world);
    goes(&world).await;
    assert!(is_gone(&world));
}

fn audit_bot() -> BotName {
    BotName { namespace: NAMESPACE.into(), name: "auditbot".into(), kind: BotKind::Audit }
}

/// The Secret that leads to a database, made anew as the operator does it.
fn lead_to(api: &FakeApi, host: &str, port: u16, dbname: &str) {
    let password = TestDatabase::password(Role::Inbox);
    let port = port.to_string();
    let of = [
        ("host", host),
        ("port", &port),
        ("dbname", dbname),
        ("schema", "auditbot"),
        ("password", &password),
    ];
    let encode = |value: &str| base64::engine::general_purpose::STANDARD.encode(value);
    let data: serde_json::Map<String, Value> =
        of.iter().map(|(key, value)| ((*key).to_owned(), encode(value).into())).collect();
    api.delete("secrets", NAMESPACE, "auditbot-inbox");
    api.put(
        "secrets",
        json!({"apiVersion": "v1", "kind": "Secret", "data": data,
            "metadata": {"name": "auditbot-inbox", "namespace": NAMESPACE}}),
    );
}

fn lead_to_database(api: &FakeApi, database: &TestDatabase) {
    lead_to(api, &database.host, database.port, &database.name);
}

async fn in_inbox(database: &TestDatabase) -> usize {
    let store = database.writer_with_inbox(1);
    store.open(None).await.unwrap();
    store.inbox(100).await.unwrap().len()
}

#[tokio::test]
async fn when_the_database_of_a_trail_moves_its_records_go_to_the_new_one() {
    let (before, after) = (TestDatabase::migrated().await, TestDatabase::migrated().await);
    let api = FakeApi::default();
    let inboxes = KubeInboxes::new(api.client());
    let put =
        async |counter: i64| inboxes.find(&audit_bot()).await.unwrap().put(counter, b"x").await.unwrap();
    lead_to_database(&api, &before);
    put(1).await;
    put(2).await;
    lead_to_database(&api, &after);
    put(3).await;
    assert_eq!((in_inbox(&before).await, in_inbox(&after).await), (2, 1));
    api.delete("secrets", NAMESPACE, "auditbot-inbox");
    let gone = inboxes.find(&audit_bot()).await.map(drop).unwrap_err();
    assert!(gone.to_string().contains("auditbot-inbox"), "{gone}");
}

#[tokio::test]
async fn a_wrong_address_that_never_answers_is_forgotten_when_it_is_corrected() {
    let (own, tenant) = (TestDatabase::empty().await, TestDatabase::migrated().await);
    let platform = Arc::new(PgPlatform::new(own.owner()));
    platform.migrate().await.unwrap();
    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    let api = FakeApi::default();
    let inboxes = Arc::new(KubeInboxes::new(api.client()));
    // It takes connections and says nothing.
    let wrong = TcpListener::bind("127.0.0.1:0").await.unwrap();
    lead_to(&api, "127.0.0.1", wrong.local_addr().unwrap().port(), &tenant.name);
    let delivery = Delivery::new(inboxes.clone(), platform.clone(), metrics.clone());
    let entry = Entry { target: Target::Bot(audit_bot()), draft: message("one", "one") };
    let started = tokio::time::Instant::now();
    delivery.deliver(messages(&[entry], &Estate::default(), true)).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5), "nobody waits for it as long as it takes");
    assert_eq!(platform.totals(true).await.unwrap().messages, 1);
    lead_to_database(&api, &tenant);
    let estate = watch::channel(Arc::new(Estate::default())).1;
    let forwarder = Forwarder { platform: platform.clone(), inboxes, estate, metrics };
    assert!(forwarder.page().await.unwrap());
    assert_eq!((platform.totals(true).await.unwrap().messages, in_inbox(&tenant).await), (0, 1));
}
