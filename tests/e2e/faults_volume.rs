//! The worker's volume is full, or what is on it is broken: a condition says so, nothing is thrown away, and what was
//! said meanwhile is recorded afterwards.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use ems_bots::domain::record::{Occurred, RecordDraft};
use serde_json::{Value, json};

use crate::support::{
    Database, LocalWorker, Synapse,
    services::{Person, urlencode},
    unique,
};

const STORE: &str = "store-1/matrix-sdk-crypto.sqlite3";
const SWITCHED: &str = "capture.source_switched";

/// Whether a record says that rooms stand like this from then on.
fn rooms_are(record: &RecordDraft, standing: &str) -> bool {
    let after = Some(json!(standing));
    record.changes.iter().any(|change| change.path == "/sources/rooms" && change.after == after)
}

struct Stage {
    synapse: Synapse,
    worker: LocalWorker,
    alice: Person,
    room: String,
    _database: Database,
}

impl Stage {
    /// With a room that the bot is in; `volume` is done to the worker's folder before it starts.
    async fn set(prefix: &str, volume: impl FnOnce(&LocalWorker)) -> Self {
        let synapse = Synapse::up(&unique(prefix));
        let database = Database::tenant(&unique(prefix).replace('-', "_"));
        let alice = synapse.register("alice");
        let mut worker = LocalWorker::prepare("auditbot", &synapse, &database).await;
        volume(&worker);
        worker.start(&synapse);
        worker.wait_ready().await;
        let path = "/_matrix/client/v3/createRoom";
        let (_, made) = synapse.request("POST", path, &alice.access_token, Some(json!({}))).await;
        let room = made["room_id"].as_str().unwrap().to_owned();
        let stage = Self { synapse, worker, alice, room, _database: database };
        stage.say("before").await;
        stage.worker.wait_text("before").await;
        stage
    }

    async fn say(&self, body: &str) {
        let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{body}", urlencode(&self.room));
        let content = json!({"msgtype": "m.text", "body": body});
        let (status, answer) =
            self.synapse.request("PUT", &path, &self.alice.access_token, Some(content)).await;
        assert_eq!(status, 200, "{answer}");
    }

    /// Waits for a message, and starts the worker when it has ended, as the kubelet does.
    async fn recorded(&mut self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            if self.worker.ended().is_some() {
                self.worker.start(&self.synapse);
            }
            let messages = self.worker.of_action("message.").await;
            if messages.iter().any(|record| record.text.as_deref() == Some(text)) {
                return;
            }
            assert!(Instant::now() < deadline, "{text} is missing\n{}", self.worker.log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// The bot's devices at the homeserver.
    async fn devices(&self) -> Vec<Value> {
        let path = format!("/_synapse/admin/v2/users/{}/devices", urlencode(&self.worker.user_id));
        let (status, answer) = self.synapse.admin("GET", &path, None).await;
        assert_eq!(status, 200, "{answer}");
        let mut devices: Vec<Value> =
            answer["devices"].as_array().unwrap().iter().map(|device| device["device_id"].clone()).collect();
        devices.sort_by_key(Value::to_string);
        devices
    }
}

/// A file system of its own, so small that it can be filled.
struct SmallVolume(PathBuf);

impl SmallVolume {
    fn mount(worker: &LocalWorker) -> Self {
        let folder = worker.data();
        fs::create_dir_all(&folder).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=32m", "ems-bots-test"])
            .arg(&folder)
            .status()
            .unwrap();
        assert!(mounted.success(), "these tests run as root");
        Self(folder)
    }

    /// Takes all of the space that is left.
    fn fill(&self) {
        let filler = fs::File::create(self.0.join("filler")).unwrap();
        let mut written = 0;
        while let Ok(count) = std::os::unix::fs::FileExt::write_at(&filler, &[1; 4096], written) {
            written += count as u64;
        }
        assert!(written > 0, "there was space");
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallVolume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_volume_is_said_and_nothing_is_missing_when_there_is_space_again() {
    let mut volume = None;
    let mut stage = Stage::set("full", |worker| volume = Some(SmallVolume::mount(worker))).await;
    let volume = volume.unwrap();
    let devices = stage.devices().await;
    println!("-- the volume is full");
    volume.fill();
    for number in 0..5 {
        stage.say(&format!("meanwhile-{number}")).await;
    }
    let said = stage.worker.wait_report("recording", &["volume"]).await;
    println!("   {said}");
    println!("-- there is space again");
    volume.free();
    for number in 0..5 {
        stage.recorded(&format!("meanwhile-{number}")).await;
    }
    stage.worker.wait_report("recording", &["rooms: on"]).await;
    assert_eq!(stage.devices().await, devices, "it is the same device");
    drop(stage);
    drop(volume);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_crypto_store_is_said_and_kept_as_it_is() {
    let mut stage = Stage::set("broken", |_| ()).await;
    let devices = stage.devices().await;
    stage.worker.stop().await;
    println!("-- somebody or something writes over the store");
    let store = stage.worker.data().join(STORE);
    let good: Vec<(PathBuf, Vec<u8>)> = ["", "-wal", "-shm"]
        .iter()
        .map(|part| PathBuf::from(format!("{}{part}", store.display())))
        .filter_map(|path| fs::read(&path).ok().map(|bytes| (path, bytes)))
        .collect();
    // The journal, too: else the database would mend itself from it.
    for (path, _) in &good[1..] {
        fs::remove_file(path).unwrap();
    }
    let broken = vec![0x5a; good[0].1.len()];
    fs::write(&store, &broken).unwrap();
    stage.worker.start(&stage.synapse);
    let said = stage.worker.wait_report("encryption", &["volume"]).await;
    println!("   {said}");
    // It has lasted for longer than a moment.
    let lagging = stage.worker.wait_for(SWITCHED, |record| rooms_are(record, "lagging")).await;
    stage.say("meanwhile").await;
    assert_ne!(stage.worker.get("/readyz").await.0, 200);
    assert!(fs::read(&store).unwrap() == broken, "nothing was changed");
    assert_eq!(stage.devices().await, devices, "no other device was made");
    println!("-- it is brought back from a backup");
    for (path, bytes) in &good {
        fs::write(path, bytes).unwrap();
    }
    let Occurred::At(said) = stage.worker.wait_text("meanwhile").await.occurred else { panic!("a time") };
    assert_eq!(stage.devices().await, devices, "it is the same device");
    println!("-- the time in which nothing could be captured is a record");
    let has_it = |record: &RecordDraft| {
        let Occurred::Between(from, to) = record.occurred else { return false };
        rooms_are(record, "on") && lagging.occurred == Occurred::At(from) && (from..=to).contains(&said)
    };
    let span = stage.worker.wait_for(SWITCHED, has_it).await;
    assert!(span.context.reason.as_deref().is_some_and(|why| why.contains("volume")), "{span:#?}");
    stage.worker.kill();
}
