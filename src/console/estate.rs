//! What of a cluster belongs to ems-bots: the bots, and by their names everything that they are made of.
//! (no client)

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::{BotKind, BotName};

/// The names that end in these belong to a bot, whoever made them.
const SECRETS: [&str; 5] = ["-account", "-backup-phrase", "-database-roles", "-admin-token", "-inbox"];

/// A bot and what of its namespace it uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownBot {
    /// Its name.
    pub name: BotName,
    /// Which of all that had this name.
    pub uid: String,
    /// What the names of its children begin with.
    pub base: String,
    /// Secrets that it refers to.
    pub secrets: BTreeSet<String>,
    /// Its deletion has begun: its trail is about to have its last record.
    pub is_leaving: bool,
    /// It was deleted a short time ago: what is reported late is still about it.
    pub is_gone: bool,
}

/// A bot from its creation to its deletion; another one may get its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Life {
    /// Its name.
    pub bot: BotName,
    /// Its UID.
    pub uid: String,
}

/// Who ems-bots is in the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Namespace of operator and console.
    pub namespace: String,
    /// `ServiceAccount` of the operator, there.
    pub operator: String,
    /// `ServiceAccount` of the console, there.
    pub console: String,
    /// Secrets that the console uses, there.
    pub secrets: BTreeSet<String>,
}

impl Place {
    fn user(&self, account: &str) -> String {
        format!("system:serviceaccount:{}:{account}", self.namespace)
    }

    /// The operator as a user.
    pub fn operator_user(&self) -> String {
        self.user(&self.operator)
    }

    /// The console as a user.
    pub fn console_user(&self) -> String {
        self.user(&self.console)
    }

    /// Both of them.
    pub fn users(&self) -> Vec<String> {
        vec![self.operator_user(), self.console_user()]
    }
}

/// Everything that belongs to ems-bots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Estate {
    /// Who ems-bots is.
    pub place: Place,
    /// Whether all bots were listed, so that one that is not here is none.
    pub is_complete: bool,
    bots: BTreeMap<String, Vec<KnownBot>>,
}

impl Estate {
    /// Of these bots.
    pub fn new(place: Place, bots: impl IntoIterator<Item = KnownBot>) -> Self {
        let mut by_namespace: BTreeMap<String, Vec<KnownBot>> = BTreeMap::new();
        for bot in bots {
            by_namespace.entry(bot.name.namespace.clone()).or_default().push(bot);
        }
        Self { place, is_complete: false, bots: by_namespace }
    }

    /// The same, of all bots that there are.
    #[must_use]
    pub fn complete(self) -> Self {
        Self { is_complete: true, ..self }
    }

    /// Every bot that has a trail to write to.
    pub fn everybody(&self) -> impl Iterator<Item = &BotName> {
        self.bots.values().flatten().filter(|bot| !bot.is_gone).map(|bot| &bot.name)
    }

    /// The same, with their UIDs.
    pub fn lives(&self) -> impl Iterator<Item = Life> {
        let life = |bot: &KnownBot| Life { bot: bot.name.clone(), uid: bot.uid.clone() };
        self.bots.values().flatten().filter(|bot| !bot.is_gone).map(life)
    }

    /// The bots whose trails are about to have their last record.
    pub fn leaving(&self) -> impl Iterator<Item = &BotName> {
        let is_leaving = |bot: &&KnownBot| bot.is_leaving && !bot.is_gone;
        self.bots.values().flatten().filter(is_leaving).map(|bot| &bot.name)
    }

    /// Whether there is such a bot, or was a short time ago.
    pub fn knows(&self, bot: &BotName) -> bool {
        self.of(&bot.namespace).any(|known| known.name == *bot)
    }

    /// The bots of a namespace, and those that were there a short time ago.
    pub fn of(&self, namespace: &str) -> impl Iterator<Item = &KnownBot> {
        self.bots.get(namespace).into_iter().flatten()
    }

    /// Whether the namespace is that of a tenant.
    pub fn is_tenant(&self, namespace: &str) -> bool {
        self.bots.contains_key(namespace)
    }

    /// The bots that a Secret belongs to or that refer to it. Generated ones outlive their bot: they belong to it
    /// by their name.
    pub fn owners_of_secret(&self, namespace: &str, name: &str) -> Vec<BotName> {
        let known: Vec<BotName> = self
            .of(namespace)
            .filter(|bot| bot.secrets.contains(name) || is_secret_of(&bot.base, name))
            .map(|bot| bot.name.clone())
            .collect();
        if known.is_empty() { by_name(namespace, name).into_iter().collect() } else { known }
    }

    /// The bots whose child of another kind this is: `<base>-worker`, its pod and volume, `<base>-trail`.
    pub fn owners_of_child(&self, namespace: &str, name: &str) -> Vec<BotName> {
        let is_child = |bot: &&KnownBot| {
            let rest = name.strip_prefix(&bot.base);
            rest.is_some_and(|rest| {
                ["-worker", "-worker-0", "-worker-data", "-trail", "-inbox"].contains(&rest)
            })
        };
        self.of(namespace).filter(is_child).map(|bot| bot.name.clone()).collect()
    }
}

fn is_secret_of(base: &str, name: &str) -> bool {
    let Some(rest) = name.strip_prefix(base) else { return false };
    SECRETS.contains(&rest) || rest.strip_prefix("-admin-").is_some_and(is_uid8)
}

fn is_uid8(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The bot that a generated Secret was made for, as far as its name tells: long names are cut.
fn by_name(namespace: &str, name: &str) -> Option<BotName> {
    let base = SECRETS.iter().find_map(|end| name.strip_suffix(end)).or_else(|| {
        let (base, uid) = name.rsplit_once("-admin-")?;
        is_uid8(uid).then_some(base)
    })?;
    [BotKind::Admin, BotKind::Audit].into_iter().find_map(|kind| {
        let slug = kind.slug();
        let bot = if base == slug { slug } else { base.strip_prefix(slug)?.strip_prefix('-')? };
        Some(BotName { namespace: namespace.to_owned(), name: bot.to_owned(), kind })
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::console) fn audit_bot(namespace: &str, name: &str) -> BotName {
        BotName { namespace: namespace.into(), name: name.into(), kind: BotKind::Audit }
    }

    pub(in crate::console) fn estate() -> Estate {
        let place = Place {
            namespace: "ems-bots-system".into(),
            operator: "ems-bots-operator".into(),
            console: "ems-bots-console".into(),
            secrets: ["ems-bots-console-tls".to_owned(), "platform-database".to_owned()].into(),
        };
        let bot = |namespace: &str| KnownBot {
            name: audit_bot(namespace, "auditbot"),
            uid: "life".into(),
            base: "auditbot".into(),
            secrets: BTreeSet::from(["ems-bots-database".to_owned(), "ems-bots-homeserver".to_owned()]),
            is_leaving: false,
            is_gone: false,
        };
        Estate::new(place, [bot("tenant-a"), bot("tenant-b")])
    }

    #[test]
    fn secrets_are_known_by_reference_and_by_name_also_after_the_bot() {
        let estate = estate();
        let owners = |namespace: &str, name: &str| estate.owners_of_secret(namespace, name);
        assert_eq!(owners("tenant-a", "ems-bots-database"), [audit_bot("tenant-a", "auditbot")]);
        assert_eq!(owners("tenant-a", "auditbot-backup-phrase"), [audit_bot("tenant-a", "auditbot")]);
        assert_eq!(owners("tenant-a", "auditbot-admin-0123abcd"), [audit_bot("tenant-a", "auditbot")]);
        assert_eq!(owners("gone", "auditbot-main-account"), [audit_bot("gone", "main")]);
        assert_eq!(owners("gone", "adminbot-account")[0].kind, BotKind::Admin);
        for other in ["registry", "auditbot", "auditbot-admin-short", "my-account", "auditbotx-account"] {
            assert!(owners("tenant-a", other).is_empty(), "{other}");
        }
    }

    #[test]
    fn children_are_known_by_name() {
        let estate = estate();
        assert_eq!(estate.owners_of_child("tenant-b", "auditbot-worker-0").len(), 1);
        assert!(estate.owners_of_child("tenant-b", "auditbot-worker-1").is_empty());
        assert!(estate.owners_of_child("other", "auditbot-worker-0").is_empty());
        assert_eq!(estate.everybody().count(), 2);
        let gone = KnownBot { is_gone: true, ..estate.of("tenant-b").next().unwrap().clone() };
        let estate = Estate::new(Place::default(), [gone]);
        assert_eq!(estate.owners_of_child("tenant-b", "auditbot-worker-0").len(), 1, "reported late");
        assert_eq!(estate.everybody().count(), 0, "no record waits for it for ever");
    }

    #[test]
    fn who_is_about_to_leave_is_told_from_who_has_left() {
        let bot = |is_leaving, is_gone| KnownBot {
            is_leaving,
            is_gone,
            ..estate().of("tenant-a").next().unwrap().clone()
        };
        for (is_leaving, is_gone, expected) in
            [(false, false, 0), (true, false, 1), (true, true, 0), (false, true, 0)]
        {
            let estate = Estate::new(Place::default(), [bot(is_leaving, is_gone)]);
            assert_eq!(estate.leaving().count(), expected, "{is_leaving} {is_gone}");
            assert!(estate.knows(&audit_bot("tenant-a", "auditbot")));
            assert!(!estate.knows(&audit_bot("tenant-a", "other")));
        }
    }
}
