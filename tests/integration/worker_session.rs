//! The worker's session: first start, interruptions at every step, restarts, a lost volume, what a
//! person can break, and what a homeserver may refuse.

use ems_bots::worker::session::{IdentityFacts, SessionError, Trouble};
use futures::{StreamExt, TryStreamExt};
use serde_json::json;

use crate::{
    matrix_fake::{Fault, USER},
    worker_scene::{LOGIN, NEW_BACKUP, PHRASE, Scene, in_time},
};

const MARK: &str = "io.element.ems-bots.identity";
#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_is_cross_signed_and_backed_up_before_anything_is_synced() {
    in_time(async {
        let scene = Scene::new().await;
        let session = scene.started().establish(None).await.unwrap();
        assert_eq!((session.device.as_str(), session.trouble), ("EMS-1", None));
        let position = |part: &str| {
            let found = scene.fake.world().requests.iter().position(|request| request.contains(part));
            found.unwrap_or_else(|| panic!("no {part}"))
        };
        let mark = format!("PUT /_matrix/client/v3/user/{USER}/account_data/{MARK}");
        let secrets = ["m.cross_signing.master", "m.megolm_backup.v1"]
            .map(|secret| format!("PUT /_matrix/client/v3/user/{USER}/account_data/{secret}"));
        let order = [
            LOGIN,
            "keys/upload",
            "device_signing/upload",
            "signatures/upload",
            NEW_BACKUP,
            &secrets[0],
            &secrets[1],
            &mark,
        ]
        .map(position);
        assert!(order.is_sorted(), "{order:?} in {:?}", scene.fake.world().requests);
        for receiving in ["/join", "/sync", "/messages"] {
            assert_eq!(scene.fake.count(receiving), 0, "{receiving}");
        }
        let signer = scene.fake.world().cross_signing["self_signing_key"]["keys"].clone();
        let signer = signer.as_object().unwrap().keys().next().unwrap().clone();
        let device = scene.fake.world().device_keys["EMS-1"].clone();
        assert!(device["signatures"][USER].get(&signer).is_some(), "cross-signed: {device}");
        assert_eq!(scene.account_data(MARK), serde_json::to_value(&session.identity).ok());

        let again = scene.started().establish(None).await.unwrap();
        assert_eq!((again.device, again.identity, again.trouble), (session.device, session.identity, None));
        assert_eq!(scene.logins(), 1, "a restart logs in nowhere");
    })
    .await;
}

/// Starts with a fault at one step, then again without.
async fn interrupted(step: &'static str, carried_out: bool, volume_lost: bool) {
    let case = format!("{step}, carried out: {carried_out}, volume lost: {volume_lost}");
    let scene = Scene::new().await;
    let on = match step.strip_prefix("account data ") {
        Some(kind) => format!("PUT /_matrix/client/v3/user/{USER}/account_data/{kind}"),
        None => step.to_owned(),
    };
    let body = "<html>bad gateway</html>";
    // The SDK tries a login again by itself.
    let times = if step == LOGIN { 100 } else { 1 };
    scene.fake.world().faults.push(Fault { on, times, status: 502, body, carried_out });
    let first = scene.started().establish(None).await;
    scene.fake.world().faults.clear();
    assert!(matches!(first, Err(SessionError::Server { status: 502 })), "{case}: {:?}", first.err());
    if volume_lost {
        scene.lose_volume();
    }
    let session = scene.started().establish(None).await;
    let session = session.unwrap_or_else(|error| panic!("{case}: {error}"));
    assert_eq!(session.trouble, None, "{case}");
    assert_eq!(scene.account_data(MARK), serde_json::to_value(&session.identity).ok(), "{case}");
    // Another start finds it in order, without the help of the volume.
    scene.lose_volume();
    let again = scene.started().establish(None).await.unwrap();
    assert_eq!((again.trouble, again.identity), (None, session.identity), "{case}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_that_is_interrupted_anywhere_ends_well() {
    let steps = [
        LOGIN,
        "keys/upload",
        "device_signing/upload",
        "signatures/upload",
        NEW_BACKUP,
        "account data m.secret_storage.key",
        "account data m.secret_storage.default_key",
        "account data m.cross_signing.master",
        "account data m.megolm_backup.v1",
        "account data io.element.ems-bots.identity",
    ];
    // The request is carried out or not, the volume is lost or not. Each start derives keys from the
    // phrase, which takes long on purpose: so the ways take turns, unless all of them are asked for.
    let ways = [(true, true), (false, false), (true, false), (false, true)];
    let all = std::env::var_os("EMS_TEST_EVERY_INTERRUPTION").is_some();
    let cases = steps.into_iter().enumerate().flat_map(|(number, step)| {
        let turns = ways.into_iter().cycle().skip(number).take(if all { ways.len() } else { 1 });
        turns.map(move |(done, lost)| (step, done, lost))
    });
    let cases = futures::stream::iter(cases)
        .map(|(step, done, lost)| tokio::spawn(in_time(interrupted(step, done, lost))))
        .buffer_unordered(4);
    cases.try_collect::<Vec<()>>().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_volume_gets_a_new_device_and_the_same_identity() {
    in_time(async {
        let scene = Scene::new().await;
        let session = scene.started().establish(None).await.unwrap();
        let keys = scene.identity();
        scene.lose_volume();
        let (sessions, homeserver) = scene.started_with(PHRASE);
        let recovered = sessions.establish(Some(&session.identity)).await.unwrap();
        assert_eq!(recovered.device.as_str(), "EMS-2");
        assert_eq!((recovered.trouble, recovered.identity), (None, session.identity));
        assert_eq!(scene.identity(), keys, "the identity was not made anew");
        assert_eq!(scene.fake.count(NEW_BACKUP), 1);
        assert!(recovered.client.encryption().backups().are_enabled().await, "its keys will be backed up");
        assert_eq!(scene.fake.count("device_signing/upload"), 1);
        assert_eq!(homeserver.count("delete_device"), 1, "the lost device is removed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_identity_is_never_made_anew_even_if_its_mark_is_gone() {
    in_time(async {
        let scene = Scene::new().await;
        let session = scene.started().establish(None).await.unwrap();
        let keys = scene.identity();
        scene.lose_volume();
        let kept = {
            let mut world = scene.fake.world();
            world.backup = None;
            std::mem::take(&mut world.account_data)
        };
        let recovered = scene.started().establish(Some(&session.identity)).await.unwrap();
        assert_eq!(recovered.trouble, Some(Trouble::StorageDeleted), "the trail remembers");
        assert_eq!(recovered.identity, session.identity);
        assert_eq!(scene.fake.count("device_signing/upload"), 1);
        assert!(scene.fake.world().backup.is_none());
        assert_eq!(scene.account_data(MARK), None);

        scene.fake.world().account_data = kept;
        scene.fake.world().backup = Some(0);
        let (sessions, _) = scene.started_with("another phrase");
        let refused = sessions.establish(Some(&session.identity)).await.unwrap();
        assert_eq!(refused.trouble, Some(Trouble::PhraseRefused));
        let settled = scene.started().establish(Some(&session.identity)).await.unwrap();
        assert_eq!((settled.trouble, settled.device), (None, refused.device), "once it is put right");
        assert_eq!(scene.identity(), keys);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trail_is_believed_rather_than_the_account_data() {
    in_time(async {
        let scene = Scene::new().await;
        let ours = scene.started().establish(None).await.unwrap().identity;
        // Another client of the bot, which knows the phrase, takes its own identity for the finished one.
        let other = scene.other_client().await;
        scene.fake.world().account_data.clear();
        let theirs = other.started().establish(None).await.unwrap().identity;
        assert_eq!(scene.account_data(MARK), serde_json::to_value(&theirs).ok());
        scene.lose_volume();
        let session = scene.started().establish(Some(&ours)).await.unwrap();
        assert_eq!((session.trouble, session.identity), (Some(Trouble::IdentityReplaced), ours));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_broke_is_named_and_repaired_when_asked() {
    in_time(async {
        let scene = Scene::new().await;
        let sessions = scene.started();
        let session = sessions.establish(None).await.unwrap();
        let keys = scene.identity();
        assert_eq!(sessions.examine(&session).await.unwrap(), None);

        scene.fake.world().backup = None;
        assert_eq!(sessions.examine(&session).await.unwrap(), Some(Trouble::BackupDeleted));
        assert_eq!(scene.fake.count(NEW_BACKUP), 1, "nothing is repaired unasked");
        let repaired = sessions.repair(&session).await.unwrap();
        assert_eq!(repaired.identity.master_key, session.identity.master_key, "what is ours is kept");
        assert_ne!(repaired.identity.backup_version, session.identity.backup_version);
        assert_eq!(sessions.examine(&repaired).await.unwrap(), None);
        assert_eq!(scene.account_data(MARK), serde_json::to_value(&repaired.identity).ok());

        let kept = scene.fake.world().account_data.clone();
        let default_key = "m.secret_storage.default_key".to_owned();
        scene.fake.world().account_data.insert(default_key, json!({"key": "other"}));
        assert_eq!(sessions.examine(&repaired).await.unwrap(), Some(Trouble::StorageReplaced));
        scene.fake.world().account_data = kept;

        {
            let mut world = scene.fake.world();
            let signatures = &mut world.device_keys.get_mut("EMS-1").unwrap()["signatures"][USER];
            *signatures = json!({"ed25519:EMS-1": signatures["ed25519:EMS-1"]});
        }
        assert_eq!(sessions.examine(&repaired).await.unwrap(), Some(Trouble::DeviceUnsigned));
        let signed_again = sessions.repair(&repaired).await.unwrap();
        assert_eq!(sessions.examine(&signed_again).await.unwrap(), None);
        assert_eq!(scene.identity(), keys, "the identity is still ours");

        // Another client of the bot resets everything.
        let other = scene.other_client().await;
        scene.fake.world().account_data.clear();
        other.started().establish(None).await.unwrap();
        assert_ne!(scene.identity(), keys);
        assert_eq!(sessions.examine(&signed_again).await.unwrap(), Some(Trouble::IdentityReplaced));
        let ours = sessions.repair(&signed_again).await.unwrap();
        assert_eq!(sessions.examine(&ours).await.unwrap(), None);
        assert_ne!(ours.identity.master_key, signed_again.identity.master_key);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_told_apart() {
    in_time(async {
        let scene = Scene::new().await;
        let refused = async |status: u16, body: &'static str| {
            // Once: whoever waits, and for how long, is told, and not decided by the SDK.
            let on = LOGIN.to_owned();
            scene.fake.world().faults.push(Fault { on, times: 1, status, body, carried_out: false });
            let error = scene.started().establish(None).await.unwrap_err();
            scene.fake.world().faults.clear();
            error
        };
        let limited =
            refused(429, r#"{"errcode":"M_LIMIT_EXCEEDED","error":"x","retry_after_ms":7000}"#).await;
        assert!(
            matches!(limited, SessionError::RateLimited { retry_after: Some(after) } if after.as_secs() == 7),
            "{limited:?}"
        );
        let locked = r#"{"errcode":"M_USER_LOCKED","error":"x","soft_logout":true}"#;
        let refusal = refused(401, locked).await;
        assert!(matches!(refusal, SessionError::Locked), "{refusal:?}");
        let gone = r#"{"errcode":"M_USER_DEACTIVATED","error":"x"}"#;
        let refusal = refused(403, gone).await;
        assert!(matches!(refusal, SessionError::Deactivated), "{refusal:?}");
        let forbidden = r#"{"errcode":"M_FORBIDDEN","error":"x"}"#;
        let refusal = refused(403, forbidden).await;
        assert!(matches!(refusal, SessionError::PasswordRefused), "{refusal:?}");
        let failing = refused(502, "<html>").await;
        assert!(matches!(failing, SessionError::Server { status: 502 }), "{failing:?}");
        let cut = refused(200, r#"{"user_id": "@audit"#).await;
        assert!(matches!(cut, SessionError::Unreachable { .. }), "{cut:?}");
        assert!(!scene.has_store(1), "a refused login leaves no store that is still being closed");
        scene.fake.world().password_login = false;
        let disabled = scene.started().establish(None).await.unwrap_err();
        assert!(matches!(disabled, SessionError::PasswordLoginDisabled), "{disabled:?}");
        assert!(scene.fake.world().device_keys.is_empty(), "no attempt left a device behind");
        for error in [SessionError::Locked, SessionError::PasswordLoginDisabled, SessionError::DeviceRemoved]
        {
            assert_eq!(error.check().ok, Some(false));
            assert!(error.check().message.len() > 40, "it says what to do");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_account_keeps_its_device_and_a_removed_device_is_replaced() {
    in_time(async {
        let scene = Scene::new().await;
        let session = scene.started().establish(None).await.unwrap();
        let keys = scene.identity();
        scene.fake.world().faults.push(Fault {
            on: "account/whoami".to_owned(),
            times: 1,
            status: 401,
            body: r#"{"errcode":"M_USER_LOCKED","error":"x","soft_logout":true}"#,
            carried_out: false,
        });
        let locked = scene.started().establish(None).await.unwrap_err();
        assert!(matches!(locked, SessionError::Locked), "{locked:?}");
        assert_eq!(scene.logins(), 1, "a locked account is no reason for a new device");

        scene.fake.world().tokens.clear();
        scene.fake.world().device_keys.clear();
        let again = scene.started().establish(None).await.unwrap();
        assert_eq!(again.device.as_str(), "EMS-2");
        assert_eq!((again.identity, again.trouble), (session.identity, None));
        assert_eq!(scene.identity(), keys);
    })
    .await;
}

#[test]
fn facts_read_back() {
    let facts =
        IdentityFacts { master_key: "k".into(), backup_version: "1".into(), secret_storage_key: "s".into() };
    let text = serde_json::to_string(&facts).unwrap();
    assert_eq!(serde_json::from_str::<IdentityFacts>(&text).unwrap(), facts);
}
