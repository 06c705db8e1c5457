//! matrix-js-sdk, driven over JSON lines: a client that shares no code with ours.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};

use super::services::{Person, Synapse, dev};

/// One driver process with any number of signed-in people. Its operations are described in
/// `dev/client/README.md`.
#[derive(Debug)]
pub struct Client {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    next: u64,
}

impl Client {
    pub fn start() -> Self {
        let command: Vec<String> = serde_json::from_str(&dev(&["client", "--build"], None)).unwrap();
        let mut process = Command::new(&command[0])
            .args(&command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the client starts");
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, input, output, next: 0 }
    }

    /// One operation; panics with what the client said if it fails.
    pub fn call(&mut self, op: &str, arguments: Value) -> Value {
        self.try_call(op, arguments).unwrap_or_else(|error| panic!("{op} failed: {error}"))
    }

    /// One operation, or what the client said.
    pub fn try_call(&mut self, op: &str, mut arguments: Value) -> Result<Value, Value> {
        self.next += 1;
        arguments["id"] = json!(self.next);
        arguments["op"] = json!(op);
        writeln!(self.input.as_mut().unwrap(), "{arguments}").expect("the client runs");
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let answer: Value =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("{op}: no answer, but {line:?}"));
        assert_eq!(answer["id"], json!(self.next));
        if answer["ok"] == json!(true) { Ok(answer["result"].clone()) } else { Err(answer["error"].clone()) }
    }

    /// Signs a person in on a new device, at the public URL.
    pub fn login(&mut self, synapse: &Synapse, person: &Person) {
        let name = person.user_id.trim_start_matches('@').split(':').next().unwrap();
        self.call(
            "login",
            json!({"user": name, "password": person.password, "homeserver": synapse.host_public_url}),
        );
    }

    /// Sends a text and returns its event id.
    pub fn send(&mut self, user: &str, room: &str, body: &str) -> String {
        let sent = self.call("send", json!({"user": user, "room": room, "body": body}));
        sent["event"].as_str().unwrap().to_owned()
    }

    /// Creates a room and returns its id.
    pub fn create_room(&mut self, user: &str, mut options: Value) -> String {
        options["user"] = json!(user);
        self.call("createRoom", options)["room"].as_str().unwrap().to_owned()
    }

    /// Waits until `target` has this membership in the room.
    pub fn wait_for_member(&mut self, user: &str, room: &str, target: &str, membership: &str) {
        self.call(
            "waitForMember",
            json!({"user": user, "room": room, "target": target, "membership": membership, "timeoutMs": 90_000}),
        );
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Closing its input ends it; whoever does not end by that is ended.
        drop(self.input.take());
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Client {
    /// Signs in as a bot on a device of its own with nothing but password and phrase, as a person
    /// does in Element Web; the session is called `session`.
    pub fn recover_as_bot(
        &mut self,
        session: &str,
        synapse: &Synapse,
        account: &std::collections::BTreeMap<String, String>,
        phrase: &str,
    ) -> Value {
        self.call(
            "recoverWithPhrase",
            json!({"user": account["username"], "session": session, "password": account["password"],
                "homeserver": synapse.host_public_url, "phrase": phrase, "timeoutMs": 60_000}),
        )
    }

    /// Bodies of the readable messages of a room, and how many are not readable.
    pub fn read_room(&mut self, session: &str, room: &str) -> (Vec<String>, u64) {
        let read = self.call("readRoom", json!({"user": session, "room": room, "limit": 200}));
        let events = read["events"].as_array().unwrap().clone();
        let bodies = events.iter().filter_map(|event| event["body"].as_str().map(str::to_owned)).collect();
        (bodies, read["failures"].as_u64().unwrap())
    }
}
