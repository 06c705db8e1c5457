//! From the custom resource to the worker's instructions.

use std::time::Duration;

use serde_json::{Value, json};

use super::{minimal, refusals, with};
use crate::{
    crd::{
        AdminApi, AdminBot, AuditBot, Bot,
        convert::{ConvertError, bytes, duration, instructions, selection},
    },
    domain::{
        BotKind,
        selection::Leave,
        trail::TrailPoint,
        worker::{MediaMode, MediaPolicy, SuspendCapture},
    },
};

fn audit(changes: &[(&str, Value)]) -> AuditBot {
    let object = changes
        .iter()
        .fold(minimal(BotKind::Audit), |object, (pointer, value)| with(object, pointer, value.clone()));
    serde_json::from_value(object).unwrap()
}

fn point(epoch: i64, size: i64) -> TrailPoint {
    TrailPoint { epoch, size, root_hash: "a".repeat(64) }
}

#[test]
fn a_minimal_bot_has_the_default_instructions() {
    let metadata = [("/metadata/generation", json!(3)), ("/metadata/uid", json!("one-life"))];
    let told = instructions(&audit(&metadata), None).unwrap();
    assert_eq!((told.generation, told.uid.as_str()), (3, "one-life"));
    assert_eq!(told.server_name.as_str(), "example.org");
    assert_eq!(told.username.as_str(), "auditbot");
    assert_eq!(told.display_name, "Audit Bot");
    assert!(told.rooms.direct_messages && told.rooms.local_only);
    assert!(!told.suspend && !told.coverage_paused && !told.deleting);
    assert_eq!(told.suspend_capture, SuspendCapture::Skip);
    assert_eq!(told.promised, None);
}

#[test]
fn wishes_arrive() {
    let told = instructions(
        &audit(&[
            ("/spec/suspend", json!(true)),
            ("/spec/suspendCapture", json!("CatchUp")),
            ("/metadata/annotations", json!({"ems.element.io/coverage-paused": "true"})),
            ("/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z")),
            ("/spec/rooms", json!({
                "directMessages": false, "localOnly": false, "deny": ["!d:x"], "excludeUsers": ["@u:x"],
                "excludeSpaces": ["!s:x"], "creatorPattern": "^@a", "minimumLastActive": "2h", "notice": "Hello",
                "leaveExcluded": true,
            })),
        ]),
        None,
    )
    .unwrap();
    assert!(told.suspend && told.coverage_paused && told.deleting);
    assert_eq!(told.suspend_capture, SuspendCapture::CatchUp);
    assert!(!told.rooms.direct_messages && !told.rooms.local_only);
    assert_eq!(told.rooms.leave, Leave::Excluded);
    assert_eq!(told.rooms.deny[0].as_str(), "!d:x");
    assert!(told.rooms.only.is_empty());
    assert_eq!(told.rooms.exclude_users[0].as_str(), "@u:x");
    assert_eq!(told.rooms.exclude_spaces[0].as_str(), "!s:x");
    assert!(told.rooms.creator_pattern.unwrap().is_match("@alice:x"));
    assert_eq!(told.rooms.minimum_last_active, Some(Duration::from_hours(2)));
    assert_eq!(told.rooms.notice.as_deref(), Some("Hello"));
}

#[test]
fn only_the_word_true_pauses() {
    for (value, paused) in [("true", true), ("false", false), ("", false), ("True", false)] {
        let bot = audit(&[("/metadata/annotations", json!({"ems.element.io/coverage-paused": value}))]);
        assert_eq!(instructions(&bot, None).unwrap().coverage_paused, paused, "{value:?}");
    }
}

#[test]
fn a_decision_to_repair_has_a_bounded_value() {
    let told = |value: &str| {
        let bot = audit(&[("/metadata/annotations", json!({"ems.element.io/repair-encryption": value}))]);
        instructions(&bot, None).unwrap().repair_encryption
    };
    assert_eq!(told("2026-01-01"), Some("2026-01-01".to_owned()));
    assert_eq!(told(""), None);
    assert_eq!(told(&"ä".repeat(200_000)).unwrap().chars().count(), 100);
    assert_eq!(instructions(&audit(&[]), None).unwrap().repair_encryption, None);
}

#[test]
fn the_further_point_is_promised() {
    let reported = |epoch: i64, size: i64| {
        audit(&[("/status/trail", json!({"epoch": epoch, "size": size, "rootHash": "a".repeat(64)}))])
    };
    let promised = |bot: &AuditBot, kept| instructions(bot, kept).unwrap().promised;
    assert_eq!(promised(&audit(&[]), Some(point(1, 5))), Some(point(1, 5)));
    assert_eq!(promised(&reported(1, 5), None), Some(point(1, 5)));
    assert_eq!(promised(&reported(1, 5), Some(point(1, 9))), Some(point(1, 9)));
    assert_eq!(promised(&reported(1, 9), Some(point(1, 5))), Some(point(1, 9)));
    assert_eq!(promised(&reported(1, 9), Some(point(2, 5))), Some(point(2, 5)));
}

#[test]
fn what_cannot_be_acted_on_is_named() {
    let refused = |field: &str, value: Value| {
        selection(audit(&[(field, value)]).common().rooms).unwrap_err().to_string()
    };
    assert_eq!(refused("/spec/rooms/deny", json!(["#alias:x"])), "spec.rooms.deny is not usable");
    assert_eq!(refused("/spec/rooms/only", json!(["x"])), "spec.rooms.only is not usable");
    assert_eq!(refused("/spec/rooms/excludeUsers", json!(["x"])), "spec.rooms.excludeUsers is not usable");
    assert_eq!(refused("/spec/rooms/excludeSpaces", json!(["x"])), "spec.rooms.excludeSpaces is not usable");
    assert!(
        refused("/spec/rooms/minimumLastActive", json!("soon"))
            .starts_with("spec.rooms.minimumLastActive must be")
    );
    assert!(refused("/spec/rooms/creatorPattern", json!("(")).contains("unclosed group"));
    assert!(refused("/spec/rooms/creatorPattern", json!("(x{1000}){1000}")).contains("too large"));
    assert!(matches!(
        instructions(&audit(&[("/spec/username", json!("Bot"))]), None),
        Err(ConvertError::Id { field: "spec.username", .. })
    ));
}

#[test]
fn durations() {
    for (text, seconds) in
        [("1s", 1), ("2m", 120), ("3h", 10_800), ("4d", 345_600), ("99999d", 8_639_913_600)]
    {
        assert_eq!(duration(text), Some(Duration::from_secs(seconds)), "{text}");
    }
    for text in ["", "s", "1", "0s", "-1s", "1w", "1.5h", "1h30m", "ä", "1ä", "+1s", "99999999999999999999d"]
    {
        assert_eq!(duration(text), None, "{text}");
    }
}

#[test]
fn sizes() {
    for (text, size) in [
        ("1", 1),
        ("1500m", 2),
        ("2k", 2_000),
        ("50Mi", 50 << 20),
        ("0.5Ki", 512),
        (".5Gi", 1 << 29),
        ("100M", 100_000_000),
        ("0", 0),
    ] {
        assert_eq!(bytes(text), Some(size), "{text}");
    }
    for text in ["", ".", "Mi", "x", "1 Mi", "-1", "1e3", "5Ei", "1.2.3", "9999999999999999999999Gi"] {
        assert_eq!(bytes(text), None, "{text}");
    }
}

/// Else the worker would ignore all of the resource.
#[test]
fn every_size_that_the_schema_lets_pass_is_understood() {
    for text in [
        "1",
        "1500m",
        "2k",
        "50Mi",
        ".5Mi",
        "5.",
        "100M",
        "0.1Gi",
        "5e7",
        "5E7",
        "50000000u",
        "5n",
        "+5Mi",
        "-5Mi",
        "1Ti",
        "0000000005",
        "1.2.3",
        ".",
        "Mi",
        "",
        "0",
        "0m",
        "much",
        "1 Mi",
        "0.0000000001Gi",
    ] {
        let object = with(minimal(BotKind::Audit), "/spec/media/maximumSize", json!(text));
        let passes = refusals(BotKind::Audit, &object, None).is_empty();
        assert!(!passes || bytes(text).is_some_and(|size| size > 0), "{text:?}");
        let usual = ["1", "1500m", "2k", "50Mi", "100M", "0.1Gi"];
        assert!(passes || !usual.contains(&text), "{text:?} is refused");
    }
}

#[test]
fn attachments_are_kept_as_the_resource_says() {
    let policy = |changes: &[(&str, Value)]| instructions(&audit(changes), None).map(|told| told.media);
    let of = |mode, maximum_bytes| Ok(Some(MediaPolicy { mode, maximum_bytes, place: None }));
    assert_eq!(policy(&[]), Ok(None));
    assert_eq!(policy(&[("/spec/media", json!({}))]), of(MediaMode::Metadata, 50 << 20));
    let wish = json!({"mode": "Content", "maximumSize": "1Mi"});
    assert_eq!(policy(&[("/spec/media", wish)]), of(MediaMode::Content, 1 << 20));
    let bucket = |prefix: Value| {
        let mut bucket =
            json!({"endpoint": "https://s3.example.org/", "name": "files", "secretRef": {"name": "a"}});
        bucket.as_object_mut().unwrap().extend(prefix.as_object().unwrap().clone());
        policy(&[("/spec/media/bucket", bucket)]).unwrap().unwrap().place
    };
    assert_eq!(bucket(json!({})).as_deref(), Some("https://s3.example.org/files"));
    assert_eq!(bucket(json!({"prefix": "a/b"})).as_deref(), Some("https://s3.example.org/files/a/b"));
    // Stored under a schema without the bound.
    let huge = json!({"mode": "Content", "maximumSize": "100Gi"});
    assert_eq!(policy(&[("/spec/media", huge)]), of(MediaMode::Content, 128 << 20));
    let refused = policy(&[("/spec/media/maximumSize", json!("much"))]).unwrap_err();
    assert!(refused.to_string().starts_with("spec.media.maximumSize must be"), "{refused}");
    let admin: AdminBot = serde_json::from_value(minimal(BotKind::Admin)).unwrap();
    assert_eq!(instructions(&admin, None).unwrap().media, None);
}

#[test]
fn without_a_named_credential_the_default_secret_is_used() {
    let credential = |changes: &[(&str, Value)]| audit(changes).common().homeserver.admin_api();
    let Some(AdminApi::RegistrationSharedSecret(reference)) = credential(&[]) else { panic!() };
    assert_eq!(
        (reference.name.as_str(), reference.key.as_str()),
        ("ems-bots-homeserver", "registration-shared-secret")
    );
    let token = json!({"accessToken": {"name": "a", "key": "b"}});
    let Some(AdminApi::AccessToken(reference)) = credential(&[("/spec/homeserver/adminApi", token)]) else {
        panic!()
    };
    assert_eq!((reference.name.as_str(), reference.key.as_str()), ("a", "b"));
    assert_eq!(credential(&[("/spec/homeserver/adminApi", json!({}))]), None);
}

#[test]
fn schema_defaults_to_the_kind() {
    assert_eq!(audit(&[]).database_schema(), "auditbot");
    assert_eq!(audit(&[("/spec/database/schema", json!("mine"))]).database_schema(), "mine");
    let admin: AdminBot = serde_json::from_value(minimal(BotKind::Admin)).unwrap();
    assert_eq!(admin.database_schema(), "adminbot");
    assert_eq!(admin.bot_name().to_string(), "AdminBot/tenant/adminbot");
}

#[test]
fn fields_that_do_nothing_yet_are_named_when_used() {
    assert!(audit(&[]).fields_without_effect().is_empty());
    let bot = audit(&[
        (
            "/spec/homeserver/adminApi/mas",
            json!({"clientID": "a", "clientSecret": {"name": "a", "key": "b"}}),
        ),
        ("/spec/elementWeb/host", json!("app.element.io")),
        ("/spec/retention/keepForDays", json!(30)),
        ("/spec/media/mode", json!("Content")),
        ("/spec/search/language", json!("english")),
        ("/spec/policies", json!([{"name": "a", "match": {"text": "b"}}])),
    ]);
    assert_eq!(
        bot.fields_without_effect(),
        ["spec.homeserver.adminApi.mas", "spec.elementWeb", "spec.retention", "spec.search", "spec.policies"]
    );
}
