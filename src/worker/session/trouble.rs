//! What a person who is signed in as the bot can do to its identity, and the way back.

use crate::domain::worker::Check;

/// Something that was made is not there as it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The cross-signing keys are other ones.
    IdentityReplaced,
    /// There are no cross-signing keys.
    IdentityMissing,
    /// The worker's device lost its signature.
    DeviceUnsigned,
    /// The key backup is another one.
    BackupReplaced,
    /// There is no key backup.
    BackupDeleted,
    /// The secret storage is another one, or misses secrets.
    StorageReplaced,
    /// There is no secret storage.
    StorageDeleted,
    /// The phrase does not open the secret storage.
    PhraseRefused,
}

/// How a person lets the worker make things anew.
const WAY_BACK: &str = "set the annotation ems.element.io/repair-encryption to a new value (for example \
    today's date) to let the worker make it anew from the keys it holds";

impl Trouble {
    /// Whether new rooms may be joined: only a device that its owner has signed is given keys.
    pub fn may_join(self) -> bool {
        !matches!(self, Self::IdentityReplaced | Self::IdentityMissing | Self::DeviceUnsigned)
    }

    /// Name of the state, as the condition has it and as records tell it.
    pub fn reason(self) -> &'static str {
        self.check("").reason
    }

    /// The condition `EncryptionReady` that it makes; `phrase` names the Secret with the phrase.
    pub fn check(self, phrase: &str) -> Check {
        let (reason, what) = match self {
            Self::IdentityReplaced => (
                "IdentityReplaced",
                "a person signed in as the bot replaced its cross-signing keys; the worker goes on \
                 recording what it can decrypt and joins no further room",
            ),
            Self::IdentityMissing => (
                "IdentityMissing",
                "the bot has no cross-signing keys any more (was its account deactivated?); the worker goes \
                 on recording what it can decrypt and joins no further room",
            ),
            Self::DeviceUnsigned => (
                "DeviceUnsigned",
                "the worker's device is not cross-signed any more, so that clients may stop sending keys \
                 to it; it joins no further room",
            ),
            Self::BackupReplaced => (
                "BackupReplaced",
                "a person signed in as the bot replaced its key backup: the worker's keys are in its volume \
                 only, and people who sign in as the bot cannot read new messages",
            ),
            Self::BackupDeleted => (
                "BackupDeleted",
                "a person signed in as the bot deleted its key backup: the worker's keys are in its volume \
                 only, and people who sign in as the bot cannot read old messages",
            ),
            Self::StorageReplaced => (
                "SecretStorageReplaced",
                "a person signed in as the bot changed its secret storage: the phrase does not open the \
                 bot's keys any more",
            ),
            Self::StorageDeleted => (
                "SecretStorageDeleted",
                "a person signed in as the bot deleted its secret storage: the phrase opens nothing",
            ),
            Self::PhraseRefused => {
                return Check::failed(
                    "PhraseRefused",
                    format!(
                        "the phrase in the Secret {phrase} does not open the bot's secret storage: restore \
                         the Secret from a backup, or {WAY_BACK}"
                    ),
                );
            }
        };
        Check::failed(reason, format!("{what}; {WAY_BACK}"))
    }
}

#[cfg(test)]
mod tests {
    use super::Trouble;

    #[test]
    fn every_trouble_says_what_to_do() {
        for trouble in [
            Trouble::IdentityReplaced,
            Trouble::IdentityMissing,
            Trouble::DeviceUnsigned,
            Trouble::BackupReplaced,
            Trouble::BackupDeleted,
            Trouble::StorageReplaced,
            Trouble::StorageDeleted,
            Trouble::PhraseRefused,
        ] {
            let check = trouble.check("bot-backup-phrase");
            assert_eq!(check.ok, Some(false));
            assert!(check.message.contains("repair-encryption"), "{}", check.message);
        }
    }
}
