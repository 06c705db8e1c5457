//! The bot's cryptographic identity: made once, recovered with the phrase, looked after.

use matrix_sdk::{
    Client,
    encryption::{
        CrossSigningResetAuthType,
        recovery::{Recovery, RecoveryError},
        secret_storage::{ImportError, SecretStorageError},
    },
    ruma::{
        api::{
            client::{
                backup::get_latest_backup_info,
                membership::joined_rooms,
                uiaa::{AuthData, MatrixUserIdentifier, Password, UserIdentifier},
            },
            error::ErrorKind,
        },
        events::GlobalAccountDataEventType,
        serde::Raw,
    },
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::value::to_raw_value;
use tokio::sync::Mutex;

use super::{
    IdentityFacts, Session, SessionError, Settings, Trouble, classify, classify_http, device,
    error::classify_recovery,
};

/// Account data by which a finished identity is told from a half-made one.
const MARKER: &str = "io.element.ems-bots.identity";

/// The identity that the account data says is finished.
pub(super) async fn read_marker(client: &Client) -> Result<Option<IdentityFacts>, SessionError> {
    let event = client.account().fetch_account_data(MARKER.into()).await.map_err(|error| classify(&error))?;
    Ok(event.and_then(|event| serde_json::from_str(event.json().get()).ok()))
}

/// Says that the identity is finished; the last step of making it.
pub(super) async fn write_marker(client: &Client, facts: &IdentityFacts) -> Result<(), SessionError> {
    let json = to_raw_value(facts).map_err(|error| SessionError::Client { problem: error.to_string() })?;
    let written = client.account().set_account_data_raw(MARKER.into(), Raw::from_json(json)).await;
    written.map(drop).map_err(|error| classify(&error))
}

/// Makes an identity where there is none or a half-made one: nothing was received with it yet, so
/// what an interrupted attempt left behind may go. Joins happen after this only.
pub(super) async fn create(client: &Client, settings: &Settings) -> Result<IdentityFacts, SessionError> {
    cross_sign(client, settings).await?;
    make_storage(client, settings).await?;
    settled_facts(client).await
}

/// Uploads the keys of this device and of the identity, and signs the device. An identity is made only
/// where the client holds none.
async fn cross_sign(client: &Client, settings: &Settings) -> Result<(), SessionError> {
    let encryption = client.encryption();
    if let Err(error) = encryption.bootstrap_cross_signing(None).await {
        let Some(uiaa) = error.as_uiaa_response() else { return Err(classify(&error)) };
        let auth = password_auth(settings, uiaa.session.clone());
        encryption.bootstrap_cross_signing(Some(auth)).await.map_err(|error| classify(&error))?;
    }
    Ok(())
}

/// Signs a device that is not signed by the identity that was made, where the client holds that
/// identity. The SDK uploads a new device's keys with its first sync only, and a homeserver keeps no
/// signature of a device whose keys it does not have.
async fn sign_unsigned_device(
    client: &Client,
    facts: &IdentityFacts,
    syncing: &Mutex<()>,
) -> Result<Option<Trouble>, SessionError> {
    let trouble = check_identity(client, facts).await?;
    let status = client.encryption().cross_signing_status().await;
    if trouble != Some(Trouble::DeviceUnsigned) || !status.is_some_and(|status| status.is_complete()) {
        return Ok(trouble);
    }
    let alone = syncing.lock().await;
    device::announce(client).await?;
    drop(alone);
    let device = client.encryption().get_own_device().await;
    let device = device.map_err(|error| SessionError::Volume { problem: error.to_string() })?;
    let device = device.ok_or(SessionError::Incomplete { problem: "the store does not know the device" })?;
    device.verify().await.map_err(|error| SessionError::Client { problem: error.to_string() })?;
    check_identity(client, facts).await
}

/// By a person's decision: makes anew what is broken, and keeps what is not. Nothing is deleted. A
/// backup that is intact, and whose key this device holds, stays the backup unless a new identity has
/// to sign it, since it may hold room keys that this device does not; its key goes into the new
/// secret storage with the others.
pub(super) async fn repair(
    session: &Session,
    settings: &Settings,
    phrase: &SecretString,
) -> Result<IdentityFacts, SessionError> {
    let (client, facts) = (&session.client, &session.identity);
    let phrase = phrase.expose_secret();
    if phrase.is_empty() {
        return Err(SessionError::Incomplete { problem: "there is no phrase in its Secret" });
    }
    let keeps_identity = !matches!(
        sign_unsigned_device(client, facts, &session.syncing).await?,
        Some(Trouble::IdentityReplaced | Trouble::IdentityMissing | Trouble::DeviceUnsigned)
    );
    if keeps_identity
        && verify(client, facts).await?.is_none()
        && phrase_opens(client, phrase).await?.is_none()
    {
        return Ok(facts.clone());
    }
    let backup = backup_version(client).await?;
    let keeps_backup = keeps_identity
        && backup.as_ref() == Some(&facts.backup_version)
        && client.encryption().backups().are_enabled().await;
    if !keeps_backup {
        fetch_backed_up_keys(client).await?;
    }
    if !keeps_identity {
        replace_identity(client, settings).await?;
    }
    if !keeps_backup {
        make_backup(client, backup.is_some()).await?;
    }
    let renewed = client.encryption().recovery().reset_key().with_passphrase(phrase).await;
    renewed.map_err(|error| classify_recovery(&error))?;
    settled_facts(client).await
}

/// Fetches the room keys of all joined rooms from the backup whose key this device holds: it is not
/// asked any more once there is another one. There is nothing to fetch without a key, or where that
/// backup is gone.
async fn fetch_backed_up_keys(client: &Client) -> Result<(), SessionError> {
    let rooms = client.send(joined_rooms::v3::Request::new()).await.map_err(|error| classify_http(&error))?;
    for room in &rooms.joined_rooms {
        match client.encryption().backups().download_room_keys_for_room(room).await {
            Ok(()) => {}
            Err(error) if error.client_api_error_kind() == Some(&ErrorKind::NotFound) => return Ok(()),
            Err(error) => return Err(classify(&error)),
        }
    }
    Ok(())
}

async fn replace_identity(client: &Client, settings: &Settings) -> Result<(), SessionError> {
    let handle = client.encryption().reset_cross_signing().await.map_err(|error| classify(&error))?;
    let Some(handle) = handle else { return Ok(()) };
    let session = match handle.auth_type() {
        CrossSigningResetAuthType::Uiaa(uiaa) => uiaa.session.clone(),
        CrossSigningResetAuthType::OAuth(_) => return Err(SessionError::PasswordLoginDisabled),
    };
    let auth = password_auth(settings, session);
    handle.auth(Some(auth)).await.map_err(|error| classify(&error))
}

/// A new backup, to which sync uploads all room keys that this device holds. One that is there stays
/// on the homeserver as an older version.
async fn make_backup(client: &Client, is_one_there: bool) -> Result<(), SessionError> {
    let encryption = client.encryption();
    if is_one_there {
        encryption.backups().create().await.map_err(|error| classify(&error))
    } else {
        encryption.recovery().enable_backup().await.map_err(|error| classify_recovery(&error))
    }
}

fn password_auth(settings: &Settings, session: Option<String>) -> AuthData {
    let user = UserIdentifier::Matrix(MatrixUserIdentifier::new(settings.user.as_str().to_owned()));
    let mut password = Password::new(user, settings.secrets.password.expose_secret().to_owned());
    password.session = session;
    AuthData::Password(password)
}

/// A first backup and secret storage. What an interrupted attempt left of a backup goes first: nothing
/// was received yet that it could hold.
async fn make_storage(client: &Client, settings: &Settings) -> Result<(), SessionError> {
    let encryption = client.encryption();
    encryption.backups().disable_and_delete().await.map_err(|error| classify(&error))?;
    let phrase = settings.secrets.phrase.expose_secret();
    let enabled = encryption.recovery().enable().with_passphrase(phrase).await;
    enabled.map(drop).map_err(|error| classify_recovery(&error))
}

/// Reads back what was made; whatever is missing makes the attempt count as interrupted.
async fn settled_facts(client: &Client) -> Result<IdentityFacts, SessionError> {
    let master_key = own_master_key(client)
        .await?
        .ok_or(SessionError::Incomplete { problem: "the homeserver does not show the cross-signing keys" })?;
    if !own_device_is_signed(client).await? {
        return Err(SessionError::Incomplete { problem: "the device is not cross-signed" });
    }
    let backup_version = backup_version(client)
        .await?
        .ok_or(SessionError::Incomplete { problem: "there is no key backup" })?;
    let secret_storage_key = storage_key(client)
        .await?
        .ok_or(SessionError::Incomplete { problem: "there is no secret storage" })?;
    Ok(IdentityFacts { master_key, backup_version, secret_storage_key })
}

/// Gives a new device the identity that was made before. What a person did to it in the meantime
/// is not an error but a [`Trouble`]: the session goes on with what it has.
pub(super) async fn recover(
    client: &Client,
    settings: &Settings,
    facts: &IdentityFacts,
) -> Result<Option<Trouble>, SessionError> {
    let phrase = settings.secrets.phrase.expose_secret();
    if let Err(error) = client.encryption().recovery().recover(phrase).await {
        let trouble = match &error {
            RecoveryError::SecretStorage(error) => trouble_of(error),
            RecoveryError::BackupExistsOnServer | RecoveryError::Sdk(_) => None,
        };
        // The identity says more than the storage that does not fit it any more.
        return match trouble {
            Some(trouble) => Ok(check_identity(client, facts)
                .await?
                .filter(|t| *t != Trouble::DeviceUnsigned)
                .or(Some(trouble))),
            None => Err(classify_recovery(&error)),
        };
    }
    // Nobody else has this client yet.
    sign_unsigned_device(client, facts, &Mutex::default()).await?;
    verify(client, facts).await
}

fn trouble_of(error: &SecretStorageError) -> Option<Trouble> {
    match error {
        SecretStorageError::SecretStorageKey(_) => Some(Trouble::PhraseRefused),
        SecretStorageError::MissingKeyInfo { .. } => Some(Trouble::StorageDeleted),
        SecretStorageError::ImportError { error: ImportError::MismatchedPublicKeys, .. } => {
            Some(Trouble::IdentityReplaced)
        }
        SecretStorageError::Decryption(_) | SecretStorageError::Json(_) => Some(Trouble::StorageReplaced),
        SecretStorageError::InconsistentBackupDecryptionKey
        | SecretStorageError::MissingOrInvalidBackupDecryptionKey => Some(Trouble::BackupReplaced),
        _ => None,
    }
}

/// Whether everything is still as it was made.
pub(super) async fn verify(client: &Client, facts: &IdentityFacts) -> Result<Option<Trouble>, SessionError> {
    if let Some(trouble) = check_identity(client, facts).await? {
        return Ok(Some(trouble));
    }
    match backup_version(client).await? {
        None => return Ok(Some(Trouble::BackupDeleted)),
        Some(version) if version != facts.backup_version => return Ok(Some(Trouble::BackupReplaced)),
        Some(_) => {}
    }
    match storage_key(client).await? {
        None => return Ok(Some(Trouble::StorageDeleted)),
        Some(key) if key != facts.secret_storage_key => return Ok(Some(Trouble::StorageReplaced)),
        Some(_) => {}
    }
    for secret in Recovery::KNOWN_SECRETS {
        let kind = GlobalAccountDataEventType::from(secret.as_str());
        let event = client.account().fetch_account_data(kind).await.map_err(|error| classify(&error))?;
        let holds =
            event.and_then(|event| serde_json::from_str::<serde_json::Value>(event.json().get()).ok());
        let pointer = holds.as_ref().and_then(|secret| secret.get("encrypted"));
        if pointer.and_then(|encrypted| encrypted.get(&facts.secret_storage_key)).is_none() {
            return Ok(Some(Trouble::StorageReplaced));
        }
    }
    Ok(None)
}

/// Whether the phrase opens the secret storage.
pub(super) async fn phrase_opens(client: &Client, phrase: &str) -> Result<Option<Trouble>, SessionError> {
    match client.encryption().secret_storage().open_secret_store(phrase).await {
        Ok(_) => Ok(None),
        Err(SecretStorageError::Sdk(error)) => Err(classify(&error)),
        Err(error) => Ok(trouble_of(&error)),
    }
}

async fn check_identity(client: &Client, facts: &IdentityFacts) -> Result<Option<Trouble>, SessionError> {
    match own_master_key(client).await? {
        None => Ok(Some(Trouble::IdentityMissing)),
        Some(key) if key != facts.master_key => Ok(Some(Trouble::IdentityReplaced)),
        Some(_) if own_device_is_signed(client).await? => Ok(None),
        Some(_) => Ok(Some(Trouble::DeviceUnsigned)),
    }
}

async fn own_master_key(client: &Client) -> Result<Option<String>, SessionError> {
    let user = client.user_id().ok_or(SessionError::Incomplete { problem: "no session" })?;
    let identity = client.encryption().request_user_identity(user).await.map_err(|error| classify(&error))?;
    Ok(identity.and_then(|identity| identity.master_key().get_first_key()).map(|key| key.to_base64()))
}

async fn own_device_is_signed(client: &Client) -> Result<bool, SessionError> {
    let device = client.encryption().get_own_device().await;
    let device = device.map_err(|error| SessionError::Volume { problem: error.to_string() })?;
    Ok(device.is_some_and(|device| device.is_cross_signed_by_owner()))
}

async fn backup_version(client: &Client) -> Result<Option<String>, SessionError> {
    match client.send(get_latest_backup_info::v3::Request::new()).await {
        Ok(response) => Ok(Some(response.version)),
        Err(error) if error.client_api_error_kind() == Some(&ErrorKind::NotFound) => Ok(None),
        Err(error) => Err(classify_http(&error)),
    }
}

async fn storage_key(client: &Client) -> Result<Option<String>, SessionError> {
    let event = client.encryption().secret_storage().fetch_default_key_id().await;
    let event = event.map_err(|error| classify(&error))?;
    // Account data cannot be deleted, only emptied.
    Ok(event.and_then(|event| event.deserialize().ok()).map(|content| content.key_id))
}
