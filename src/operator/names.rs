//! Names of a bot's children, all made of the kind and the name of the custom resource.

use sha2::{Digest as _, Sha256};

use crate::domain::{BotKind, IdError, Localpart, UserId};

/// The names of one bot's children.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    base: String,
    uid8: String,
}

impl Names {
    /// Of a custom resource with this name and UID.
    pub fn new(kind: BotKind, name: &str, uid: &str) -> Self {
        let slug = kind.slug();
        let base = if name == slug { slug.to_owned() } else { shorten(&format!("{slug}-{name}")) };
        let uid8 = uid.chars().filter(char::is_ascii_hexdigit).take(8).collect();
        Self { base, uid8 }
    }

    /// What all names begin with.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Secret with the bot's account.
    pub fn account(&self) -> String {
        format!("{}-account", self.base)
    }

    /// Secret with the Secure Backup Phrase.
    pub fn backup_phrase(&self) -> String {
        format!("{}-backup-phrase", self.base)
    }

    /// Secret with the passwords of the database roles.
    pub fn database_roles(&self) -> String {
        format!("{}-database-roles", self.base)
    }

    /// Secret with what the console needs to put records into the trail's inbox; and the right to read it.
    pub fn inbox(&self) -> String {
        format!("{}-inbox", self.base)
    }

    /// Secret with the worker's own server-admin account.
    pub fn admin(&self) -> String {
        format!("{}-admin-{}", self.base, self.uid8)
    }

    /// Secret with the session of that account.
    pub fn admin_token(&self) -> String {
        format!("{}-admin-token", self.base)
    }

    /// Workload, `ServiceAccount`, Role, `RoleBinding`, Service and `NetworkPolicy`.
    pub fn worker(&self) -> String {
        format!("{}-worker", self.base)
    }

    /// The worker's only pod.
    pub fn worker_pod(&self) -> String {
        format!("{}-worker-0", self.base)
    }

    /// The worker's volume.
    pub fn worker_data(&self) -> String {
        format!("{}-worker-data", self.base)
    }

    /// `ConfigMap` that outlives the bot and says where its trail stood.
    pub fn trail(&self) -> String {
        format!("{}-trail", self.base)
    }

    /// Whether an object of this name may be one that is applied for this bot and watched; of which kind does not matter.
    pub fn is_applied(&self, name: &str) -> bool {
        [self.worker(), self.worker_data()].iter().any(|own| own == name)
    }

    /// Localpart of the worker's own server-admin account: one per custom resource.
    pub fn admin_localpart(&self, username: &Localpart) -> Result<Localpart, IdError> {
        Localpart::parse(format!("{username}-admin-{}", self.uid8))
    }

    /// Whether a user is the admin account of this custom resource, and not that of an earlier one of
    /// the same name.
    pub fn is_admin(&self, user: &UserId) -> bool {
        user.localpart().ends_with(&format!("-admin-{}", self.uid8))
    }
}

/// A pod of a `StatefulSet` carries the label `<name>-<revision>` with up to eleven characters
/// after the name, and a label has 63: with `-worker`, 45 are left. What is longer is cut and told
/// apart by a hash.
fn shorten(base: &str) -> String {
    const MAX: usize = 45;
    if base.len() <= MAX {
        return base.to_owned();
    }
    let hash = hex::encode(&Sha256::digest(base.as_bytes())[..4]);
    let kept: String = base.chars().take(MAX - 9).collect();
    format!("{}-{hash}", kept.trim_end_matches('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "6f1c2a9b-0000-4000-8000-000000000000";

    #[test]
    fn the_default_name_is_not_doubled() {
        assert_eq!(Names::new(BotKind::Audit, "auditbot", UID).account(), "auditbot-account");
        assert_eq!(Names::new(BotKind::Admin, "auditbot", UID).account(), "adminbot-auditbot-account");
        assert_eq!(Names::new(BotKind::Audit, "main", UID).admin(), "auditbot-main-admin-6f1c2a9b");
    }

    #[test]
    fn the_two_kinds_never_share_a_name() {
        for name in ["adminbot", "auditbot", "x", "account"] {
            let (admin, audit) =
                (Names::new(BotKind::Admin, name, UID), Names::new(BotKind::Audit, name, UID));
            assert_ne!(admin.base(), audit.base());
        }
    }

    #[test]
    fn what_is_applied_is_known_by_its_name() {
        let names = Names::new(BotKind::Audit, "main", UID);
        for own in ["worker", "worker-data"] {
            assert!(names.is_applied(&format!("auditbot-main-{own}")), "{own}");
        }
        assert!(!names.is_applied("auditbot-worker") && !names.is_applied("auditbot-main-account"));
    }

    #[test]
    fn the_longest_names_fit_into_63_characters() {
        let names = Names::new(BotKind::Audit, &"n".repeat(40), UID);
        // A pod's name is a host name, and the revision hash of a StatefulSet is a label: 11 more.
        let with_revision = format!("{}-0123456789", names.worker());
        let all = [
            names.account(),
            names.backup_phrase(),
            names.database_roles(),
            names.inbox(),
            names.admin(),
            names.admin_token(),
            names.worker_pod(),
            names.worker_data(),
            names.trail(),
            with_revision,
        ];
        for name in all {
            assert!(name.len() <= 63, "{name} has {} characters", name.len());
        }
    }

    #[test]
    fn long_names_stay_distinct() {
        let one = Names::new(BotKind::Audit, &format!("{}a", "n".repeat(39)), UID);
        let other = Names::new(BotKind::Audit, &format!("{}b", "n".repeat(39)), UID);
        assert_ne!(one.base(), other.base());
    }

    #[test]
    fn the_admin_account_is_named_after_the_custom_resource() {
        let names = Names::new(BotKind::Audit, "auditbot", UID);
        let admin = names.admin_localpart(&Localpart::parse("auditbot").unwrap()).unwrap();
        assert_eq!(admin.as_str(), "auditbot-admin-6f1c2a9b");
        let is_admin = |user: &str| names.is_admin(&UserId::parse(user).unwrap());
        assert!(is_admin("@auditbot-admin-6f1c2a9b:example.org"));
        assert!(!is_admin("@auditbot-admin-0f1c2a9b:example.org"), "that of an earlier one");
    }
}
