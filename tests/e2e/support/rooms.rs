//! What people do in rooms, over the client-server API of a real Synapse.

use serde_json::Value;

use super::{
    Synapse,
    services::{Person, urlencode},
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
