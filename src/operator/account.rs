//! Makes the homeserver's accounts what they should be. (homeserver, and the session's Secret)
//!
//! Every step looks first and changes only what differs, so that it can be interrupted anywhere.
//! An account without this product's mark is never touched.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use secrecy::{ExposeSecret as _, SecretString};

use super::{
    context::{Ctx, HomeserverTarget},
    error::{Error, Problem},
    generated::{admin_token, check_identity, is_session_of, require, without_owner},
    labels::FIELD_MANAGER,
    secrets::Generated,
    validate::{Credential, Validated},
};
use crate::{
    crd::annotations,
    domain::{BotKind, DeviceId, Failure as _, UserId},
    homeserver::{Account, Admin, Connect, HomeserverError, NewAccount, Session},
    kube_util::{Created, create_or_read, events::Notice, orphans},
};

/// Device of the worker's admin account: one, so that logging in again leaves none behind.
const DEVICE: &str = "EMSOPERATOR";

/// What was done on the homeserver.
#[derive(Debug)]
pub struct Accounts {
    /// The session of the worker's admin account.
    pub session: Secret,
    /// User id of that account.
    pub admin_user_id: UserId,
    /// What people should see.
    pub notices: Vec<Notice>,
}

/// Makes both accounts exist and be as the specification says.
pub async fn ensure_accounts(
    ctx: &Ctx,
    bot: &Validated,
    generated: &Generated,
    session: Option<&Secret>,
) -> Result<Accounts, Error> {
    let connect = open(ctx, bot)?;
    check_server_name(bot, connect.entry().server_name().await?.as_ref().map(AsRef::as_ref))?;
    let mut notices = Vec::new();
    let (session, admin) = ensure_session(ctx, bot, generated, &connect, session, &mut notices).await?;
    let own = admin.user_id().clone();
    ensure_bot(bot, generated, admin.as_ref(), &mut notices).await.map_err(|e| of_own_session(e, &own))?;
    Ok(Accounts { session, admin_user_id: own, notices })
}

fn open(ctx: &Ctx, bot: &Validated) -> Result<Arc<dyn Connect>, Error> {
    let target = HomeserverTarget { url: bot.homeserver_url.clone(), ca_pem: bot.homeserver_ca_pem.clone() };
    Ok((ctx.connect)(target)?)
}

/// No look again soon: the name of a homeserver never changes, and the look itself may be a login.
fn check_server_name(bot: &Validated, found: Option<&str>) -> Result<(), Problem> {
    match found {
        Some(found) if found != bot.server_name.as_str() => Err(Problem::account(
            "ServerNameMismatch",
            format!(
                "the homeserver at {} calls itself {}, but spec.homeserver.serverName is {}. Correct \
                 spec.homeserver.url, or make this {} anew with the right serverName. If there is an account {} \
                 there, it is of no use",
                bot.homeserver_url,
                found.chars().take(80).collect::<String>(),
                bot.server_name,
                bot.kind.kubernetes_kind(),
                bot.admin_localpart,
            ),
        )),
        _ => Ok(()),
    }
}

/// A session of the worker's admin account that the homeserver accepts, kept in a Secret, so that
/// a restart logs in nowhere.
async fn ensure_session(
    ctx: &Ctx,
    bot: &Validated,
    generated: &Generated,
    connect: &Arc<dyn Connect>,
    kept: Option<&Secret>,
    notices: &mut Vec<Notice>,
) -> Result<(Secret, Box<dyn Admin>), Error> {
    if let Some(kept) = kept {
        check_identity(kept, bot)?;
        let why = match read_session(kept, bot) {
            Ok(session) => {
                let admin = connect.admin(session);
                match admin.server_version().await {
                    Ok(_) => return Ok((disown(ctx, kept).await?, admin)),
                    Err(HomeserverError::CredentialRefused { .. }) => {
                        "is no longer accepted by the homeserver"
                    }
                    Err(error) => return Err(of_own_session(error.into(), admin.user_id())),
                }
            }
            Err(why) => why,
        };
        let note = format!("the session in Secret {} {why}; a new one is made", bot.names.admin_token());
        notices.push(told(false, "SessionRenewed", note));
        orphans::delete(&ctx.client, kept).await?;
    }
    let session = match &bot.credential {
        Credential::SharedSecret(secret) => register(bot, generated, connect, secret).await?,
        Credential::AccessToken(token) => create_with_token(bot, generated, connect, token).await?,
    };
    check_server_name(bot, Some(session.user_id.server_name()))?;
    let user_id = session.user_id.clone();
    let secret = admin_token(bot, &session);
    let admin = connect.admin(session);
    let failed = |error: HomeserverError| of_own_session(error.into(), &user_id);
    admin.server_version().await.map_err(failed)?;
    admin.set_unlimited(&user_id, true).await.map_err(failed)?;
    match create_or_read(&ctx.client, FIELD_MANAGER, &secret).await? {
        Created::New(secret) => Ok((secret, admin)),
        // Another was faster; its session is as good, and the worker mounts that one.
        Created::Existing(secret) => {
            check_identity(&secret, bot)?;
            let session = read_session(&secret, bot)
                .map_err(|_| Error::Waiting("another process makes the session".to_owned()))?;
            Ok((secret, connect.admin(session)))
        }
    }
}

/// The session in its Secret, or why it is of no use.
fn read_session(secret: &Secret, bot: &Validated) -> Result<Session, &'static str> {
    if !is_session_of(secret, &bot.names) {
        return Err("is that of an earlier bot of this name, whose admin account may still be active");
    }
    let url = secret.metadata.annotations.as_ref().and_then(|noted| noted.get(annotations::HOMESERVER));
    if url.is_some_and(|url| url != bot.homeserver_url.as_str()) {
        return Err("is for another URL than spec.homeserver.url");
    }
    match (url, session_of(secret)) {
        (Some(_), Ok(session)) => Ok(session),
        _ => Err("is incomplete"),
    }
}

/// What was made with an owner is made again without one: the garbage collector must not take it
/// before the cleanup has used it, and a Secret is never changed.
async fn disown(ctx: &Ctx, kept: &Secret) -> Result<Secret, Error> {
    if kept.metadata.owner_references.iter().flatten().next().is_none() {
        return Ok(kept.clone());
    }
    orphans::delete(&ctx.client, kept).await?;
    match create_or_read(&ctx.client, FIELD_MANAGER, &without_owner(kept)).await? {
        Created::New(secret) | Created::Existing(secret) => Ok(secret),
    }
}

/// What goes wrong with a session of the worker's own admin account has nothing to do with the
/// credential in the homeserver's Secret, and nobody must be told to change that one.
pub(super) fn of_own_session(error: Error, user: &UserId) -> Error {
    match error {
        Error::Homeserver(HomeserverError::NotAdmin) => Problem::account(
            "AdminAccountDemoted",
            format!(
                "account {user}, the admin account of this bot's worker, is no server admin any more; make {user} a \
                 server admin again on the homeserver"
            ),
        )
        .again_after(std::time::Duration::from_mins(1))
        .into(),
        Error::Homeserver(HomeserverError::CredentialRefused { .. }) => {
            Error::Waiting(format!("the homeserver has just ended the session of {user}"))
        }
        other => other,
    }
}

pub(super) fn device() -> Result<DeviceId, Error> {
    DeviceId::parse(DEVICE).map_err(|e| Problem::account("InvalidSpec", e.to_string()).into())
}

async fn register(
    bot: &Validated,
    generated: &Generated,
    connect: &Arc<dyn Connect>,
    secret: &SecretString,
) -> Result<Session, Error> {
    let entry = connect.entry();
    match entry.register_admin(secret, &bot.admin_localpart, &generated.admin_password).await {
        // Registered before this process was interrupted; the password tells whether by us.
        Err(HomeserverError::UserInUse { .. }) => login(bot, generated, connect).await,
        other => Ok(other?),
    }
}

async fn create_with_token(
    bot: &Validated,
    generated: &Generated,
    connect: &Arc<dyn Connect>,
    token: &SecretString,
) -> Result<Session, Error> {
    let user_id = connect.entry().whoami(token).await?;
    check_server_name(bot, Some(user_id.server_name()))?;
    let root = connect.admin(Session { user_id, device_id: None, access_token: token.clone() });
    root.server_version().await?;
    let user = UserId::from_parts(&bot.admin_localpart, &bot.server_name);
    let mark = admin_mark(bot, generated);
    match root.account(&user).await? {
        Some(account) => check_ownership(&account, mark.expose_secret())?,
        None => {
            let new = NewAccount {
                localpart: &bot.admin_localpart,
                password: &generated.admin_password,
                admin: true,
                display_name: &format!("{} (admin account)", bot.display_name),
                ownership: mark.expose_secret(),
            };
            root.create_account(&new).await?;
        }
    }
    login(bot, generated, connect).await
}

/// A mark is unique on a homeserver, so the two accounts have different ones.
fn admin_mark(bot: &Validated, generated: &Generated) -> SecretString {
    let mark = generated.account.ownership.expose_secret();
    SecretString::from(format!("{mark}-{}", bot.admin_localpart))
}

async fn login(bot: &Validated, generated: &Generated, connect: &Arc<dyn Connect>) -> Result<Session, Error> {
    let password = &generated.admin_password;
    match connect.entry().login(&bot.admin_localpart, password, &device()?).await {
        Err(HomeserverError::PasswordRefused { user }) => Err(Problem::account(
            "AccountNotOurs",
            format!(
                "account {user} exists with another password than that in Secret {}; it is not touched. Rename or \
                 deactivate that account on the homeserver",
                bot.names.admin()
            ),
        )
        .again_after(std::time::Duration::from_mins(1))
        .into()),
        other => Ok(other?),
    }
}

fn check_ownership(account: &Account, mark: &str) -> Result<(), Problem> {
    if account.ownership.as_deref() == Some(mark) {
        return Ok(());
    }
    Err(Problem::account(
        "AccountNotOurs",
        format!(
            "account {} exists on the homeserver and was not made for this bot; it is not touched. Make this bot anew \
             with another username, or rename or remove that account if nobody needs it",
            account.user_id
        ),
    )
    .again_after(std::time::Duration::from_mins(1)))
}

/// The bot's own account: there, ours, active, with its name, locked or not.
async fn ensure_bot(
    bot: &Validated,
    generated: &Generated,
    admin: &dyn Admin,
    notices: &mut Vec<Notice>,
) -> Result<(), Error> {
    let mark = generated.account.ownership.expose_secret();
    let account = match admin.account(&bot.user_id).await? {
        Some(account) => account,
        None => {
            let new = NewAccount {
                localpart: &bot.username,
                password: &generated.account.password,
                admin: false,
                display_name: &bot.display_name,
                ownership: mark,
            };
            let account = admin.create_account(&new).await?;
            notices.push(told(false, "AccountCreated", format!("created the account {}", bot.user_id)));
            account
        }
    };
    check_ownership(&account, mark)?;
    if account.deactivated {
        admin.reactivate(&bot.user_id, &generated.account.password).await?;
        notices.push(told(
            true,
            "AccountReactivated",
            format!(
                "account {} was deactivated; it is active again, without its rooms and key backup",
                bot.user_id
            ),
        ));
    }
    if account.display_name.as_deref() != Some(&bot.display_name) {
        admin.set_display_name(&bot.user_id, &bot.display_name).await?;
    }
    if account.avatar_url.is_none() {
        show_face(bot, admin).await;
    }
    if account.locked != bot.suspend {
        admin.set_locked(&bot.user_id, bot.suspend).await?;
        let (reason, did) =
            if bot.suspend { ("AccountLocked", "locked") } else { ("AccountUnlocked", "unlocked") };
        notices.push(told(false, reason, format!("{did} the account {}", bot.user_id)));
    }
    Ok(())
}

/// Gives the account a picture by which people know it in any client; whoever gives it another one keeps that. A
/// homeserver that takes no media is no obstacle.
async fn show_face(bot: &Validated, admin: &dyn Admin) {
    let picture = match bot.kind {
        BotKind::Admin => include_bytes!("avatars/adminbot.png").as_slice(),
        BotKind::Audit => include_bytes!("avatars/auditbot.png").as_slice(),
    };
    if let Err(error) = admin.set_avatar(&bot.user_id, picture).await {
        tracing::warn!(user = %bot.user_id, %error, category = error.category(), "the bot has no avatar yet");
    }
}

/// Something that people should see.
pub(super) fn told(warning: bool, reason: &'static str, note: String) -> Notice {
    Notice { warning, reason, action: "Reconcile", note }
}

/// The text under a key of a Secret that is ours.
pub(super) fn session_of(secret: &Secret) -> Result<Session, Problem> {
    let user_id = require(secret, "user-id")?;
    let user_id = UserId::parse(user_id.expose_secret())
        .map_err(|_| Problem::account("SecretKeyInvalid", "the kept session has no user id"))?;
    Ok(Session { user_id, device_id: None, access_token: require(secret, "access-token")? })
}
