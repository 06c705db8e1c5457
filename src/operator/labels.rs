//! Labels, annotations and the field manager of everything that the operator makes.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::domain::{BotKind, Localpart, ServerName};

/// Field manager of the operator.
pub const FIELD_MANAGER: &str = "ems-bots-operator";
/// Finalizer of both kinds.
pub const FINALIZER: &str = "ems.element.io/cleanup";

/// Standard label: the product.
pub const NAME: &str = "app.kubernetes.io/name";
/// Standard label: which bot.
pub const INSTANCE: &str = "app.kubernetes.io/instance";
/// Standard label: which part.
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// Standard label: who made it.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Kind of the bot, `adminbot` or `auditbot`.
pub const KIND: &str = "ems.element.io/kind";
/// Name of the bot's custom resource.
pub const BOT: &str = "ems.element.io/bot";
/// Hash over server name, kind and username: the identity for which a Secret was generated.
pub const IDENTITY: &str = "ems.element.io/identity";

/// On generated Secrets: the server name, for people.
pub const SERVER_NAME: &str = "ems.element.io/server-name";
/// On generated Secrets: the bot's username, for people.
pub const USERNAME: &str = "ems.element.io/username";
/// On the account Secret: keyed hash of the backup phrase, so that another phrase is noticed.
pub const PHRASE_CHECK: &str = "ems.element.io/phrase-check";
/// On the session Secret: name of the Secret with the CA of the homeserver, and its key.
pub const HOMESERVER_CA: &str = "ems.element.io/homeserver-ca";
/// On the pod: keyed hash over the Secrets that it mounts; a change restarts it.
pub const SECRETS_HASH: &str = "ems.element.io/secrets-hash";

/// Labels by which the objects of one bot are selected.
pub fn selector(kind: BotKind, name: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(KIND.to_owned(), kind.slug().to_owned()), (BOT.to_owned(), name.to_owned())])
}

/// The selector as a query.
pub fn selector_query(kind: BotKind, name: &str) -> String {
    let pairs: Vec<String> = selector(kind, name).iter().map(|(k, v)| format!("{k}={v}")).collect();
    pairs.join(",")
}

/// All labels of an object of one bot.
pub fn labels(kind: BotKind, name: &str, base: &str) -> BTreeMap<String, String> {
    let mut labels = selector(kind, name);
    for (key, value) in
        [(NAME, "ems-bots"), (INSTANCE, base), (COMPONENT, "worker"), (MANAGED_BY, FIELD_MANAGER)]
    {
        labels.insert(key.to_owned(), value.to_owned());
    }
    labels
}

/// The identity as a label value.
pub fn identity(kind: BotKind, server: &ServerName, username: &Localpart) -> String {
    let mut hash = Sha256::new();
    for part in [kind.slug(), server.as_str(), username.as_str()] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hex::encode(&hash.finalize()[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_differ_in_every_part() {
        let server = |s: &str| ServerName::parse(s).unwrap();
        let user = |s: &str| Localpart::parse(s).unwrap();
        let first = identity(BotKind::Audit, &server("a.example"), &user("auditbot"));
        assert_eq!(first.len(), 32);
        assert_ne!(first, identity(BotKind::Admin, &server("a.example"), &user("auditbot")));
        assert_ne!(first, identity(BotKind::Audit, &server("b.example"), &user("auditbot")));
        assert_ne!(first, identity(BotKind::Audit, &server("a.example"), &user("auditbot2")));
    }

    #[test]
    fn label_values_are_allowed_in_kubernetes() {
        for value in labels(BotKind::Audit, &"a".repeat(40), &format!("auditbot-{}", "a".repeat(40))).values()
        {
            assert!(value.len() <= 63, "{value}");
        }
    }
}
