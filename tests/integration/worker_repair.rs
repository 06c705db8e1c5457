//! A repair makes anew what is broken and keeps what is not, and no key backup is lost by it.

use std::time::Duration;

use ems_bots::worker::session::{SessionError, Trouble};
use serde_json::json;

use crate::{
    matrix_fake::{Fault, USER},
    worker_scene::{NEW_BACKUP, Scene, in_time},
};

const DEFAULT_KEY: &str = "m.secret_storage.default_key";
const DELETED: &str = "DELETE /_matrix/client/v3/room_keys/version";
const FETCHED: &str = "GET /_matrix/client/v3/room_keys/keys/";

#[tokio::test(flavor = "multi_thread")]
async fn an_intact_backup_stays_when_the_secret_storage_is_made_anew() {
    in_time(async {
        let scene = Scene::new().await;
        let sessions = scene.started();
        let mut session = sessions.establish(None).await.unwrap();
        let version = session.identity.backup_version.clone();
        for (broken, trouble) in
            [(json!({"key": "other"}), Trouble::StorageReplaced), (json!({}), Trouble::StorageDeleted)]
        {
            scene.fake.world().account_data.insert(DEFAULT_KEY.to_owned(), broken);
            assert_eq!(sessions.examine(&session).await.unwrap(), Some(trouble));
            let storage = session.identity.secret_storage_key.clone();
            session = sessions.repair(&session).await.unwrap();
            assert_eq!(session.identity.backup_version, version, "{trouble:?}");
            assert_ne!(session.identity.secret_storage_key, storage, "{trouble:?}");
            assert_eq!(sessions.examine(&session).await.unwrap(), None, "{trouble:?}");
        }
        // Somebody altered the Secret with the phrase.
        let sessions = scene.started_with("another phrase").0;
        let refused = sessions.establish(None).await.unwrap();
        assert_eq!(refused.trouble, Some(Trouble::PhraseRefused));
        let repaired = sessions.repair(&refused).await.unwrap();
        assert_eq!(repaired.identity.backup_version, version);
        assert_eq!((scene.fake.count(NEW_BACKUP), scene.fake.count(DELETED)), (1, 0));

        scene.lose_volume();
        let recovered =
            scene.started_with("another phrase").0.establish(Some(&repaired.identity)).await.unwrap();
        assert_eq!(recovered.trouble, None);
        let enabled = recovered.client.encryption().backups().are_enabled().await;
        assert!(enabled, "the key in the new secret storage is that of the backup");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_lost_signature_is_made_anew_where_only_that_is_missing() {
    in_time(async {
        let scene = Scene::new().await;
        let sessions = scene.started();
        let session = sessions.establish(None).await.unwrap();
        {
            let mut world = scene.fake.world();
            let signatures = &mut world.device_keys.get_mut("EMS-1").unwrap()["signatures"][USER];
            *signatures = json!({"ed25519:EMS-1": signatures["ed25519:EMS-1"]});
        }
        assert_eq!(sessions.examine(&session).await.unwrap(), Some(Trouble::DeviceUnsigned));
        let before = scene.fake.count("/sync");
        let capturing = session.syncing.lock().await;
        let mut repair = Box::pin(sessions.repair(&session));
        let waited = tokio::time::timeout(Duration::from_secs(1), &mut repair).await;
        assert!(waited.is_err(), "it syncs, which waits for the end of another sync");
        assert_eq!(scene.fake.count("/sync"), before);
        drop(capturing);
        let repaired = repair.await.unwrap();
        assert_eq!(repaired.identity, session.identity, "everything else is kept");
        assert_eq!(sessions.examine(&repaired).await.unwrap(), None);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_backup_is_read_before_a_new_one_is_made() {
    in_time(async {
        let scene = Scene::new().await;
        let sessions = scene.started();
        let session = sessions.establish(None).await.unwrap();
        {
            let mut world = scene.fake.world();
            world.joined = vec!["!one:example.org".to_owned(), "!two:example.org".to_owned()];
            let mut theirs = world.backups[0].clone();
            theirs["version"] = "2".into();
            world.backups.push(theirs);
            world.backup = Some(1);
        }
        assert_eq!(sessions.examine(&session).await.unwrap(), Some(Trouble::BackupReplaced));
        let fault = Fault { on: FETCHED.to_owned(), times: 1, status: 502, body: "", carried_out: false };
        scene.fake.world().faults.push(fault);
        let refused = sessions.repair(&session).await.err();
        assert!(matches!(refused, Some(SessionError::Server { status: 502 })), "{refused:?}");
        assert_eq!(scene.fake.count(NEW_BACKUP), 1, "keys that could not be fetched are not given up");

        let repaired = sessions.repair(&session).await.unwrap();
        assert_eq!(repaired.identity.backup_version, "3");
        assert_eq!(sessions.examine(&repaired).await.unwrap(), None);
        assert_eq!((scene.fake.count(NEW_BACKUP), scene.fake.count(FETCHED)), (2, 3));
        let requests = scene.fake.world().requests.clone();
        let last = |part: &str| requests.iter().rposition(|request| request.contains(part)).unwrap();
        assert!(last(FETCHED) < last(NEW_BACKUP), "{requests:?}");
        assert_eq!(scene.fake.count(DELETED), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_whose_key_is_not_there_any_more_is_left_on_the_homeserver() {
    in_time(async {
        let scene = Scene::new().await;
        let session = scene.started().establish(None).await.unwrap();
        scene.lose_volume();
        let sessions = scene.started_with("another phrase").0;
        let refused = sessions.establish(Some(&session.identity)).await.unwrap();
        assert_eq!(refused.trouble, Some(Trouble::PhraseRefused));
        let repaired = sessions.repair(&refused).await.unwrap();
        assert_ne!(repaired.identity.backup_version, session.identity.backup_version);
        assert_eq!(sessions.examine(&repaired).await.unwrap(), None);
        assert_eq!(scene.fake.count(DELETED), 0, "whoever finds the old phrase again can read it");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_replaced_while_the_backup_of_a_lost_identity_cannot_be_read() {
    in_time(async {
        let scene = Scene::new().await;
        let sessions = scene.started();
        let session = sessions.establish(None).await.unwrap();
        // Another client of the bot resets its identity; the backup is ours again.
        let other = scene.other_client().await;
        scene.fake.world().account_data.clear();
        other.started().establish(None).await.unwrap();
        let theirs = {
            let mut world = scene.fake.world();
            world.joined = vec!["!one:example.org".to_owned()];
            world.backup = Some(0);
            world.requests.clear();
            world.cross_signing.clone()
        };
        assert_eq!(sessions.examine(&session).await.unwrap(), Some(Trouble::IdentityReplaced));
        let fault = Fault { on: FETCHED.to_owned(), times: 1, status: 502, body: "", carried_out: false };
        scene.fake.world().faults.push(fault);
        let refused = sessions.repair(&session).await.err();
        assert!(matches!(refused, Some(SessionError::Server { status: 502 })), "{refused:?}");
        assert_eq!(scene.fake.world().cross_signing, theirs, "no identity is made for a repair that fails");
        let repaired = sessions.repair(&session).await.unwrap();
        assert_eq!(sessions.examine(&repaired).await.unwrap(), None);
        // The new identity signs a backup of its own.
        assert_eq!((scene.fake.count(NEW_BACKUP), scene.fake.count(DELETED)), (1, 0));
    })
    .await;
}
