//! The whole worker against the mock server of the SDK, whose authors say what answers and events look like, and
//! with Alice as a client of the SDK.
//!
//! It keeps nothing of account data and backups, takes no signature of a device with a hyphen in its name, and does
//! not fail in the middle of a request: first starts and interruptions are tested against `matrix_fake`, where the
//! bot of this test has made its identity.

use std::time::Duration;

use matrix_sdk::{
    Client, Room,
    ruma::{
        OwnedEventId, RoomId, UserId, device_id,
        events::{AnySyncTimelineEvent, room::message::RoomMessageEventContent},
        room_id,
        serde::Raw,
        user_id,
    },
    test_utils::mocks::{MatrixMockServer, RoomMessagesResponseTemplate},
};
use matrix_sdk_test::{JoinedRoomBuilder, event_factory::EventFactory};
use serde_json::{Value, json};
use wiremock::{
    Mock, Request, ResponseTemplate,
    matchers::{method, path, path_regex},
};

use crate::{
    matrix_fake::{USER, World},
    worker_scene::Scene,
    worker_stage::{Running, Stage, until},
};

/// The device of the worker.
const DEVICE: &str = "EMS-1";
/// What the mock server calls the first session that it is told of, and the second.
const TOKENS: [&str; 2] = ["TOKEN_0", "TOKEN_1"];

fn room() -> &'static RoomId {
    room_id!("!room:example.org")
}

fn alice() -> &'static UserId {
    user_id!("@alice:example.org")
}

fn bot() -> &'static UserId {
    user_id!("@auditbot:example.org")
}

/// When nothing has happened, a sync waits and ends where it began.
fn nothing_new(request: &Request) -> ResponseTemplate {
    let since = request.url.query_pairs().find(|(name, _)| name == "since");
    let next = since.map_or_else(|| "start".to_owned(), |(_, since)| since.into_owned());
    let waits = Duration::from_millis(50);
    ResponseTemplate::new(200).set_body_json(json!({"next_batch": next})).set_delay(waits)
}

/// The mock server, which knows of the bot what our own one knows.
async fn homeserver(known: &World) -> MatrixMockServer {
    let server = MatrixMockServer::new().await;
    server.mock_crypto_endpoints_preset().await;
    // It knows users by the tokens that it gave to its own clients.
    drop(server.client_builder_for_crypto_end_to_end(bot(), device_id!("EMS-1")));
    let keys =
        json!({"device_keys": known.device_keys[DEVICE], "one_time_keys": known.one_time_keys[DEVICE]});
    let identity = Value::from_iter(known.cross_signing.clone());
    for (name, body) in [("upload", keys), ("device_signing/upload", identity)] {
        let upload = reqwest::Client::new().post(format!("{}/_matrix/client/v3/keys/{name}", server.uri()));
        upload.bearer_auth(TOKENS[0]).json(&body).send().await.unwrap().error_for_status().unwrap();
    }
    let backup = known.backup.map(|at| known.backups[at].clone()).unwrap();
    let mut answers = vec![
        ("versions".to_owned(), json!({"versions": ["v1.12"]})),
        ("v3/account/whoami".to_owned(), json!({"user_id": USER, "device_id": DEVICE})),
        ("v3/joined_rooms".to_owned(), json!({"joined_rooms": [room()]})),
        ("v3/room_keys/version".to_owned(), backup),
    ];
    for (kind, content) in &known.account_data {
        answers.push((format!("v3/user/{USER}/account_data/{kind}"), content.clone()));
    }
    for (name, answer) in answers {
        let given = Mock::given(method("GET")).and(path(format!("/_matrix/client/{name}")));
        given.respond_with(ResponseTemplate::new(200).set_body_json(answer)).mount(&server).await;
    }
    let idle = Mock::given(method("GET")).and(path("/_matrix/client/v3/sync"));
    // Whatever else is mounted for /sync comes before it.
    idle.respond_with(nothing_new).with_priority(u8::MAX).mount(&server).await;
    server
}

/// Alice's client, which is in the room with the bot.
async fn alice_in_room(server: &MatrixMockServer) -> (Client, Room) {
    let device = device_id!("ALICEPHONE");
    let client = server.client_builder_for_crypto_end_to_end(alice(), device).build().await;
    let events = EventFactory::new().room(room()).sender(alice());
    let members = [alice(), bot()].map(|user| events.member(user).into_raw());
    server.mock_get_members().expect_any_access_token().ok(members.to_vec()).mount().await;
    let joined = JoinedRoomBuilder::new(room()).add_state_event(events.room_encryption());
    let sync = server.mock_sync().expect_access_token(TOKENS[1]);
    sync.ok_and_run(&client, |answer| {
        answer.add_joined_room(joined);
    })
    .await;
    let room = client.get_room(room()).expect("she is in it");
    (client, room)
}

/// She says it; the result is the event that the homeserver has got.
async fn says(server: &MatrixMockServer, room: &Room, id: &str, words: &str) -> Raw<AnySyncTimelineEvent> {
    let send = server.mock_room_send().expect_access_token(TOKENS[1]);
    let (event, answer) = send.ok_with_capture(OwnedEventId::try_from(id).unwrap(), alice());
    let _sending = answer.mount_as_scoped().await;
    room.send(RoomMessageEventContent::text_plain(words)).await.unwrap();
    let event = event.await.unwrap();
    // The bot asks for it once more: the SDK has forgotten the ciphertext of what it opened.
    let asked = Mock::given(method("GET")).and(path_regex(format!("/event/(%24|\\$){}$", &id[1..])));
    asked.respond_with(ResponseTemplate::new(200).set_body_json(&event)).mount(server).await;
    event
}

/// The next answer that the bot's /sync gets.
async fn tell(server: &MatrixMockServer, happened: JoinedRoomBuilder, key: Option<Value>) {
    let sync = server.mock_sync().expect_access_token(TOKENS[0]).ok(|answer| {
        answer.add_joined_room(happened);
        if let Some(key) = key {
            answer.add_to_device_event(key);
        }
    });
    sync.up_to_n_times(1).mount().await;
}

/// Waits until the worker's first sync with its cursor has been answered.
async fn until_it_follows(running: &Running) {
    until("it is in sync", || {
        let report = running.board.get();
        let is_synced = report.recording.reason == "Recording";
        is_synced.then_some(()).ok_or((report.recording, report.encryption))
    })
    .await;
}

async fn until_recorded(stage: &Stage, source: &str) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !stage.room_records().await.iter().any(|record| record[0].as_str().unwrap().contains(source)) {
        assert!(tokio::time::Instant::now() < deadline, "{source}: {:#?}", stage.trail().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_of_the_sdk_with_itself_is_recorded() {
    let scene = Scene::established().await;
    let known = scene.fake.world().clone();
    let server = homeserver(&known).await;
    let stage = Stage::of(scene.moved_to(server.uri())).await;
    let running = stage.start(None);
    until_it_follows(&running).await;

    let (_client, in_room) = alice_in_room(&server).await;
    let (giving, key) = server.mock_capture_put_to_device(alice()).await;
    let secret = says(&server, &in_room, "$secret", "only for two").await;
    let key = serde_json::to_value(key.await).unwrap();
    drop(giving);
    let events = EventFactory::new().room(room()).sender(alice());
    let plain = events.text_msg("in the clear").event_id("$plain".try_into().unwrap());
    let happened = JoinedRoomBuilder::new(room()).add_timeline_event(secret).add_timeline_event(plain);
    tell(&server, happened, Some(key)).await;
    until_recorded(&stage, "$plain").await;
    running.stop().await.unwrap();

    // After a restart, with a gap.
    let later = says(&server, &in_room, "$later", "still for two").await;
    let missed = events.text_msg("nobody told").event_id("$missed".try_into().unwrap());
    let known = events.text_msg("in the clear").event_id("$plain".try_into().unwrap());
    let page = RoomMessagesResponseTemplate::default();
    let page = page.events(vec![missed.into_raw_timeline(), known.into_raw_timeline()]).end_token("earlier");
    server.mock_room_messages().expect_access_token(TOKENS[0]).ok(page).mount().await;
    let happened = JoinedRoomBuilder::new(room()).set_timeline_limited().set_timeline_prev_batch("before");
    tell(&server, happened.add_timeline_event(later), None).await;
    let running = stage.start(None);
    until_recorded(&stage, "$missed").await;
    until_recorded(&stage, "$later").await;
    let liked = events.reaction("$plain".try_into().unwrap(), "👍");
    let liked = liked.event_id("$reaction".try_into().unwrap());
    let taken_back = events.redaction("$plain".try_into().unwrap());
    let taken_back = taken_back.event_id("$redaction".try_into().unwrap());
    let happened = JoinedRoomBuilder::new(room()).add_timeline_event(liked).add_timeline_event(taken_back);
    tell(&server, happened, None).await;
    until_recorded(&stage, "$redaction").await;
    running.stop().await.unwrap();

    let mut records = stage.room_records().await;
    records.sort_by_key(ToString::to_string);
    let shown: Vec<_> =
        records.iter().map(|record| [0, 1, 2].map(|at| record[at].as_str().unwrap())).collect();
    let expected = [
        ["matrix:event:$later", "message.sent", "still for two"],
        ["matrix:event:$missed", "message.sent", "nobody told"],
        ["matrix:event:$plain", "message.sent", "in the clear"],
        ["matrix:event:$reaction", "reaction.added", "👍"],
        ["matrix:event:$redaction", "message.redacted", "in the clear"],
        ["matrix:event:$secret", "message.sent", "only for two"],
    ];
    assert_eq!(shown, expected);
}
