//! What people do in rooms, over the client-server API of a real Synapse.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    LocalWorker, Synapse, eventually,
    services::{Person, urlencode},
    unique,
};

pub fn key(event_type: &str, state_key: &str) -> (String, String) {
    (event_type.to_owned(), state_key.to_owned())
}

/// Makes a room and returns its id.
pub async fn create_room(synapse: &Synapse, person: &Person, body: Value) -> String {
    let path = "/_matrix/client/v3/createRoom";
    let (status, answer) = synapse.request("POST", path, &person.access_token, Some(body)).await;
    assert_eq!(status, 200, "{answer}");
    answer["room_id"].as_str().unwrap().to_owned()
}

/// `POST …/rooms/{room}/{verb}`, or `PUT` for state.
pub async fn act(synapse: &Synapse, person: &Person, room: &str, verb: &str, body: Value) -> (u16, Value) {
    let path = format!("/_matrix/client/v3/rooms/{}/{verb}", urlencode(room));
    let method = if verb.starts_with("state/") { "PUT" } else { "POST" };
    synapse.request(method, &path, &person.access_token, Some(body)).await
}

/// As [`act`], where nothing is to be refused.
pub async fn done(synapse: &Synapse, person: &Person, room: &str, verb: &str, body: Value) -> Value {
    let (status, answer) = act(synapse, person, room, verb, body).await;
    assert_eq!(status, 200, "{verb} in {room}: {answer}");
    answer
}

/// Sends a message of any type and returns its event id.
pub async fn send(synapse: &Synapse, person: &Person, room: &str, kind: &str, content: Value) -> String {
    put(synapse, person, room, &format!("send/{}/{}", urlencode(kind), unique("event")), content).await
}

/// Redacts an event and returns the redaction's event id.
pub async fn redact(synapse: &Synapse, person: &Person, room: &str, event: &str, reason: &str) -> String {
    let path = format!("redact/{}/{}", urlencode(event), unique("redaction"));
    put(synapse, person, room, &path, json!({"reason": reason})).await
}

/// Sets a state and returns its event id.
pub async fn set(
    synapse: &Synapse,
    person: &Person,
    room: &str,
    (kind, state_key): (&str, &str),
    content: Value,
) -> String {
    let path = format!("state/{}/{}", urlencode(kind), urlencode(state_key));
    put(synapse, person, room, &path, content).await
}

/// The event of a state, as this person sees it.
pub async fn state(synapse: &Synapse, person: &Person, room: &str, (kind, key): (&str, &str)) -> Value {
    let of = format!("{}/{}", urlencode(kind), urlencode(key));
    let path = format!("/_matrix/client/v3/rooms/{}/state/{of}?format=event", urlencode(room));
    let (status, answer) = synapse.request("GET", &path, &person.access_token, None).await;
    assert_eq!(status, 200, "{of} of {room}: {answer}");
    answer
}

async fn put(synapse: &Synapse, person: &Person, room: &str, path: &str, content: Value) -> String {
    let path = format!("/_matrix/client/v3/rooms/{}/{path}", urlencode(room));
    let (status, answer) = synapse.request("PUT", &path, &person.access_token, Some(content)).await;
    assert_eq!(status, 200, "{path}: {answer}");
    answer["event_id"].as_str().unwrap().to_owned()
}

/// Waits until the bot is in the room with power 100.
pub async fn in_place(synapse: &Synapse, worker: &LocalWorker, room: &str) {
    eventually("the bot's place", Duration::from_secs(60), || async {
        let standing = synapse.standing(room, &worker.user_id).await;
        if standing == ("join".to_owned(), 100) { Ok(()) } else { Err(format!("{standing:?}")) }
    })
    .await;
}
