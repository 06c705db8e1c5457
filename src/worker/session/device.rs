//! The SDK's client of one device: built, logged in, restored.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use hmac::{Hmac, KeyInit, Mac};
use matrix_sdk::{
    Client, ClientBuildError, ClientBuilder, HttpError, SessionMeta, SessionTokens, SqliteCryptoStore,
    SqliteEventCacheStore, SqliteMediaStore, SqliteStateStore, SqliteStoreConfig,
    authentication::matrix::MatrixSession,
    config::{RequestConfig, StoreConfig, SyncSettings, SyncToken},
    cross_process_lock::CrossProcessLockConfig,
    encryption::{BackupDownloadStrategy, EncryptionSettings},
    ruma::{
        OwnedDeviceId, UserId as RumaUserId,
        api::client::{
            filter::{Filter, FilterDefinition, RoomEventFilter},
            session::{get_login_types::v3::LoginType, login},
            uiaa::{MatrixUserIdentifier, UserIdentifier},
        },
        presence::PresenceState,
        uint,
    },
    store::{RoomLoadSettings, StateStoreDataKey},
};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use super::{
    SessionError, SessionFile, Settings, classify, classify_http,
    file::{try_volume, volume},
    keys::KeyStore,
};
use crate::domain::DeviceId;

/// Where the access token is kept in the encrypted store.
const TOKEN_KEY: &[u8] = b"io.element.ems-bots.access-token";

const FIRST_SYNC: Duration = Duration::from_mins(5);

/// Number in a device's name: `<prefix>-<number>`.
pub(super) fn number_of(prefix: &str, device: &DeviceId) -> Option<u32> {
    device.as_str().strip_prefix(prefix)?.strip_prefix('-')?.parse().ok()
}

/// The folder of a device's store.
pub(super) fn folder(settings: &Settings, number: u32) -> PathBuf {
    settings.data_dir.join(format!("store-{number}"))
}

/// What every client of the bot is made of.
fn builder(settings: &Settings) -> Result<ClientBuilder, SessionError> {
    Ok(Client::builder()
        .homeserver_url(&settings.homeserver)
        .respect_login_well_known(false)
        .http_client(http_client(settings)?)
        .request_config(RequestConfig::new().disable_retry().timeout(Duration::from_secs(30)))
        .cross_process_store_config(CrossProcessLockConfig::SingleProcess)
        .with_encryption_settings(encryption_settings())
        // The bot reads; it must not hand the history of a room to whoever is invited to it.
        .with_enable_share_history_on_invite(false))
}

/// A client with the store of a device, not logged in yet.
pub(super) async fn build(settings: &Settings, number: u32) -> Result<Client, SessionError> {
    let folder = folder(settings, number);
    std::fs::create_dir_all(&folder).map_err(|error| volume("cannot make a folder", &error))?;
    let unusable = |error: String| SessionError::Volume { problem: error.chars().take(200).collect() };
    let config = SqliteStoreConfig::new(&folder).key(Some(&store_key(settings)?));
    let stores = open_stores(&config).await.map_err(|error| unusable(error.to_string()))?;
    let built = builder(settings)?.store_config(stores).build().await;
    built.map_err(|error| unusable(error.to_string()))
}

/// What the SDK opens for itself, with the keys in [`KeyStore`].
async fn open_stores(config: &SqliteStoreConfig) -> Result<StoreConfig, ClientBuildError> {
    let keys = SqliteCryptoStore::open_with_config(config).await?;
    Ok(StoreConfig::new(CrossProcessLockConfig::SingleProcess)
        .state_store(SqliteStateStore::open_with_config(config).await?)
        .event_cache_store(SqliteEventCacheStore::open_with_config(config).await?)
        .media_store(SqliteMediaStore::open_with_config(config).await?)
        .crypto_store(KeyStore::new(keys)))
}

/// Nothing by itself: identity, secret storage and backup are made in an order that survives
/// interruptions, and never replaced because the SDK thinks so. One key is fetched from the backup
/// for each event that fails to decrypt.
pub(super) fn encryption_settings() -> EncryptionSettings {
    EncryptionSettings {
        auto_enable_cross_signing: false,
        auto_enable_backups: false,
        backup_download_strategy: BackupDownloadStrategy::AfterDecryptionFailure,
    }
}

pub(super) fn http_client(settings: &Settings) -> Result<reqwest::Client, SessionError> {
    let unusable = |what: &str| SessionError::Client { problem: format!("{what} cannot be used") };
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("ems-bots/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        // The variables of the environment are not read.
        .no_proxy()
        .connect_timeout(Duration::from_secs(10));
    if let Some(pem) = settings.ca.as_deref() {
        let certificates =
            reqwest::Certificate::from_pem_bundle(pem).map_err(|_| unusable("the CA certificate"))?;
        builder = builder.tls_certs_merge(certificates);
    }
    if let Some(url) = &settings.proxy {
        let exceptions = settings.no_proxy.as_deref().and_then(reqwest::NoProxy::from_string);
        let proxy = reqwest::Proxy::all(url.expose_secret()).map_err(|_| unusable("the proxy URL"))?;
        builder = builder.proxy(proxy.no_proxy(exceptions));
    }
    builder.build().map_err(|_| SessionError::Client { problem: "no TLS".to_owned() })
}

/// The store is useless without the account Secret, whose password is random: deriving a key from it need not be
/// slow, as it would have to be for a password that a person chose.
pub(super) fn store_key(settings: &Settings) -> Result<[u8; 32], SessionError> {
    let key = settings.secrets.password.expose_secret().as_bytes();
    let mac = Hmac::<Sha256>::new_from_slice(key);
    let mut mac = mac.map_err(|_| SessionError::Incomplete { problem: "password" })?;
    mac.update(b"ems-bots store key 1\0");
    mac.update(settings.user.as_str().as_bytes());
    Ok(mac.finalize().into_bytes().into())
}

/// Logs in as a new device and keeps the token in its store, which is made only for a login that was
/// accepted: a store that is closed goes on writing for a moment, and would break its successor's files.
pub(super) async fn log_in(settings: &Settings, number: u32) -> Result<(Client, DeviceId), SessionError> {
    try_volume(&settings.data_dir)?;
    let device = format!("{}-{number}", settings.secrets.device_prefix);
    let device = DeviceId::parse(device).map_err(|_| SessionError::Incomplete { problem: "device name" })?;
    let token = request_token(settings, &device).await?;
    let store = folder(settings, number);
    if store.exists() {
        // No session file names it: a login that was interrupted before it was of any use.
        std::fs::remove_dir_all(&store).map_err(|error| volume("cannot remove a folder", &error))?;
    }
    let client = build(settings, number).await?;
    keep_token(&client, token.clone()).await?;
    enter(&client, settings, &device, token).await?;
    client.encryption().wait_for_e2ee_initialization_tasks().await;
    Ok((client, device))
}

/// One login, not the SDK's own: that one waits in silence for as long as a limited homeserver asks.
async fn request_token(settings: &Settings, device: &DeviceId) -> Result<String, SessionError> {
    let visitor = builder(settings)?.build().await;
    let visitor = visitor.map_err(|error| SessionError::Client { problem: error.to_string() })?;
    let offered = visitor.matrix_auth().get_login_types().await.map_err(|error| classify_http(&error))?;
    if !offered.flows.iter().any(|flow| matches!(flow, LoginType::Password(_))) {
        return Err(SessionError::PasswordLoginDisabled);
    }
    let user = UserIdentifier::Matrix(MatrixUserIdentifier::new(settings.user.as_str().to_owned()));
    let password = settings.secrets.password.expose_secret().to_owned();
    let mut request =
        login::v3::Request::new(login::v3::LoginInfo::Password(login::v3::Password::new(user, password)));
    request.device_id = Some(OwnedDeviceId::from(device.as_str()));
    request.initial_device_display_name = Some("EMS bot worker".to_owned());
    match visitor.send(request).await {
        Ok(response) => Ok(response.access_token),
        Err(error) => Err(login_error(&error)),
    }
}

/// Gives a client its session, which forgets how far the device synced: the cursor is the trail's. Else
/// the SDK would hand over an answer that it took in before the worker was killed as an empty one.
async fn enter(
    client: &Client,
    settings: &Settings,
    device: &DeviceId,
    access_token: String,
) -> Result<(), SessionError> {
    let user_id = RumaUserId::parse(settings.user.as_str())
        .map_err(|_| SessionError::Client { problem: "the user id is not one".to_owned() })?;
    let session = MatrixSession {
        meta: SessionMeta { user_id, device_id: OwnedDeviceId::from(device.as_str()) },
        tokens: SessionTokens { access_token, refresh_token: None },
    };
    let forgotten = client.state_store().remove_kv_data(StateStoreDataKey::SyncToken).await;
    forgotten.map_err(|error| SessionError::Volume { problem: error.to_string() })?;
    let entered = client.matrix_auth().restore_session(session, RoomLoadSettings::default()).await;
    entered.map_err(|error| classify(&error))
}

/// Uploads the device's keys, as the SDK does with every sync. What the sync answers is left out, and
/// read again by capture, with a cursor of its own.
pub(super) async fn announce(client: &Client) -> Result<(), SessionError> {
    let settings = SyncSettings::new()
        .token(SyncToken::NoToken)
        .timeout(Duration::ZERO)
        .filter(FilterDefinition::ignore_all().into())
        .set_presence(PresenceState::Offline);
    client.sync_once(settings).await.map(drop).map_err(|error| classify(&error))
}

/// Lets a new device of an older bot know its rooms, which the sync at the cursor does not tell where
/// nothing happens: without the room an event is not decrypted. Nothing of the answer is recorded.
pub(super) async fn learn_rooms(client: &Client) -> Result<(), SessionError> {
    let mut filter = FilterDefinition::with_lazy_loading();
    filter.presence = Filter::ignore_all();
    filter.room.ephemeral = RoomEventFilter::ignore_all();
    filter.room.account_data = RoomEventFilter::ignore_all();
    filter.room.timeline.limit = Some(uint!(1));
    // A first sync is answered at once, which takes its time with many rooms.
    let settings = SyncSettings::new()
        .token(SyncToken::NoToken)
        .timeout(FIRST_SYNC)
        .filter(filter.into())
        .set_presence(PresenceState::Offline);
    client.sync_once(settings).await.map(drop).map_err(|error| classify(&error))
}

/// A login that is refused means the password, not a token.
fn login_error(error: &HttpError) -> SessionError {
    match classify_http(error) {
        SessionError::Refused { status: 403, .. } | SessionError::DeviceRemoved => {
            SessionError::PasswordRefused
        }
        other => other,
    }
}

async fn keep_token(client: &Client, token: String) -> Result<(), SessionError> {
    let kept = client.state_store().set_custom_value(TOKEN_KEY, token.into_bytes()).await;
    kept.map(drop).map_err(|error| SessionError::Volume { problem: error.to_string() })
}

/// The client of the device in the session file, without asking the homeserver.
pub(super) async fn restore(settings: &Settings, file: &SessionFile) -> Result<Client, SessionError> {
    let client = open(settings, file.number, &file.device_id).await?;
    client.encryption().wait_for_e2ee_initialization_tasks().await;
    Ok(client)
}

/// Like [`restore`], for a device that the homeserver may not know any more.
pub(super) async fn open(
    settings: &Settings,
    number: u32,
    device: &DeviceId,
) -> Result<Client, SessionError> {
    if !has_store(&folder(settings, number)) {
        return Err(SessionError::Volume { problem: "the crypto store is gone".to_owned() });
    }
    let client = build(settings, number).await?;
    let token = client
        .state_store()
        .get_custom_value(TOKEN_KEY)
        .await
        .map_err(|error| SessionError::Volume { problem: error.to_string() })?
        .and_then(|token| String::from_utf8(token).ok())
        .ok_or_else(|| SessionError::Volume { problem: "the crypto store holds no token".to_owned() })?;
    enter(&client, settings, device, token).await?;
    Ok(client)
}

pub(super) fn has_store(folder: &Path) -> bool {
    folder.join("matrix-sdk-crypto.sqlite3").exists()
}

/// Takes the room keys of an older device's store over into the new one, so that nothing that the
/// old device could decrypt is lost with it.
pub(super) async fn take_over_keys(
    settings: &Settings,
    number: u32,
    client: &Client,
) -> Result<usize, SessionError> {
    if !has_store(&folder(settings, number)) {
        return Ok(0);
    }
    let device = format!("{}-{number}", settings.secrets.device_prefix);
    let device = DeviceId::parse(device).map_err(|_| SessionError::Incomplete { problem: "device name" })?;
    let old = open(settings, number, &device).await?;
    let export = settings.data_dir.join("keys.export");
    let passphrase = SecretString::from(hex::encode(store_key(settings)?));
    let exported =
        old.encryption().export_room_keys(export.clone(), passphrase.expose_secret(), |_| true).await;
    exported.map_err(|error| classify(&error))?;
    let imported = client.encryption().import_room_keys(export.clone(), passphrase.expose_secret()).await;
    std::fs::remove_file(&export).map_err(|error| volume("cannot remove the key export", &error))?;
    imported
        .map(|result| result.imported_count)
        .map_err(|error| SessionError::Client { problem: error.to_string().chars().take(200).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_read_from_our_devices_only() {
        let device = |id: &str| DeviceId::parse(id).unwrap();
        assert_eq!(number_of("EMS-ab", &device("EMS-ab-12")), Some(12));
        assert_eq!(number_of("EMS-ab", &device("EMS-abc-12")), None);
        assert_eq!(number_of("EMS-ab", &device("EMS-ab-x")), None);
        assert_eq!(number_of("EMS-ab", &device("JKLMNO")), None);
    }
}
