//! The Secrets as files, below one folder.

use std::path::{Path, PathBuf};

use secrecy::SecretString;

use crate::{
    cli::secret_files::text,
    domain::{UserId, trail::TrailPoint},
    homeserver::Session,
};

/// Reads them; an error names the file, never what is in it.
pub(in crate::cli) struct Files {
    folder: PathBuf,
}

impl Files {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// A file that must be there. A newline at its end does not count.
    pub(in crate::cli) fn text(&self, name: &str) -> anyhow::Result<String> {
        text(&self.folder.join(name))
    }

    pub(super) fn secret(&self, name: &str) -> anyhow::Result<SecretString> {
        self.text(name).map(SecretString::from)
    }

    /// A file that may be missing.
    pub(super) fn optional(&self, name: &str) -> Option<String> {
        self.text(name).ok()
    }

    /// What the MACs of the inbox are made with. It is there also where other roles are given: without
    /// it no message of the inbox would be known as what it is.
    pub(super) fn inbox_key(&self) -> anyhow::Result<SecretString> {
        self.secret("database-roles/inbox-password")
    }

    /// The session of the worker's admin account.
    pub(in crate::cli) fn admin_session(&self) -> anyhow::Result<Session> {
        Ok(Session {
            user_id: UserId::parse(self.text("admin/user-id")?)?,
            device_id: None,
            access_token: self.secret("admin/access-token")?,
        })
    }

    /// The point in the ConfigMap that outlives the custom resource.
    pub(super) fn kept_trail(&self) -> Option<TrailPoint> {
        Some(TrailPoint {
            epoch: self.optional("trail/epoch")?.parse().ok()?,
            size: self.optional("trail/size")?.parse().ok()?,
            root_hash: self.optional("trail/rootHash")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn a_missing_file_is_named_and_a_newline_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("account")).unwrap();
        std::fs::write(folder.path().join("account/password"), "geheim\n").unwrap();
        let files = Files::new(folder.path());
        assert_eq!(files.text("account/password").unwrap(), "geheim");
        let error = format!("{:#}", files.secret("backup-phrase/phrase").unwrap_err());
        assert!(error.contains("backup-phrase/phrase"), "{error}");
        assert!(files.kept_trail().is_none());
    }

    #[test]
    fn the_key_of_the_inbox_must_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path());
        let missing = format!("{:#}", files.inbox_key().unwrap_err());
        assert!(missing.contains("database-roles/inbox-password"), "{missing}");
        std::fs::create_dir(folder.path().join("database-roles")).unwrap();
        std::fs::write(folder.path().join("database-roles/inbox-password"), "geheim\n").unwrap();
        assert_eq!(files.inbox_key().unwrap().expose_secret(), "geheim");
    }
}
