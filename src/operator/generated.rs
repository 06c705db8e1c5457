//! Secrets that the operator generates: their content, and whether one that exists is ours. (no client)
//!
//! Each is made once by plain creation, before its content is used anywhere, and never changed.
//! Losing the phrase loses the history, so nothing here makes a second one while there is any sign
//! that there was a first.

use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit as _, Mac as _};
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;

use super::{
    entropy::{self, Entropy},
    error::{Error, Problem},
    labels,
    names::Names,
    validate::Validated,
};
use crate::{crd::annotations, domain::UserId, homeserver::Session};

/// The bot's account.
#[derive(Debug, Clone)]
pub struct AccountSecret {
    /// Its password.
    pub password: SecretString,
    /// The mark by which the account on the homeserver is known as ours.
    pub ownership: SecretString,
    /// Keyed hash of the phrase that was made along with it.
    pub phrase_check: Option<String>,
}

/// The text under a key, if there is one that is not empty.
pub fn text(secret: &Secret, key: &str) -> Option<SecretString> {
    let bytes = &secret.data.as_ref()?.get(key)?.0;
    let text = std::str::from_utf8(bytes).ok()?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    (!text.is_empty()).then(|| SecretString::from(text))
}

/// The text under a key, or the problem that it is not there.
pub fn require(secret: &Secret, key: &str) -> Result<SecretString, Problem> {
    let name = secret.metadata.name.as_deref().unwrap_or_default();
    text(secret, key).ok_or_else(|| {
        Problem::account(
            "SecretKeyMissing",
            format!("Secret {name} has no key {key}, or it is empty; add the key {key}"),
        )
    })
}

/// A keyed hash, short enough to be shown and useless without the key.
pub fn keyed_hash(key: &SecretString, parts: &[&[u8]]) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.expose_secret().as_bytes()) else {
        return String::new();
    };
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    hex::encode(&mac.finalize().into_bytes()[..16])
}

/// Whether a Secret that bears the name of a generated one is the one of this identity.
pub fn check_identity(secret: &Secret, bot: &Validated) -> Result<(), Problem> {
    let identity = secret.metadata.labels.as_ref().and_then(|labels| labels.get(labels::IDENTITY));
    if identity == Some(&bot.identity) {
        return Ok(());
    }
    let name = secret.metadata.name.as_deref().unwrap_or_default();
    Err(Problem::account(
        "SecretNotOurs",
        format!(
            "Secret {name} exists but was not generated for {} on {}; it is not used and not changed. Rename \
             this {}, or move that Secret away if nothing needs it",
            bot.username,
            bot.server_name,
            bot.kind.kubernetes_kind()
        ),
    ))
}

fn secret(bot: &Validated, name: String, data: Vec<(&str, SecretString)>) -> Secret {
    let mut labels = labels::labels(bot.kind, &bot.name, bot.names.base());
    labels.insert(labels::IDENTITY.to_owned(), bot.identity.clone());
    let annotations = BTreeMap::from([
        (labels::SERVER_NAME.to_owned(), bot.server_name.to_string()),
        (labels::USERNAME.to_owned(), bot.username.to_string()),
    ]);
    let metadata = ObjectMeta {
        name: Some(name),
        namespace: Some(bot.namespace.clone()),
        labels: Some(labels),
        annotations: Some(annotations),
        ..ObjectMeta::default()
    };
    with_data(metadata, data)
}

fn with_data(metadata: ObjectMeta, data: Vec<(&str, SecretString)>) -> Secret {
    Secret {
        metadata,
        immutable: Some(true),
        type_: Some("Opaque".to_owned()),
        data: Some(
            data.into_iter()
                .map(|(key, value)| (key.to_owned(), ByteString(value.expose_secret().as_bytes().to_vec())))
                .collect(),
        ),
        string_data: None,
    }
}

/// A new Secret with a Secure Backup Phrase.
pub fn backup_phrase(bot: &Validated, entropy: &dyn Entropy) -> Result<Secret, Error> {
    Ok(secret(bot, bot.names.backup_phrase(), vec![("phrase", entropy::phrase(entropy)?)]))
}

/// A new Secret with the bot's account; remembers which phrase belongs to it.
pub fn account(bot: &Validated, phrase: &SecretString, entropy: &dyn Entropy) -> Result<Secret, Error> {
    let ownership = entropy::password(entropy)?;
    let check = keyed_hash(&ownership, &[phrase.expose_secret().as_bytes()]);
    let data = vec![
        ("username", SecretString::from(bot.username.as_str())),
        ("password", entropy::password(entropy)?),
        ("device-prefix", SecretString::from(format!("EMS{}", entropy::text(entropy, 8)?.to_uppercase()))),
        ("ownership", ownership),
    ];
    let mut account = secret(bot, bot.names.account(), data);
    account.metadata.annotations.get_or_insert_default().insert(labels::PHRASE_CHECK.to_owned(), check);
    Ok(account)
}

/// A new Secret with the passwords of the database roles.
pub fn database_roles(bot: &Validated, entropy: &dyn Entropy) -> Result<Secret, Error> {
    let data = vec![
        ("writer-password", entropy::password(entropy)?),
        ("reader-password", entropy::password(entropy)?),
        ("inbox-password", entropy::password(entropy)?),
    ];
    Ok(secret(bot, bot.names.database_roles(), data))
}

/// A new Secret with the worker's own server-admin account.
pub fn admin(bot: &Validated, entropy: &dyn Entropy) -> Result<Secret, Error> {
    let data = vec![
        ("username", SecretString::from(bot.admin_localpart.as_str())),
        ("password", entropy::password(entropy)?),
    ];
    Ok(with_homeserver(secret(bot, bot.names.admin(), data), bot))
}

/// The Secret with the session of that account. The cleanup needs it and removes it, so it has no
/// owner: the garbage collector would be faster when a bot is deleted in the foreground.
pub fn admin_token(bot: &Validated, session: &Session) -> Secret {
    with_homeserver(secret(bot, bot.names.admin_token(), session_data(session)), bot)
}

/// The same while the bot is being deleted; `like` is another Secret of that account.
pub fn admin_token_like(like: &Secret, name: String, session: &Session) -> Secret {
    with_data(metadata_like(like, Some(name)), session_data(session))
}

/// The same Secret without an owner, as it can be created.
pub fn without_owner(secret: &Secret) -> Secret {
    Secret { metadata: metadata_like(secret, secret.metadata.name.clone()), ..secret.clone() }
}

fn metadata_like(like: &Secret, name: Option<String>) -> ObjectMeta {
    let ObjectMeta { namespace, labels, annotations, .. } = like.metadata.clone();
    ObjectMeta { name, namespace, labels, annotations, ..ObjectMeta::default() }
}

fn session_data(session: &Session) -> Vec<(&'static str, SecretString)> {
    let user_id = SecretString::from(session.user_id.as_str());
    vec![("access-token", session.access_token.clone()), ("user-id", user_id)]
}

/// What the cleanup must know when the specification can no longer be read.
fn with_homeserver(mut secret: Secret, bot: &Validated) -> Secret {
    let noted = secret.metadata.annotations.get_or_insert_default();
    noted.insert(annotations::HOMESERVER.to_owned(), bot.homeserver_url.to_string());
    if let Some(ca) = &bot.homeserver_ca {
        noted.insert(labels::HOMESERVER_CA.to_owned(), format!("{}/{}", ca.name, ca.key));
    }
    secret
}

/// Whether a kept session is not that of an earlier custom resource of the same name.
pub fn is_session_of(secret: &Secret, names: &Names) -> bool {
    let user = text(secret, "user-id").and_then(|user| UserId::parse(user.expose_secret()).ok());
    user.is_none_or(|user| names.is_admin(&user))
}

/// Reads the account Secret.
pub fn read_account(secret: &Secret) -> Result<AccountSecret, Problem> {
    Ok(AccountSecret {
        password: require(secret, "password")?,
        ownership: require(secret, "ownership")?,
        phrase_check: secret.metadata.annotations.as_ref().and_then(|a| a.get(labels::PHRASE_CHECK)).cloned(),
    })
}

/// What the Secrets that were found say about the phrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PhraseState {
    /// There has never been one.
    Absent,
    /// It is there.
    Present,
}

/// Whether a phrase may be made: only if nothing says that there was one.
pub fn phrase_state(
    bot: &Validated,
    phrase: Option<&Secret>,
    account: Option<&Secret>,
) -> Result<PhraseState, Problem> {
    let name = bot.names.backup_phrase();
    let Some(found) = phrase else {
        if account.is_none() && !bot.had_phrase {
            return Ok(PhraseState::Absent);
        }
        return Err(Problem::account(
            "BackupPhraseMissing",
            format!(
                "Secret {name} with the Secure Backup Phrase was deleted; no other phrase is made, because the \
                 encrypted history can be read with the old one only. Restore Secret {name} from a backup. If \
                 the phrase is lost for good: delete this {kind} and Secret {account}, and make a new \
                 {kind} with another username",
                kind = bot.kind.kubernetes_kind(),
                account = bot.names.account(),
            ),
        ));
    };
    let text = require(found, "phrase")?;
    if let Some(AccountSecret { ownership, phrase_check: Some(check), .. }) =
        account.map(read_account).transpose()?
        && check != keyed_hash(&ownership, &[text.expose_secret().as_bytes()])
    {
        return Err(Problem::account(
            "BackupPhraseAltered",
            format!(
                "Secret {name} holds another phrase than the one that was generated; the encrypted history can \
                 be read with that one only. Restore Secret {name} from a backup"
            ),
        ));
    }
    Ok(PhraseState::Present)
}
