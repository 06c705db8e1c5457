//! Each kind of event once, for real, and what the trail says of it: `docs/trail.md`, row by row. Real Synapse and
//! Postgres; no cluster is needed.

mod absurd;
mod membership;
mod speech;
mod state;

use std::time::Duration;

use ems_bots::domain::{filter::SearchFilter, record::RecordDraft};
use serde_json::{Value, json};

use crate::support::{
    Client, Database, Expected, LocalWorker, Synapse, eventually,
    expected::compare,
    rooms::{create_room, done, in_place, redact, send},
    services::Person,
    unique,
};

/// A homeserver with three people and a worker that runs.
struct Stage {
    synapse: Synapse,
    alice: Person,
    bob: Person,
    carol: Person,
    worker: LocalWorker,
    _database: Database,
}

impl Stage {
    async fn set(name: &str) -> Self {
        let synapse = Synapse::up_with(&unique(name), &["--limits", "off"], None);
        let database = Database::tenant(&unique(name).replace('-', "_"));
        let mut worker = LocalWorker::prepare("auditbot", &synapse, &database).await;
        worker.start(&synapse);
        worker.wait_ready().await;
        let [alice, bob, carol] = ["alice", "bob", "carol"].map(|person| synapse.register(person));
        Self { synapse, alice, bob, carol, worker, _database: database }
    }

    /// A room of alice's that everybody may join, with bob and the bot in it.
    async fn room(&self, mut options: Value) -> String {
        options["preset"] = json!("public_chat");
        self.made(options).await
    }

    /// A room of alice's that is not for everybody, with bob and the bot in it: Synapse allows no calls in others.
    async fn private_room(&self, mut options: Value) -> String {
        options["preset"] = json!("private_chat");
        options["invite"] = json!([self.bob.user_id]);
        self.made(options).await
    }

    async fn made(&self, options: Value) -> String {
        let room = create_room(&self.synapse, &self.alice, options).await;
        done(&self.synapse, &self.bob, &room, "join", json!({})).await;
        in_place(&self.synapse, &self.worker, &room).await;
        room
    }

    /// Waits until the trail has this event, readable.
    async fn recorded(&self, event: &str) {
        eventually("a record of what is taken away", Duration::from_secs(60), || async {
            let found = self.worker.search(&SearchFilter::default()).await;
            let mut found = found.into_iter().filter_map(|record| record.content);
            let is_it = |record: &RecordDraft| {
                record.event_id() == Some(event) && record.action != "message.undecryptable"
            };
            found.find(is_it).map(drop).ok_or_else(|| format!("{event} is missing"))
        })
        .await;
    }

    fn person(&self, name: &str) -> &Person {
        let all = [&self.alice, &self.bob, &self.carol];
        all.into_iter().find(|person| person.user_id == self.synapse.user_id(name)).unwrap()
    }
}

/// How people speak: by the client-server API, or with a client that encrypts.
enum Means<'a> {
    Api(&'a Stage),
    Client(&'a mut Client, &'a Stage),
}

/// Who speaks in a room, and what is to be recorded of it.
struct Conversation<'a> {
    means: Means<'a>,
    room: &'a str,
    expected: Vec<Expected>,
}

impl Conversation<'_> {
    fn user_id(&self, name: &str) -> String {
        match &self.means {
            Means::Api(stage) | Means::Client(_, stage) => stage.synapse.user_id(name),
        }
    }

    /// Somebody sends something; `more` is what its record says besides action and sender.
    async fn say(
        &mut self,
        who: &str,
        kind: &str,
        content: Value,
        action: &'static str,
        more: impl FnOnce(Expected) -> Expected,
    ) -> String {
        let event = match &mut self.means {
            Means::Api(stage) => send(&stage.synapse, stage.person(who), self.room, kind, content).await,
            Means::Client(client, _) => {
                let event = json!({"user": who, "room": self.room, "type": kind, "content": content});
                client.call("sendRaw", event)["event"].as_str().unwrap().to_owned()
            }
        };
        let record = more(Expected::of(&self.user_id(who), event.clone(), action));
        // Clients do not encrypt reactions.
        let is_encrypted = matches!(self.means, Means::Client(..)) && kind != "m.reaction";
        self.expected.push(if is_encrypted { record.encrypted() } else { record });
        event
    }

    /// Somebody takes something away.
    async fn take(
        &mut self,
        who: &str,
        event: &str,
        reason: &str,
        action: &'static str,
        more: impl FnOnce(Expected) -> Expected,
    ) {
        let redaction = match &mut self.means {
            Means::Api(stage) => redact(&stage.synapse, stage.person(who), self.room, event, reason).await,
            Means::Client(client, stage) => {
                // What is redacted before it is captured has no ciphertext any more.
                stage.recorded(event).await;
                let what = json!({"user": who, "room": self.room, "event": event, "reason": reason});
                client.call("redact", what)["event"].as_str().unwrap().to_owned()
            }
        };
        let record = Expected::of(&self.user_id(who), redaction, action).because(reason);
        self.expected.push(more(record.relates("event", event, "redacts")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_of_event_becomes_the_record_that_is_promised() {
    let mut stage = Stage::set("kinds").await;
    let square = stage.room(json!({"name": "Square", "room_version": "12"})).await;
    println!("-- what people say");
    let parlour = stage.private_room(json!({"name": "Parlour", "room_version": "12"})).await;
    let mut conversation = Conversation { means: Means::Api(&stage), room: &parlour, expected: Vec::new() };
    speech::each_kind(&mut conversation).await;
    let mut all = conversation.expected;
    println!("-- what makes no sense");
    all.extend(absurd::each_kind(&stage, &square).await);
    println!("-- what a room is");
    all.extend(state::each_kind(&stage, &square).await);
    println!("-- who is in it");
    all.extend(membership::each_kind(&stage).await);
    compare(&stage.worker, &all).await;
    assert_eq!(stage.worker.stop().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_of_message_is_read_where_it_is_encrypted() {
    let mut stage = Stage::set("sealed").await;
    let mut client = Client::start();
    for person in [&stage.alice, &stage.bob] {
        client.login(&stage.synapse, person);
    }
    let bob = stage.bob.user_id.clone();
    let room = client.create_room("alice", json!({"encrypted": true, "name": "Board", "invite": [bob]}));
    client.call("join", json!({"user": "bob", "room": room}));
    for (sees, whom) in [("alice", &bob), ("alice", &stage.worker.user_id), ("bob", &stage.worker.user_id)] {
        client.wait_for_member(sees, &room, whom, "join");
    }
    let means = Means::Client(&mut client, &stage);
    let mut conversation = Conversation { means, room: &room, expected: Vec::new() };
    speech::each_kind(&mut conversation).await;
    compare(&stage.worker, &conversation.expected).await;
    assert_eq!(stage.worker.count("SELECT count(*) FROM auditbot.pending"), 0);
    assert_eq!(stage.worker.stop().await, 0);
}
