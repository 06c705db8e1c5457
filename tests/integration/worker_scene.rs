//! One bot on the homeserver in memory, with a volume: before its first start, or with a finished identity.

use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ems_bots::{
    domain::{Localpart, ServerName, UserId},
    homeserver::{Connect, mock::MockHomeserver},
    worker::session::{Secrets, Sessions, Settings},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::matrix_fake::{Fake, PASSWORD, USER, World};

pub(crate) const LOGIN: &str = "POST /_matrix/client/v3/login";
pub(crate) const NEW_BACKUP: &str = "POST /_matrix/client/v3/room_keys/version";
pub(crate) const PHRASE: &str = "correct horse battery";

/// Nothing here waits for anything but the loopback: what is not done by then hangs.
pub(crate) fn in_time<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let work = Box::pin(work);
    async { tokio::time::timeout(Duration::from_secs(60), work).await.expect("it hangs") }
}

/// What a bot with a finished identity has.
struct Established {
    world: World,
    /// Names of files, and contents.
    volume: Vec<(PathBuf, Vec<u8>)>,
    phrase: String,
}

/// One bot on one homeserver, with a volume.
pub(crate) struct Scene {
    pub(crate) fake: Fake,
    url: String,
    volume: TempDir,
    pub(crate) phrase: String,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (fake, url) = Fake::start().await;
        Self { fake, url, volume: tempfile::tempdir().unwrap(), phrase: PHRASE.to_owned() }
    }

    /// The file with the keys of the bot's first device.
    pub(crate) fn key_file(&self) -> PathBuf {
        self.volume.path().join("store-1/matrix-sdk-crypto.sqlite3")
    }

    /// With a bot whose identity is finished, as after its first start.
    pub(crate) async fn established() -> Self {
        // Made once, for it takes seconds.
        static MADE: OnceCell<Established> = OnceCell::const_new();
        let make = || async { tokio::task::spawn_blocking(Self::establish).await.unwrap() };
        let bot = MADE.get_or_init(make).await;
        let scene = Self { phrase: bot.phrase.clone(), ..Self::new().await };
        *scene.fake.world() = bot.world.clone();
        for (name, content) in &bot.volume {
            let path = scene.volume.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        scene
    }

    fn establish() -> Established {
        // Its databases are closed when the runtime has ended: then their files can be copied.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let (scene, phrase) = runtime.block_on(in_time(async {
            let scene = Self::new().await;
            let session = scene.started().establish(None).await.expect("nothing is in its way");
            let storage = session.client.encryption().secret_storage();
            let phrase = storage.open_secret_store(PHRASE).await.unwrap().secret_storage_key();
            (scene, phrase)
        }));
        drop(runtime);
        let mut world = scene.fake.world().clone();
        // The key itself opens the storage as well, and is not derived anew, slowly, at each start.
        for (kind, content) in &mut world.account_data {
            if kind.starts_with("m.secret_storage.key.") {
                content.as_object_mut().unwrap().remove("passphrase").expect("it was made from a phrase");
            }
        }
        world.requests.clear();
        world.asked.clear();
        let content = |path: PathBuf| {
            let content = std::fs::read(&path).unwrap();
            (path.strip_prefix(scene.volume.path()).unwrap().to_owned(), content)
        };
        let volume = files(scene.volume.path()).into_iter().map(content).collect();
        Established { world, volume, phrase }
    }

    /// The same bot, whose homeserver is another one from now on.
    pub(crate) fn moved_to(self, url: String) -> Self {
        Self { url, ..self }
    }

    /// Another client of the same bot, on a volume of its own.
    pub(crate) async fn other_client(&self) -> Self {
        Self { fake: self.fake.clone(), url: self.url.clone(), ..Self::new().await }
    }

    /// Each start of the process has sessions of its own.
    pub(crate) fn started(&self) -> Sessions {
        self.started_with(&self.phrase).0
    }

    pub(crate) fn started_with(&self, phrase: &str) -> (Sessions, MockHomeserver) {
        let settings = Settings {
            homeserver: self.url.clone(),
            ca: None,
            proxy: None,
            no_proxy: None,
            user: UserId::parse(USER).unwrap(),
            data_dir: self.volume.path().to_owned(),
            secrets: Secrets {
                password: PASSWORD.to_owned().into(),
                phrase: phrase.to_owned().into(),
                device_prefix: "EMS".to_owned(),
            },
            phrase_file: None,
        };
        let homeserver = MockHomeserver::new(ServerName::parse("example.org").unwrap());
        let root = homeserver.add_user(&Localpart::parse("root").unwrap(), true);
        homeserver.add_user(&Localpart::parse("auditbot").unwrap(), false);
        homeserver.world().users.get_mut(USER).unwrap().devices = self.fake.devices();
        (Sessions::new(settings, Arc::from(homeserver.admin(root))), homeserver)
    }

    pub(crate) fn lose_volume(&self) {
        empty(self.volume.path());
    }

    /// Whether there is a folder for the device of this number.
    pub(crate) fn has_store(&self, number: u32) -> bool {
        self.volume.path().join(format!("store-{number}")).exists()
    }

    pub(crate) fn account_data(&self, kind: &str) -> Option<Value> {
        self.fake.world().account_data.get(kind).cloned()
    }

    pub(crate) fn logins(&self) -> usize {
        self.fake.count(LOGIN)
    }

    /// The public keys of the identity that the homeserver shows.
    pub(crate) fn identity(&self) -> Value {
        self.fake.world().cross_signing["master_key"]["keys"].clone()
    }
}

/// All files below it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn empty(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.unwrap();
    }
}
