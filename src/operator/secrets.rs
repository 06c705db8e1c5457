//! Makes the generated Secrets that are missing, before anything uses them. (client)

use k8s_openapi::api::core::v1::Secret;
use secrecy::SecretString;

use super::{
    context::Ctx,
    dereference::Found,
    error::{Error, Problem},
    generated::{
        self, AccountSecret, PhraseState, check_identity, is_session_of, phrase_state, read_account, require,
    },
    labels::FIELD_MANAGER,
    validate::Validated,
};
use crate::kube_util::{Created, create_or_read};

/// The generated Secrets, all of which exist now.
#[derive(Debug, Clone)]
pub struct Generated {
    /// The bot's account.
    pub account: AccountSecret,
    /// Password of the worker's admin account.
    pub admin_password: SecretString,
    /// The Secrets themselves, for the hash: account, phrase, roles.
    pub objects: [Secret; 3],
    /// Names of those that were made just now.
    pub made: Vec<String>,
}

/// Makes what is missing. The phrase comes first and the account, which remembers that there is a
/// phrase, second: wherever this is interrupted, no second phrase is made.
pub async fn ensure_secrets_exist(ctx: &Ctx, bot: &Validated, found: &Found) -> Result<Generated, Error> {
    for secret in [&found.account, &found.phrase, &found.roles, &found.admin].into_iter().flatten() {
        check_identity(secret, bot)?;
    }
    let state = phrase_state(bot, found.phrase.as_ref(), found.account.as_ref())?;
    if found.account.is_none() && bot.had_account {
        return Err(lost(bot, &bot.names.account(), "the bot's account").into());
    }
    let has_session = found.admin_token.as_ref().is_some_and(|kept| is_session_of(kept, &bot.names));
    if found.admin.is_none() && has_session {
        return Err(lost(bot, &bot.names.admin(), "the worker's admin account").into());
    }
    let mut made = Vec::new();
    let entropy = ctx.entropy.as_ref();
    let phrase = match (&found.phrase, state) {
        (Some(found), PhraseState::Present) => found.clone(),
        _ => create(ctx, bot, generated::backup_phrase(bot, entropy)?, &mut made).await?,
    };
    let account = match &found.account {
        Some(found) => found.clone(),
        None => {
            let new = generated::account(bot, &require(&phrase, "phrase")?, entropy)?;
            create(ctx, bot, new, &mut made).await?
        }
    };
    // What exists after a race may be another's: the pair must fit.
    phrase_state(bot, Some(&phrase), Some(&account))?;
    let roles = match &found.roles {
        Some(found) => found.clone(),
        None => create(ctx, bot, generated::database_roles(bot, entropy)?, &mut made).await?,
    };
    let admin = match &found.admin {
        Some(found) => found.clone(),
        None => create(ctx, bot, generated::admin(bot, entropy)?, &mut made).await?,
    };
    Ok(Generated {
        account: read_account(&account)?,
        admin_password: require(&admin, "password")?,
        objects: [account, phrase, roles],
        made,
    })
}

async fn create(ctx: &Ctx, bot: &Validated, new: Secret, made: &mut Vec<String>) -> Result<Secret, Error> {
    match create_or_read(&ctx.client, FIELD_MANAGER, &new).await? {
        Created::New(secret) => {
            made.extend(secret.metadata.name.clone());
            Ok(secret)
        }
        Created::Existing(secret) => {
            check_identity(&secret, bot)?;
            Ok(secret)
        }
    }
}

fn lost(bot: &Validated, name: &str, what: &str) -> Problem {
    Problem::account(
        "AccountSecretMissing",
        format!(
            "Secret {name} with {what} was deleted; restore it from a backup. If it is lost for good: delete this \
             {kind} with deletionPolicy Retain and make it anew with another username",
            kind = bot.kind.kubernetes_kind()
        ),
    )
}
