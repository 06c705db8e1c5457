//! What the worker keeps on its volume beside the crypto store: which device it is, and which
//! identity it made. The access token is in the store, encrypted.

use std::{io::Write, os::unix::fs::OpenOptionsExt, path::Path};

use serde::{Deserialize, Serialize};

use super::SessionError;
use crate::domain::{DeviceId, UserId};

const NAME: &str = "session.json";

/// Bytes. The four databases of a device that only logged in take 0.7 MiB with their logs.
const ROOM_FOR_A_STORE: usize = 1 << 20;

/// The identity that this product made for the bot. Once it stands in the account data and in the
/// trail, it is finished, and is never replaced except by a person's decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdentityFacts {
    /// Public master cross-signing key, unpadded base64.
    pub master_key: String,
    /// Version of the key backup on the homeserver.
    pub backup_version: String,
    /// Identifier of the default key of the secret storage.
    pub secret_storage_key: String,
}

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SessionFile {
    pub(super) user_id: UserId,
    pub(super) device_id: DeviceId,
    /// Number of the device, and of its store's folder.
    pub(super) number: u32,
    /// The identity, once it is finished.
    pub(super) identity: Option<IdentityFacts>,
    /// This device has been signed by the identity (or was told that it cannot be).
    pub(super) settled: bool,
    /// Number of an older device of ours whose keys have not been taken over yet.
    pub(super) take_over: Option<u32>,
}

impl SessionFile {
    /// The file of this user, if there is one. A file of another user or one that cannot be read
    /// is an error: it is evidence, not rubbish.
    pub(super) fn load(folder: &Path, user: &UserId) -> Result<Option<Self>, SessionError> {
        let path = folder.join(NAME);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(volume(&format!("cannot read {NAME}"), &error)),
        };
        let file: Self = serde_json::from_slice(&text).map_err(|error| SessionError::Volume {
            problem: format!("{NAME} is not what was written: {error}"),
        })?;
        if file.user_id != *user {
            let problem = format!("it belongs to {}, this worker is {user}", file.user_id);
            return Err(SessionError::Volume { problem });
        }
        Ok(Some(file))
    }

    /// Writes the file, for its owner only, at once or not at all.
    pub(super) fn save(&self, folder: &Path) -> Result<(), SessionError> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| SessionError::Volume { problem: error.to_string() })?;
        let fresh = folder.join("session.json.new");
        let written = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&fresh, folder.join(NAME)))
            .and_then(|()| std::fs::File::open(folder)?.sync_all());
        written.map_err(|error| volume(&format!("cannot write {NAME}"), &error))
    }
}

/// Whether the volume has room for a new store: a login whose token it cannot keep would leave one more
/// device behind with each attempt.
pub(super) fn try_volume(folder: &Path) -> Result<(), SessionError> {
    let trial = folder.join("trial");
    let written = std::fs::File::create(&trial)
        .and_then(|mut file| file.write_all(&vec![0; ROOM_FOR_A_STORE]).and_then(|()| file.sync_all()));
    let removed = std::fs::remove_file(&trial);
    written.and(removed).map_err(|error| volume("no room for a new device", &error))
}

pub(super) fn volume(what: &str, error: &std::io::Error) -> SessionError {
    SessionError::Volume { problem: format!("{what}: {error}") }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file() -> SessionFile {
        SessionFile {
            user_id: UserId::parse("@bot:example.org").unwrap(),
            device_id: DeviceId::parse("EMS-1").unwrap(),
            number: 1,
            identity: None,
            settled: false,
            take_over: None,
        }
    }

    #[test]
    fn it_is_read_back_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let file = file();
        assert_eq!(SessionFile::load(folder.path(), &file.user_id).unwrap(), None);
        file.save(folder.path()).unwrap();
        assert_eq!(SessionFile::load(folder.path(), &file.user_id).unwrap(), Some(file));
        let mode = std::fs::metadata(folder.path().join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_volume_is_tried_without_a_trace() {
        let folder = tempfile::tempdir().unwrap();
        try_volume(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let refused = try_volume(&folder.path().join("gone"));
        assert!(matches!(refused, Err(SessionError::Volume { .. })), "{refused:?}");
    }

    #[test]
    fn another_users_volume_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        file().save(folder.path()).unwrap();
        let other = UserId::parse("@other:example.org").unwrap();
        assert!(matches!(SessionFile::load(folder.path(), &other), Err(SessionError::Volume { .. })));
    }

    #[test]
    fn a_damaged_file_is_not_thrown_away() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(NAME), "{").unwrap();
        let user = UserId::parse("@bot:example.org").unwrap();
        assert!(matches!(SessionFile::load(folder.path(), &user), Err(SessionError::Volume { .. })));
    }
}
