//! Everybody who talks in a test about faults.

use rand::{RngExt as _, rngs::StdRng};

use super::{
    Client, Synapse,
    talkers::{Confidants, Square, Talker},
};

/// See the module.
pub struct Crowd {
    square: Square,
    talkers: Vec<tokio::task::JoinHandle<()>>,
    confidants: std::thread::JoinHandle<()>,
}

impl Crowd {
    /// Three people in rooms that everybody may join, and two with encryption.
    pub async fn gather(synapse: &Synapse, square: &Square, bot: &str, rng: &mut StdRng) -> Self {
        let mut talkers = Vec::new();
        for name in ["alice", "bob", "carol"] {
            let person = synapse.register(name);
            let mut talker = Talker::new(square, synapse, &person, rng.random());
            talker.found(&format!("room of {name}")).await;
            talkers.push(talker);
        }
        let mut client = Client::start();
        for name in ["dave", "erin"] {
            client.login(synapse, &synapse.register(name));
        }
        let people = ["dave".to_owned(), "erin".to_owned()];
        let (confidants, second) =
            (Confidants { client, people, bot: bot.to_owned() }, synapse.user_id("erin"));
        let (there, seed) = (square.clone(), rng.random());
        Self {
            square: square.clone(),
            talkers: talkers.into_iter().map(|talker| tokio::spawn(talker.talk())).collect(),
            confidants: std::thread::spawn(move || confidants.talk(&there, &second, seed)),
        }
    }

    /// Waits until they have done what they were about to do.
    pub async fn fall_silent(self) {
        self.square.silence.cancel();
        for talker in self.talkers {
            talker.await.expect("a talker talks to the end");
        }
        let ended = tokio::task::spawn_blocking(|| self.confidants.join()).await.unwrap();
        assert!(ended.is_ok(), "the client with encryption talks to the end");
    }
}
