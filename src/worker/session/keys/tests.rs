//! Real cryptographic machines: Alice gives a key to the bot, whose process dies while it takes it in.

use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    path::Path,
    pin::pin,
    task::Poll,
};

use matrix_sdk::{
    SqliteStoreConfig,
    ruma::{
        DeviceId, OwnedOneTimeKeyId, RoomId, UserId,
        api::client::{
            keys::{claim_keys, get_keys, upload_keys},
            sync::sync_events::DeviceLists,
            to_device::send_event_to_device,
        },
        device_id,
        events::AnyToDeviceEvent,
        room_id,
        serde::Raw,
        user_id,
    },
};
use matrix_sdk_crypto::{
    DecryptionSettings, EncryptionSettings, EncryptionSyncChanges, OlmMachine, TrustRequirement,
    types::requests::AnyOutgoingRequest,
};
use serde_json::json;

use super::*;

fn alice_id() -> &'static UserId {
    user_id!("@alice:example.org")
}

fn bot_id() -> &'static UserId {
    user_id!("@auditbot:example.org")
}

fn device() -> &'static DeviceId {
    device_id!("EMS-1")
}

fn room() -> &'static RoomId {
    room_id!("!room:example.org")
}

/// No answer of /sync takes more polls than this.
const MOST: usize = 500;

/// A process.
fn live<T>(life: impl Future<Output = T>) -> T {
    // Its end waits for what SQLite has begun.
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(life)
}

async fn bot(folder: &Path, is_ours: bool) -> OlmMachine {
    let store = SqliteCryptoStore::open_with_config(&SqliteStoreConfig::new(folder)).await.unwrap();
    let machine = if is_ours {
        OlmMachine::with_store(bot_id(), device(), KeyStore::new(store), None).await
    } else {
        OlmMachine::with_store(bot_id(), device(), store, None).await
    };
    machine.unwrap()
}

/// Makes the bot's device in a folder. The result is a message of Alice that gives it the key of the room.
async fn given_a_key(folder: &Path) -> Raw<AnyToDeviceEvent> {
    let (bot, alice) = (bot(folder, true).await, OlmMachine::new(alice_id(), device_id!("PHONE")).await);
    let requests = bot.outgoing_requests().await.unwrap();
    let upload = requests.iter().find_map(|request| match request.request() {
        AnyOutgoingRequest::KeysUpload(keys) => Some((request.request_id(), keys.clone())),
        _ => None,
    });
    let (id, keys) = upload.unwrap();
    bot.mark_request_as_sent(id, &upload_keys::v3::Response::new(BTreeMap::new())).await.unwrap();

    let (request, _) = alice.query_keys_for_users([bot_id()]);
    let mut known = get_keys::v3::Response::new();
    let its_keys = BTreeMap::from([(device().to_owned(), keys.device_keys.unwrap())]);
    known.device_keys.insert(bot_id().to_owned(), its_keys);
    alice.mark_request_as_sent(&request, &known).await.unwrap();
    let (request, _) = alice.get_missing_sessions([bot_id()].into_iter()).await.unwrap().unwrap();
    let (name, key) = keys.one_time_keys.into_iter().next().unwrap();
    let claimed: BTreeMap<OwnedOneTimeKeyId, _> = BTreeMap::from([(name, key)]);
    let claimed = BTreeMap::from([(bot_id().to_owned(), BTreeMap::from([(device().to_owned(), claimed)]))]);
    alice.mark_request_as_sent(&request, &claim_keys::v3::Response::new(claimed)).await.unwrap();
    let shared =
        alice.share_room_key(room(), [bot_id()].into_iter(), EncryptionSettings::default()).await.unwrap();
    let sent = send_event_to_device::v3::Response::new();
    alice.mark_request_as_sent(&shared[0].txn_id, &sent).await.unwrap();
    let messages = serde_json::to_value(&shared[0].messages).unwrap();
    let content = &messages[bot_id().as_str()][device().as_str()];
    Raw::new(&json!({"type": "m.room.encrypted", "sender": alice_id(), "content": content}))
        .unwrap()
        .cast_unchecked()
}

/// The bot is told of the message, and dies when it has been polled so many times. Whether it came to the end.
async fn told(bot: &OlmMachine, message: &Raw<AnyToDeviceEvent>, polls: usize) -> bool {
    let (lists, counts) = (DeviceLists::new(), BTreeMap::new());
    let changes = EncryptionSyncChanges {
        to_device_events: vec![message.clone()],
        changed_devices: &lists,
        one_time_keys_counts: &counts,
        unused_fallback_keys: None,
        next_batch_token: Some("s1".to_owned()),
    };
    let settings = DecryptionSettings { sender_device_trust_requirement: TrustRequirement::Untrusted };
    let mut taking_in = pin!(bot.receive_sync_changes(changes, &settings));
    let mut polled = 0;
    poll_fn(|context| {
        if polled == polls {
            return Poll::Ready(false);
        }
        polled += 1;
        taking_in.as_mut().poll(context).map(|done| done.is_ok())
    })
    .await
}

fn copy(from: &Path, to: &Path) {
    for file in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// How often the key is lost when the bot dies at each place there is, and is told again what it was told.
fn losses(is_ours: bool) -> (usize, usize) {
    let pristine = tempfile::tempdir().unwrap();
    let message = live(given_a_key(pristine.path()));
    let mut lost = 0;
    for polls in 1..MOST {
        let folder = tempfile::tempdir().unwrap();
        copy(pristine.path(), folder.path());
        let is_over = live(async { told(&bot(folder.path(), is_ours).await, &message, polls).await });
        let has_key = live(async {
            let bot = bot(folder.path(), is_ours).await;
            assert!(told(&bot, &message, MOST).await);
            bot.store().export_room_keys(|_| true).await.unwrap().len() == 1
        });
        lost += usize::from(!has_key);
        if is_over {
            return (polls, lost);
        }
    }
    panic!("it takes more than {MOST} polls");
}

#[test]
fn wherever_the_process_dies_no_key_is_lost() {
    let (places, lost) = losses(true);
    assert!(places > 1, "it never waits");
    assert_eq!(lost, 0, "of {places}");
}

/// If this fails, the SDK does it by itself, and [`KeyStore`] can go.
#[test]
fn with_the_store_of_the_sdk_alone_it_is() {
    let (places, lost) = losses(false);
    assert!(lost > 0, "none in {places}");
}
