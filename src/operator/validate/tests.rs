use serde_json::{Value, json};

use super::*;
use crate::{
    crd::{AdminBot, AuditBot},
    operator::fixtures::{UID, audit_bot, bot, found, names, secret},
};

fn check(spec: &Value, found: &Found) -> Result<Validated, Problem> {
    validate(&audit_bot(spec), &names::<AuditBot>(), found, &[])
}

#[test]
fn the_smallest_bot_is_valid() {
    let valid = check(&json!({}), &found()).unwrap();
    assert_eq!(valid.user_id.as_str(), "@auditbot:example.org");
    assert_eq!(valid.admin_localpart.as_str(), "auditbot-admin-6f1c2a9b");
    assert_eq!(valid.owner.uid, UID);
    assert_eq!(valid.owner.block_owner_deletion, None, "it would need another right");
    let workload = valid.workload.unwrap();
    assert_eq!((workload.database_port, workload.homeserver_port), (5433, 8008));
    assert_eq!(workload.schema, "auditbot");
    let admin = validate(&bot::<AdminBot>(&json!({})), &names::<AdminBot>(), &found(), &[]).unwrap();
    assert_eq!(admin.user_id.as_str(), "@adminbot:example.org");
    assert_ne!(admin.identity, valid.identity);
}

#[test]
fn each_problem_of_the_account_has_its_reason() {
    let without = |remove: fn(&mut Found)| {
        let mut found = found();
        remove(&mut found);
        found
    };
    let ca = json!({"homeserver": {"caSecretRef": {"name": "ca"}}});
    let cases: Vec<(&str, Value, Found)> = vec![
        ("InvalidSpec", json!({"username": "Not A Localpart"}), found()),
        ("InvalidSpec", json!({"homeserver": {"serverName": "not a name"}}), found()),
        ("InvalidSpec", json!({"homeserver": {"url": "nowhere"}}), found()),
        ("InvalidSpec", json!({"homeserver": {"adminApi": {}}}), found()),
        ("SecretMissing", json!({}), without(|found| found.credential = None)),
        (
            "SecretKeyMissing",
            json!({}),
            without(|found| found.credential = Some(secret("ems-bots-homeserver", &["other=x"]))),
        ),
        (
            "SecretKeyMissing",
            json!({}),
            without(|found| {
                found.credential = Some(secret("ems-bots-homeserver", &["registration-shared-secret=\n"]));
            }),
        ),
        ("SecretMissing", ca.clone(), found()),
        ("SecretKeyMissing", ca, without(|found| found.homeserver_ca = Some(secret("ca", &["tls.crt=x"])))),
    ];
    for (reason, spec, found) in cases {
        let problem = check(&spec, &found).unwrap_err();
        assert_eq!(problem.reason, reason, "{spec}: {}", problem.message);
        assert!(!problem.message.contains("shared\""), "{}", problem.message);
    }
}

#[test]
fn a_problem_of_the_database_leaves_the_account_alone() {
    let cases = [
        ("SecretMissing", None),
        (
            "SecretKeyMissing",
            Some(secret("ems-bots-database", &["host=h", "port=1", "dbname=d", "username=u"])),
        ),
        (
            "SecretKeyInvalid",
            Some(secret("ems-bots-database", &["host=h", "port=x", "dbname=d", "username=u", "password=p"])),
        ),
    ];
    for (reason, database) in cases {
        let valid = check(&json!({}), &Found { database, ..found() }).unwrap();
        assert_eq!(valid.workload.unwrap_err().reason, reason);
    }
    let given = json!({"database": {"writer": {"secretRef": {"name": "writer"}}}});
    assert_eq!(check(&given, &found()).unwrap().workload.unwrap_err().reason, "SecretMissing");
    let writer = Some(secret("writer", &["username=w", "password=p"]));
    let workload = check(&given, &Found { writer, ..found() }).unwrap().workload.unwrap();
    assert_eq!(workload.writer.unwrap().secret, "writer");
}

#[test]
fn attachments_go_only_where_the_secret_of_the_bucket_says() {
    let place = |endpoint: &str, name: &str, prefix: Value| {
        let mut bucket = json!({"endpoint": endpoint, "name": name, "secretRef": {"name": "bucket"}});
        if !prefix.is_null() {
            bucket["prefix"] = prefix;
        }
        json!({"media": {"bucket": bucket}})
    };
    let at = |endpoint: &str| place(endpoint, "attachments", json!("audit/example.org"));
    let with = |bucket| Found { bucket, ..found() };
    let keys = || secret("bucket", &["access-key-id=i", "secret-access-key=geheim"]);
    let good = "https://s3.example.org:9443";
    let workload = check(&at(good), &with(Some(keys()))).unwrap().workload.unwrap();
    let bucket = workload.bucket.unwrap();
    assert_eq!((bucket.port, bucket.spec.name.as_str()), (9443, "attachments"));
    let mut unannotated = keys();
    unannotated.metadata.annotations = None;
    assert!(check(&at(&format!("{good}/")), &with(Some(keys()))).unwrap().workload.is_ok(), "the same place");
    let prefix = || json!("audit/example.org");
    for (reason, spec, bucket) in [
        ("SecretMissing", at(good), None),
        ("SecretKeyMissing", at(good), Some(secret("bucket", &["access-key-id=i"]))),
        ("SecretNotForThisBucket", at(good), Some(unannotated)),
        ("SecretNotForThisBucket", at("https://s3.mallory.example"), Some(keys())),
        // Others may have buckets of the same service.
        ("SecretNotForThisBucket", place(good, "mallory", prefix()), Some(keys())),
        ("SecretNotForThisBucket", place(good, "attachments", json!("mallory")), Some(keys())),
        ("SecretNotForThisBucket", place(good, "attachments", Value::Null), Some(keys())),
    ] {
        let problem = check(&spec, &with(bucket)).unwrap().workload.unwrap_err();
        assert_eq!(problem.reason, reason, "{spec}: {}", problem.message);
        assert!(!problem.message.contains("geheim"), "{}", problem.message);
    }
    let mut with_ca = at(good);
    with_ca["media"]["bucket"]["caSecretRef"] = json!({"name": "ca"});
    let problem = check(&with_ca, &with(Some(keys()))).unwrap().workload.unwrap_err();
    assert_eq!(problem.reason, "SecretMissing");
}

#[test]
fn a_change_of_the_bucket_s_secrets_concerns_the_bot() {
    let bot = audit_bot(&json!({"media": {"bucket": {"endpoint": "https://s3.example.org:9443",
        "name": "attachments", "secretRef": {"name": "bucket"}, "caSecretRef": {"name": "bucket-ca"}}}}));
    let names = crate::operator::dereference::secret_names(&bot);
    assert!(names.contains(&"bucket".to_owned()) && names.contains(&"bucket-ca".to_owned()), "{names:?}");
}

#[test]
fn the_older_claim_wins_and_the_uid_decides_between_equals() {
    let claim = |since: &str, uid: &str| Claim {
        uid: uid.to_owned(),
        since: since.parse().unwrap(),
        kind: BotKind::Audit,
        namespace: "tenant".to_owned(),
        name: "other".to_owned(),
    };
    let claimed =
        |claim: Claim| validate(&audit_bot(&json!({})), &names::<AuditBot>(), &found(), &[claim]).is_err();
    assert!(claimed(claim("2025-12-31T00:00:00Z", "z")));
    assert!(!claimed(claim("2026-01-02T00:00:00Z", "0")));
    assert!(claimed(claim("2026-01-01T00:00:00Z", "0")));
    assert!(!claimed(claim("2026-01-01T00:00:00Z", "z")));
    assert!(!claimed(claim("2025-12-31T00:00:00Z", UID)), "one's own claim");
}

#[test]
fn a_volume_that_was_enlarged_by_hand_is_not_asked_to_shrink() {
    let volume = |size: &str| {
        serde_json::from_value(json!({"metadata": {"name": "v"},
            "spec": {"resources": {"requests": {"storage": size}}}}))
        .ok()
    };
    for (live, expected) in [("5Gi", "5Gi"), ("512Mi", "1Gi")] {
        let valid = check(&json!({}), &Found { volume: volume(live), ..found() }).unwrap();
        assert_eq!(valid.workload.unwrap().storage, expected);
    }
}
