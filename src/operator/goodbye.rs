//! What is done on the homeserver before a bot goes. (client, homeserver)
//!
//! What was reached stands in the Secrets of the worker's admin account. While there is a password,
//! the deletion policy has yet to be carried out; it is removed before that account is deactivated,
//! so that afterwards a session without a password, which the homeserver refuses, says that all is
//! done.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use secrecy::ExposeSecret as _;

use super::{
    account::{device, of_own_session, session_of, told},
    context::{Ctx, HomeserverTarget},
    dereference,
    error::{Error, Problem},
    generated::{admin_token_like, is_session_of, require, text},
    labels::{self, FIELD_MANAGER},
    leaving::Leaving,
    names::Names,
};
use crate::{
    crd::{annotations, common::DeletionPolicy},
    domain::{BotKind, Localpart, UserId},
    homeserver::{Admin, Connect, HomeserverError, Session},
    kube_util::{create_or_read, events::Notice, orphans},
};

/// Who says goodbye.
#[derive(Debug, Clone, Copy)]
pub struct Goodbye<'a> {
    /// Its kind.
    pub kind: BotKind,
    /// Its namespace.
    pub namespace: &'a str,
    /// Names of its children.
    pub names: &'a Names,
    /// What is known of it.
    pub leaving: &'a Leaving,
}

/// Why the worker's admin account cannot be entered; also said of one that was never made.
const PASSWORD_REFUSED: &str = "PasswordRefused";

/// What is kept of the worker's admin account.
struct Kept {
    token: Option<Secret>,
    password: Option<Secret>,
}

/// A homeserver, and the worker's admin account there.
type Entered = (Arc<dyn Connect>, Box<dyn Admin>);

/// Does what the deletion policy says, then deactivates the worker's admin account.
pub async fn leave_homeserver(
    ctx: &Ctx,
    goodbye: &Goodbye<'_>,
    notices: &mut Vec<Notice>,
) -> Result<(), Error> {
    let (names, leaving) = (goodbye.names, goodbye.leaving);
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), goodbye.namespace);
    let (token, account, password) = futures::future::try_join3(
        dereference::get(&secrets, Some(names.admin_token())),
        dereference::get(&secrets, Some(names.account())),
        dereference::get(&secrets, Some(names.admin())),
    )
    .await?;
    let kept = Kept { token: token.filter(|token| is_session_of(token, names)), password };
    if kept.token.is_none() && kept.password.is_none() {
        // What this operator removes when all is done is not the Secret of the account.
        if account.is_none() && leaving.admin_user_id.is_some() {
            notices.push(accounts_left(leaving, "the Secrets that open them are gone"));
        }
        return Ok(());
    }
    let user = leaving.user_id.as_deref().and_then(|user| UserId::parse(user).ok());
    let has_duty = user.is_some() && leaving.policy != DeletionPolicy::Retain;
    let (connect, admin) = match enter(ctx, goodbye, &secrets, &kept).await {
        Ok(Some(entered)) => entered,
        Ok(None) => return Ok(()),
        // Nothing says that there ever was an account.
        Err(error @ (Error::Homeserver(_) | Error::Problem(_)))
            if kept.token.is_none() && leaving.admin_user_id.is_none() =>
        {
            if !matches!(&error, Error::Problem(problem) if problem.reason == PASSWORD_REFUSED) {
                notices.push(accounts_left(leaving, &error.to_string()));
            }
            return Ok(());
        }
        Err(Error::Problem(problem)) if !has_duty => {
            notices.push(accounts_left(leaving, &problem.message));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let own = admin.user_id().clone();
    if let Some(user) = user {
        let done = say_goodbye(goodbye, admin.as_ref(), &connect, &user, account.as_ref(), notices).await;
        done.map_err(|error| of_own_session(error, &own))?;
    }
    if let Some(password) = &kept.password {
        orphans::delete(&ctx.client, password).await?;
    }
    let leave = async {
        // Whoever takes the name again later starts with the homeserver's own limits.
        admin.set_unlimited(&own, false).await?;
        admin.deactivate(&own).await
    };
    leave.await.map_err(|error| of_own_session(error.into(), &own))
}

/// That accounts stay as they are although they should not.
pub(super) fn accounts_left(leaving: &Leaving, why: &str) -> Notice {
    let known = [&leaving.user_id, &leaving.admin_user_id];
    let known: Vec<&str> = known.into_iter().flatten().map(String::as_str).collect();
    let known = if known.is_empty() { "whatever there was".to_owned() } else { known.join(", ") };
    told(true, "AccountsLeft", format!("left on the homeserver what was not done yet ({known}): {why}"))
}

/// A session that works and is kept, so that what is reached later can be told by it. `None` if an
/// earlier attempt came to its end.
async fn enter(
    ctx: &Ctx,
    goodbye: &Goodbye<'_>,
    secrets: &Api<Secret>,
    kept: &Kept,
) -> Result<Option<Entered>, Error> {
    let connect = open(ctx, goodbye.names, secrets, kept).await?;
    let session = kept.token.as_ref().map(session_of).transpose();
    if let Ok(Some(session)) = &session {
        let admin = connect.admin(session.clone());
        match admin.server_version().await {
            Ok(_) => return Ok(Some((connect, admin))),
            Err(HomeserverError::CredentialRefused { .. }) if kept.password.is_none() => return Ok(None),
            Err(HomeserverError::CredentialRefused { .. }) => {}
            Err(error) => return Err(of_own_session(error.into(), admin.user_id())),
        }
    }
    let Some(password) = &kept.password else { return session.map(|_| None).map_err(Into::into) };
    let session = log_in(&connect, password).await?;
    let like = kept.token.as_ref().unwrap_or(password);
    let name = goodbye.names.admin_token();
    if let Some(old) = dereference::get(secrets, Some(name.clone())).await? {
        orphans::delete(&ctx.client, &old).await?;
    }
    create_or_read(&ctx.client, FIELD_MANAGER, &admin_token_like(like, name, &session)).await?;
    let admin = connect.admin(session);
    Ok(Some((connect, admin)))
}

/// The homeserver that the Secrets say they are for.
async fn open(
    ctx: &Ctx,
    names: &Names,
    secrets: &Api<Secret>,
    kept: &Kept,
) -> Result<Arc<dyn Connect>, Error> {
    let noted = |secret: &Option<Secret>, key: &str| -> Option<String> {
        secret.as_ref()?.metadata.annotations.as_ref()?.get(key).cloned()
    };
    let place = |secret: &Option<Secret>| {
        let url = noted(secret, annotations::HOMESERVER)?.parse().ok()?;
        Some((url, noted(secret, labels::HOMESERVER_CA)))
    };
    let Some((url, ca)) = place(&kept.token).or_else(|| place(&kept.password)) else {
        return Err(Problem::account(
            "CredentialNotForThisHomeserver",
            format!(
                "neither Secret {} nor Secret {} has an annotation {} with the URL of the homeserver, so the accounts \
                 cannot be looked after; set it on one of them",
                names.admin_token(),
                names.admin(),
                annotations::HOMESERVER,
            ),
        )
        .again_after(std::time::Duration::from_mins(1))
        .into());
    };
    let ca_pem = match ca.as_deref().and_then(|ca| ca.split_once('/')) {
        None => None,
        Some((name, key)) => dereference::get(secrets, Some(name.to_owned()))
            .await?
            .and_then(|secret| secret.data?.remove(key).map(|bytes| bytes.0)),
    };
    Ok((ctx.connect)(HomeserverTarget { url, ca_pem })?)
}

async fn log_in(connect: &Arc<dyn Connect>, secret: &Secret) -> Result<Session, Error> {
    let (username, password) = (require(secret, "username")?, require(secret, "password")?);
    let unusable = |_| Problem::account("SecretKeyInvalid", "the kept admin account has no usable name");
    let localpart = Localpart::parse(username.expose_secret()).map_err(unusable)?;
    let (reason, mend) = match connect.entry().login(&localpart, &password, &device()?).await {
        Ok(session) => return Ok(session),
        Err(HomeserverError::PasswordRefused { .. }) => (
            PASSWORD_REFUSED,
            format!(
                "activate that account if it is deactivated, and set its password to that in Secret {}",
                secret.metadata.name.as_deref().unwrap_or_default()
            ),
        ),
        Err(HomeserverError::PasswordLoginDisabled) => {
            ("PasswordLoginDisabled", "switch password login on".to_owned())
        }
        Err(error) => return Err(error.into()),
    };
    Err(Problem::account(
        reason,
        format!(
            "the homeserver accepts neither the kept session nor the password of {localpart}, the admin account of \
             this bot's worker ({reason}); {mend}"
        ),
    )
    .again_after(std::time::Duration::from_mins(1))
    .into())
}

async fn say_goodbye(
    goodbye: &Goodbye<'_>,
    admin: &dyn Admin,
    connect: &Arc<dyn Connect>,
    user: &UserId,
    account_secret: Option<&Secret>,
    notices: &mut Vec<Notice>,
) -> Result<(), Error> {
    let Some(account) = admin.account(user).await? else { return Ok(()) };
    let mark = account_secret.and_then(|secret| text(secret, "ownership"));
    let is_ours = mark.is_some_and(|mark| account.ownership.as_deref() == Some(mark.expose_secret()));
    if account.deactivated || goodbye.leaving.policy == DeletionPolicy::Retain {
        return Ok(());
    }
    if !is_ours {
        let note = format!("account {user} does not bear the mark of this bot any more; it is left as it is");
        notices.push(told(true, "AccountNotOurs", note));
        return Ok(());
    }
    match goodbye.leaving.policy {
        DeletionPolicy::Retain => Ok(()),
        DeletionPolicy::LeaveRooms => leave_rooms(admin, connect, user, account.locked).await,
        DeletionPolicy::Deactivate => {
            admin.deactivate(user).await?;
            notices.push(told(false, "AccountDeactivated", format!("deactivated the account {user}")));
            Ok(())
        }
    }
}

async fn leave_rooms(
    admin: &dyn Admin,
    connect: &Arc<dyn Connect>,
    user: &UserId,
    locked: bool,
) -> Result<(), Error> {
    let rooms = admin.joined_rooms(user).await?;
    if rooms.is_empty() {
        return Ok(());
    }
    if locked {
        admin.set_locked(user, false).await?;
    }
    let puppet = connect.user(admin.puppet(user).await?);
    for room in rooms {
        match puppet.leave(&room).await {
            // Not in the room any more.
            Ok(()) | Err(HomeserverError::NotFound { .. } | HomeserverError::Refused { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    puppet.logout().await?;
    if locked {
        admin.set_locked(user, true).await?;
    }
    Ok(())
}
