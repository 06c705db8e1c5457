//! People who talk, and note what their homeserver accepts.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    Client, Synapse,
    ledger::{Ledger, Said},
    services::{Person, urlencode},
};

const MOST_ROOMS: usize = 30;

/// What talkers share.
#[derive(Debug, Clone, Default)]
pub struct Square {
    pub ledger: Arc<Ledger>,
    /// Rooms without encryption that everybody may join.
    pub rooms: Arc<Mutex<Vec<String>>>,
    /// Cancelled when everybody shall fall silent.
    pub silence: CancellationToken,
    /// Every message without encryption is longer by so many bytes.
    pub padding: usize,
}

/// One person, over plain HTTP.
pub struct Talker {
    square: Square,
    http: reqwest::Client,
    url: String,
    token: String,
    rng: StdRng,
    joined: Vec<String>,
    founded: Vec<String>,
    /// Messages that may be edited, with their rooms.
    own: Vec<(String, String)>,
    transactions: u64,
}

impl Talker {
    pub fn new(square: &Square, synapse: &Synapse, person: &Person, seed: u64) -> Self {
        super::init();
        Self {
            square: square.clone(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            url: synapse.host_url.clone(),
            token: person.access_token.clone(),
            rng: StdRng::seed_from_u64(seed),
            joined: Vec::new(),
            founded: Vec::new(),
            own: Vec::new(),
            transactions: 0,
        }
    }

    /// Talks until there shall be silence.
    pub async fn talk(mut self) {
        while !self.square.silence.is_cancelled() {
            self.act().await;
            // As fast as the homeserver allows, nobody else would get anything of this machine's processors.
            let pause = Duration::from_millis(self.rng.random_range(100..500));
            tokio::time::sleep(pause).await;
        }
    }

    async fn act(&mut self) {
        if self.rng.random_range(0..300) == 0 && self.square.rooms.lock().unwrap().len() < MOST_ROOMS {
            let name = format!("room {}", self.next());
            self.found(&name).await;
        }
        let Some(room) = self.choose() else { return };
        if !self.joined.contains(&room) {
            self.ask("POST", &format!("join/{}", urlencode(&room)), json!({})).await;
            self.joined.push(room.clone());
        }
        match self.rng.random_range(0..100) {
            0..78 => {
                let event = self.say(&room).await;
                self.own.push((room, event));
            }
            78..84 => self.edit().await,
            84..89 => self.react().await,
            89..92 => self.redact(&room).await,
            92..97 => {
                let topic = json!({"topic": format!("topic {}", self.next())});
                self.state(&room, "m.room.topic", topic).await;
            }
            _ => self.leave(&room).await,
        }
    }

    fn choose(&mut self) -> Option<String> {
        let rooms = self.square.rooms.lock().unwrap();
        (!rooms.is_empty()).then(|| rooms[self.rng.random_range(0..rooms.len())].clone())
    }

    fn next(&mut self) -> u64 {
        self.transactions += 1;
        self.transactions
    }

    /// One request, straight to the homeserver, that has to succeed.
    async fn ask(&self, method: &str, path: &str, body: Value) -> Value {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let url = format!("{}/_matrix/client/v3/{path}", self.url);
        let sent = self.http.request(method, url).bearer_auth(&self.token).json(&body).send().await;
        let answer = sent.expect("the homeserver answers its clients");
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }

    async fn send(&mut self, room: &str, kind: &str, content: Value) -> String {
        let path = format!("rooms/{}/send/{kind}/t{}", urlencode(room), self.next());
        let answer = self.ask("PUT", &path, content).await;
        answer["event_id"].as_str().unwrap().to_owned()
    }

    /// Says something; the result is the event.
    pub async fn say(&mut self, room: &str) -> String {
        let body = format!("{}{}", self.text(), " and so on".repeat(self.square.padding / 10));
        let event = self.send(room, "m.room.message", json!({"msgtype": "m.text", "body": body})).await;
        self.square.ledger.enter(&event, room, Said::Plain(body));
        event
    }

    fn text(&mut self) -> String {
        format!("text {} {:08x}", self.next(), self.rng.random::<u32>())
    }

    /// Many messages into one room, without anything between them.
    pub async fn burst(&mut self, room: &str, count: usize) {
        if !is_among(&self.joined, room) {
            self.ask("POST", &format!("join/{}", urlencode(room)), json!({})).await;
            self.joined.push(room.to_owned());
        }
        for _ in 0..count {
            self.say(room).await;
        }
    }

    async fn edit(&mut self) {
        let Some((room, target)) = self.pick(false) else { return };
        let body = self.text();
        let content = json!({"msgtype": "m.text", "body": format!("* {body}"),
            "m.new_content": {"msgtype": "m.text", "body": body},
            "m.relates_to": {"rel_type": "m.replace", "event_id": target}});
        let event = self.send(&room, "m.room.message", content).await;
        self.square.ledger.enter(&event, &room, Said::Edit(body));
    }

    async fn react(&mut self) {
        // Nobody can give the same reaction twice.
        let Some((room, target)) = self.pick(true) else { return };
        let relation = json!({"rel_type": "m.annotation", "event_id": target, "key": "+1"});
        let event = self.send(&room, "m.reaction", json!({"m.relates_to": relation})).await;
        self.square.ledger.enter(&event, &room, Said::Other("reactions"));
    }

    /// One of the person's own messages in a room that the person is in.
    fn pick(&mut self, remove: bool) -> Option<(String, String)> {
        let fitting: Vec<usize> =
            (0..self.own.len()).filter(|at| self.joined.contains(&self.own[*at].0)).collect();
        let at = *fitting.get(self.rng.random_range(0..fitting.len().max(1)))?;
        let own = &mut self.own;
        if own.len() > 200 {
            own.drain(..100);
            return None;
        }
        Some(if remove { own.swap_remove(at) } else { own[at].clone() })
    }

    /// Says something and takes it back.
    async fn redact(&mut self, room: &str) {
        let event = self.say(room).await;
        self.square.ledger.enter(&event, room, Said::Doomed);
        let path = format!("rooms/{}/redact/{}/t{}", urlencode(room), urlencode(&event), self.next());
        let answer = self.ask("PUT", &path, json!({"reason": "a slip"})).await;
        let redaction = answer["event_id"].as_str().unwrap();
        self.square.ledger.enter(redaction, room, Said::Other("redactions"));
    }

    async fn state(&mut self, room: &str, kind: &str, content: Value) {
        if !is_among(&self.founded, room) {
            return;
        }
        let path = format!("rooms/{}/state/{kind}/", urlencode(room));
        let answer = self.ask("PUT", &path, content).await;
        let event = answer["event_id"].as_str().unwrap();
        self.square.ledger.enter(event, room, Said::Other("state changes"));
    }

    /// Of a room of another founder: a room has to have somebody who can let the bot in.
    async fn leave(&mut self, room: &str) {
        if is_among(&self.founded, room) {
            return;
        }
        self.ask("POST", &format!("rooms/{}/leave", urlencode(room)), json!({})).await;
        self.joined.retain(|known| known != room);
    }

    /// Makes a room that everybody may join.
    pub async fn found(&mut self, name: &str) -> String {
        let room = self.ask("POST", "createRoom", json!({"preset": "public_chat", "name": name})).await;
        let room = room["room_id"].as_str().unwrap().to_owned();
        self.joined.push(room.clone());
        self.founded.push(room.clone());
        self.square.rooms.lock().unwrap().push(room.clone());
        room
    }
}

fn is_among(rooms: &[String], room: &str) -> bool {
    rooms.iter().any(|known| known == room)
}

/// Two people of a client with encryption, who talk in rooms of theirs until there shall be silence.
pub struct Confidants {
    pub client: Client,
    pub people: [String; 2],
    pub bot: String,
}

impl Confidants {
    /// A room that the bot is in; nothing was said there before it came.
    pub fn room(&mut self, name: &str, second: &str) -> Option<String> {
        let [first, _] = self.people.clone();
        let room =
            self.client.try_call("createRoom", json!({"user": first, "encrypted": true, "name": name}));
        let room = room.ok()?["room"].as_str()?.to_owned();
        self.client.try_call("invite", json!({"user": first, "room": room, "target": second})).ok()?;
        self.client.try_call("join", json!({"user": self.people[1], "room": room})).ok()?;
        for person in self.people.clone() {
            let wait = json!({"user": person, "room": room, "target": self.bot, "membership": "join",
                "timeoutMs": 90_000});
            self.client.try_call("waitForMember", wait).ok()?;
        }
        Some(room)
    }

    /// Blocks; for a thread of its own.
    pub fn talk(mut self, square: &Square, second: &str, seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut rooms: Vec<String> =
            (0..2).filter_map(|at| self.room(&format!("secret {at}"), second)).collect();
        assert!(!rooms.is_empty(), "the bot came into no encrypted room");
        let mut own: Vec<(String, String, String)> = Vec::new();
        for count in 0_u64.. {
            if square.silence.is_cancelled() {
                return;
            }
            std::thread::sleep(Duration::from_millis(rng.random_range(100..500)));
            if count % 150 == 149 && rooms.len() < 6 {
                rooms.extend(self.room(&format!("secret {count}"), second));
            }
            let person = self.people[rng.random_range(0..2)].clone();
            let room = rooms[rng.random_range(0..rooms.len())].clone();
            let body = format!("secret {count} {:08x}", rng.random::<u32>());
            let enter = |event: &str, room: &str, said| square.ledger.enter(event, room, said);
            // Under this load a client may wait for too long, and not send.
            match rng.random_range(0..10) {
                0 if !own.is_empty() => {
                    let (person, room, event) = own.swap_remove(rng.random_range(0..own.len()));
                    let edit = json!({"user": person, "room": room, "event": event, "body": body});
                    if let Some(edit) = self.event("edit", edit) {
                        enter(&edit, &room, Said::EncryptedEdit(body));
                    }
                }
                1 if !own.is_empty() => {
                    let (person, room, event) = own.swap_remove(rng.random_range(0..own.len()));
                    let reaction = json!({"user": person, "room": room, "event": event, "key": "👍"});
                    if let Some(reaction) = self.event("react", reaction) {
                        enter(&reaction, &room, Said::Other("reactions"));
                    }
                }
                kind => {
                    let message = json!({"user": person, "room": room, "body": body});
                    let Some(event) = self.event("send", message) else { continue };
                    if kind != 2 {
                        enter(&event, &room, Said::Encrypted(body));
                        own.push((person, room, event));
                        continue;
                    }
                    enter(&event, &room, Said::Doomed);
                    let redaction = json!({"user": person, "room": room, "event": event});
                    if let Some(redaction) = self.event("redact", redaction) {
                        enter(&redaction, &room, Said::Other("redactions"));
                    }
                }
            }
        }
    }

    /// The event of an operation, if the client did it.
    fn event(&mut self, operation: &str, arguments: Value) -> Option<String> {
        let done = self.client.try_call(operation, arguments).ok()?;
        done["event"].as_str().map(str::to_owned)
    }
}
