//! Alice, who writes encrypted messages from a device of her own, with a real cryptographic machine.

use std::collections::BTreeMap;

use matrix_sdk::ruma::{
    OwnedDeviceId, OwnedOneTimeKeyId, OwnedUserId, RoomId, UserId,
    api::client::{
        keys::{claim_keys, get_keys},
        to_device::send_event_to_device,
    },
    serde::Raw,
};
use matrix_sdk_crypto::{EncryptionSettings, OlmMachine, types::requests::AnyOutgoingRequest};
use serde_json::{Value, json, value::to_raw_value};

use crate::{
    matrix_fake::{Fake, USER},
    worker_stage::{ROOM, text},
};

const ALICE: &str = "@alice:example.org";
const DEVICE: &str = "ALICEPHONE";

pub(crate) struct Alice {
    machine: OlmMachine,
    room: matrix_sdk::ruma::OwnedRoomId,
}

fn user(id: &str) -> OwnedUserId {
    UserId::parse(id).unwrap()
}

fn raw<T>(value: &Value) -> Raw<T> {
    Raw::from_json(to_raw_value(value).unwrap())
}

impl Alice {
    /// Makes her device and her identity, which has signed it, and shows them to whoever asks.
    pub(crate) async fn new(fake: &Fake) -> Self {
        let machine = OlmMachine::new(&user(ALICE), <&matrix_sdk::ruma::DeviceId>::from(DEVICE)).await;
        let identity = machine.bootstrap_cross_signing(false).await.unwrap();
        let outgoing = machine.outgoing_requests().await.unwrap();
        let uploads = identity.upload_keys_req.iter().chain(&outgoing);
        let uploaded = uploads.filter_map(|outgoing| match outgoing.request() {
            AnyOutgoingRequest::KeysUpload(request) => request.device_keys.as_ref(),
            _ => None,
        });
        let mut device = serde_json::to_value(uploaded.into_iter().next().unwrap()).unwrap();
        let signed = serde_json::to_value(&identity.upload_signatures_req.signed_keys).unwrap();
        let signatures = signed[ALICE][DEVICE]["signatures"][ALICE].as_object().unwrap();
        for (key, signature) in signatures {
            device["signatures"][ALICE][key] = signature.clone();
        }
        let keys = identity.upload_signing_keys_req;
        let key = |key: &Option<matrix_sdk_crypto::types::CrossSigningKey>| json!({ALICE: key});
        fake.world().others = json!({
            "device_keys": {ALICE: {DEVICE: device}},
            "master_keys": key(&keys.master_key),
            "self_signing_keys": key(&keys.self_signing_key),
        });
        Self { machine, room: RoomId::parse(ROOM).unwrap() }
    }

    /// Makes the key of the room; the result is the event that gives it to a device of the bot.
    pub(crate) async fn key_for(&self, fake: &Fake, device: &str) -> Value {
        let (bot, id) = (user(USER), OwnedDeviceId::from(device));
        let (keys, one_time) = {
            let world = fake.world();
            (world.device_keys[device].clone(), world.one_time_keys[device].clone())
        };
        let (request, _) = self.machine.query_keys_for_users([&*bot]);
        let mut known = get_keys::v3::Response::new();
        known.device_keys.insert(bot.clone(), BTreeMap::from([(id.clone(), raw(&keys))]));
        self.machine.mark_request_as_sent(&request, &known).await.unwrap();
        let (request, _) = self.machine.get_missing_sessions([&*bot].into_iter()).await.unwrap().unwrap();
        let (name, key) = one_time.as_object().unwrap().iter().next().unwrap();
        let key = BTreeMap::from([(OwnedOneTimeKeyId::try_from(name.as_str()).unwrap(), raw(key))]);
        let claimed = BTreeMap::from([(bot.clone(), BTreeMap::from([(id.clone(), key)]))]);
        let claimed = claim_keys::v3::Response::new(claimed);
        self.machine.mark_request_as_sent(&request, &claimed).await.unwrap();
        // The key is for everything that she will say.
        let settings = EncryptionSettings { rotation_period_msgs: 10_000, ..EncryptionSettings::default() };
        let shared = self.machine.share_room_key(&self.room, [&*bot].into_iter(), settings);
        let shared = shared.await.unwrap();
        let request = shared.first().expect("the bot's device gets the key");
        let sent = send_event_to_device::v3::Response::new();
        self.machine.mark_request_as_sent(&request.txn_id, &sent).await.unwrap();
        let messages = serde_json::to_value(&request.messages).unwrap();
        json!({"type": "m.room.encrypted", "sender": ALICE, "content": messages[USER][device]})
    }

    /// A message, encrypted with that key.
    pub(crate) async fn says(&self, id: &str, body: &str) -> Value {
        let content = raw(&text(body));
        let encrypted = self.machine.encrypt_room_event_raw(&self.room, "m.room.message", &content);
        json!({"event_id": id, "type": "m.room.encrypted", "sender": ALICE,
            "origin_server_ts": 1_790_000_000_000_u64,
            "content": serde_json::to_value(&encrypted.await.unwrap().content).unwrap()})
    }
}
