//! The bot's one device: logged in once, restored after every restart, and made anew with the same
//! identity when its volume is lost. Nothing is joined before the identity is finished.

mod device;
mod error;
mod file;
mod identity;
mod keys;
mod trouble;

use std::{path::PathBuf, sync::Arc};

use matrix_sdk::Client;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;

use self::file::SessionFile;
pub use self::{
    error::{SessionError, classify, classify_http},
    file::IdentityFacts,
    trouble::Trouble,
};
use crate::{
    domain::{DeviceId, UserId},
    homeserver::Admin,
};

/// What the account's Secrets say.
#[derive(Debug, Clone)]
pub struct Secrets {
    /// The account's password.
    pub password: SecretString,
    /// The Secure Backup Phrase.
    pub phrase: SecretString,
    /// Devices of this worker are named `<prefix>-<number>`.
    pub device_prefix: String,
}

/// Where and as whom.
#[derive(Debug, Clone)]
pub struct Settings {
    /// URL of the homeserver.
    pub homeserver: String,
    /// Additional CA certificates, PEM.
    pub ca: Option<Vec<u8>>,
    /// HTTP proxy; its URL may hold a password. Without one, none is used.
    pub proxy: Option<SecretString>,
    /// Hosts that are reached without it, separated by commas.
    pub no_proxy: Option<String>,
    /// The bot.
    pub user: UserId,
    /// The worker's volume.
    pub data_dir: PathBuf,
    /// The account's secrets.
    pub secrets: Secrets,
    /// Where the phrase is read again, to notice that somebody altered its Secret.
    pub phrase_file: Option<PathBuf>,
}

/// A device that can receive and decrypt.
#[derive(Debug, Clone)]
pub struct Session {
    /// The SDK's client.
    pub client: Client,
    /// The device.
    pub device: DeviceId,
    /// The identity that the bot should have.
    pub identity: IdentityFacts,
    /// What is wrong with it, if anything. The session can be used nevertheless.
    pub trouble: Option<Trouble>,
    /// Whoever syncs holds it: the SDK takes an answer that ends where another sync has ended
    /// meanwhile for the same, and leaves it out.
    pub syncing: Arc<Mutex<()>>,
}

/// Makes and looks after the session.
pub struct Sessions {
    settings: Settings,
    admin: Arc<dyn Admin>,
}

impl Sessions {
    /// For one bot; `admin` removes devices that a lost volume left behind.
    pub fn new(settings: Settings, admin: Arc<dyn Admin>) -> Self {
        Self { settings, admin }
    }

    /// A client that reaches the homeserver as that of the session does.
    pub(crate) fn http_client(&self) -> Result<reqwest::Client, SessionError> {
        device::http_client(&self.settings)
    }

    /// The settings that it works with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Restores the session of the volume, or makes a new device. `witness` is the identity that
    /// the trail says is finished. It counts more than the account data: a person signed in as the
    /// bot could have removed it from there, or put another one in its place.
    pub async fn establish(&self, witness: Option<&IdentityFacts>) -> Result<Session, SessionError> {
        std::fs::create_dir_all(&self.settings.data_dir)
            .map_err(|error| file::volume("cannot make the data folder", &error))?;
        let known = SessionFile::load(&self.settings.data_dir, &self.settings.user)?;
        let Some(known) = known else { return self.new_device(None, witness).await };
        if !device::has_store(&device::folder(&self.settings, known.number)) {
            return self.new_device(Some(&known), witness).await;
        }
        let client = device::restore(&self.settings, &known).await?;
        match client.whoami().await.map_err(|error| classify_http(&error)) {
            Ok(_) => self.settle(client, known, witness).await,
            // Somebody removed the device. A restart is a person's (or the cluster's) decision to go
            // on: with a new device, the same identity, and the keys that this store holds.
            Err(SessionError::DeviceRemoved) => {
                drop(client);
                self.new_device(Some(&known), witness).await
            }
            Err(error) => Err(error),
        }
    }

    async fn new_device(
        &self,
        old: Option<&SessionFile>,
        witness: Option<&IdentityFacts>,
    ) -> Result<Session, SessionError> {
        let prefix = &self.settings.secrets.device_prefix;
        let devices = self.admin.devices(&self.settings.user).await?;
        let used = devices.iter().filter_map(|device| device::number_of(prefix, device));
        let number = used.chain(old.map(|old| old.number)).max().unwrap_or(0) + 1;
        let (client, device_id) = device::log_in(&self.settings, number).await?;
        let file = SessionFile {
            user_id: self.settings.user.clone(),
            device_id,
            number,
            identity: old.and_then(|old| old.identity.clone()),
            settled: false,
            take_over: old.map(|old| old.take_over.unwrap_or(old.number)),
        };
        file.save(&self.settings.data_dir)?;
        tracing::info!(device = %file.device_id, "logged in as a new device");
        self.settle(client, file, witness).await
    }

    /// Brings the identity of a logged-in device into order.
    async fn settle(
        &self,
        mut client: Client,
        mut file: SessionFile,
        witness: Option<&IdentityFacts>,
    ) -> Result<Session, SessionError> {
        let finished = match &file.identity {
            Some(facts) => Some(facts.clone()),
            None => match witness {
                Some(facts) => Some(facts.clone()),
                None => identity::read_marker(&client).await?,
            },
        };
        let mut has_synced = false;
        let (facts, trouble) = match finished {
            None => {
                let facts = identity::create(&client, &self.settings).await?;
                identity::write_marker(&client, &facts).await?;
                tracing::info!(device = %file.device_id, "made a new identity");
                (facts, None)
            }
            Some(facts) if file.settled => {
                let trouble = self.examine_with(&client, &facts).await?;
                (facts, trouble)
            }
            Some(facts) => {
                let trouble = identity::recover(&client, &self.settings, &facts).await?;
                tracing::info!(device = %file.device_id, ?trouble, "recovered the identity");
                device::learn_rooms(&client).await?;
                has_synced = true;
                (facts, trouble)
            }
        };
        if let Some(old) = file.take_over {
            let keys = device::take_over_keys(&self.settings, old, &client).await?;
            tracing::info!(keys, "took the keys of the former device over");
            file.take_over = None;
        }
        file.identity = Some(facts.clone());
        file.settled = trouble.is_none();
        file.save(&self.settings.data_dir)?;
        if has_synced {
            // An answer that ends where that sync did would be left out by this client.
            drop(client);
            client = device::restore(&self.settings, &file).await?;
        }
        if trouble.is_none() {
            self.remove_other_devices(&file.device_id).await;
        }
        Ok(Session { client, device: file.device_id, identity: facts, trouble, syncing: Arc::default() })
    }

    /// Devices that a lost volume or an interrupted login left behind; tried again at every start.
    async fn remove_other_devices(&self, current: &DeviceId) {
        let prefix = &self.settings.secrets.device_prefix;
        let devices = match self.admin.devices(&self.settings.user).await {
            Ok(devices) => devices,
            Err(error) => {
                tracing::warn!(%error, "cannot list the bot's devices");
                return;
            }
        };
        for device in devices.iter().filter(|device| device::number_of(prefix, device).is_some()) {
            if device != current {
                match self.admin.delete_device(&self.settings.user, device).await {
                    Ok(()) => tracing::info!(%device, "removed a former device"),
                    Err(error) => tracing::warn!(%device, %error, "cannot remove a former device"),
                }
            }
        }
    }

    /// Whether the identity is still as it was made.
    pub async fn examine(&self, session: &Session) -> Result<Option<Trouble>, SessionError> {
        self.examine_with(&session.client, &session.identity).await
    }

    async fn examine_with(
        &self,
        client: &Client,
        facts: &IdentityFacts,
    ) -> Result<Option<Trouble>, SessionError> {
        match identity::verify(client, facts).await? {
            Some(trouble) => Ok(Some(trouble)),
            None => identity::phrase_opens(client, self.phrase_now().await.expose_secret()).await,
        }
    }

    /// The phrase as its Secret has it now.
    async fn phrase_now(&self) -> SecretString {
        if let Some(file) = &self.settings.phrase_file
            && let Ok(text) = tokio::fs::read_to_string(file).await
        {
            return SecretString::from(text.trim_end_matches(['\r', '\n']));
        }
        self.settings.secrets.phrase.clone()
    }

    /// Makes anew what is broken, and keeps what is not. A person decided so, and the trail says it
    /// already.
    pub async fn repair(&self, session: &Session) -> Result<Session, SessionError> {
        let phrase = self.phrase_now().await;
        let facts = identity::repair(session, &self.settings, &phrase).await?;
        identity::write_marker(&session.client, &facts).await?;
        let known = SessionFile::load(&self.settings.data_dir, &self.settings.user)?;
        if let Some(mut file) = known {
            file.identity = Some(facts.clone());
            file.settled = true;
            file.save(&self.settings.data_dir)?;
        }
        Ok(Session { identity: facts, trouble: None, ..session.clone() })
    }
}
