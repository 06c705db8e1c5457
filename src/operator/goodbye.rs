//! What is done on the homeserver before a bot goes. (client, homeserver)

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use secrecy::ExposeSecret as _;

use super::{
    account::{session_of, told},
    context::{Ctx, HomeserverTarget},
    dereference,
    error::Error,
    generated::text,
    labels,
    leaving::Leaving,
    names::Names,
};
use crate::{
    crd::{annotations, common::DeletionPolicy},
    domain::{BotKind, DeviceId, Localpart, UserId},
    homeserver::{Admin, Connect, HomeserverError},
    kube_util::events::Notice,
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

/// Does what the deletion policy says, then deactivates the worker's admin account. Without the
/// session Secret there is nothing that could be done: nothing was made, or all is done.
pub async fn leave_homeserver(
    ctx: &Ctx,
    goodbye: &Goodbye<'_>,
    notices: &mut Vec<Notice>,
) -> Result<(), Error> {
    let names = goodbye.names;
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), goodbye.namespace);
    let (Some(token), account, admin_secret) = futures::future::try_join3(
        dereference::get(&secrets, Some(names.admin_token())),
        dereference::get(&secrets, Some(names.account())),
        dereference::get(&secrets, Some(names.admin())),
    )
    .await?
    else {
        return Ok(());
    };
    let Some(connect) = open(ctx, &secrets, &token).await? else { return Ok(()) };
    let session = session_of(&token)?;
    let mut admin = connect.admin(session);
    match admin.server_version().await {
        Ok(_) => {}
        Err(HomeserverError::CredentialRefused { .. }) => {
            // Deactivated before an interruption, or revoked by somebody: the password tells.
            match log_in(&connect, admin_secret.as_ref()).await? {
                Some(again) => admin = again,
                None => return Ok(()),
            }
        }
        Err(error) => return Err(error.into()),
    }
    let user = goodbye.leaving.user_id.as_deref().and_then(|user| UserId::parse(user).ok());
    if let Some(user) = user {
        say_goodbye(goodbye, admin.as_ref(), &connect, &user, account.as_ref(), notices).await?;
    }
    let own = admin.user_id().clone();
    admin.deactivate(&own).await?;
    Ok(())
}

async fn open(
    ctx: &Ctx,
    secrets: &Api<Secret>,
    token: &Secret,
) -> Result<Option<std::sync::Arc<dyn Connect>>, Error> {
    let noted = |key: &str| token.metadata.annotations.as_ref().and_then(|a| a.get(key));
    let Some(url) = noted(annotations::HOMESERVER).and_then(|url| url.parse().ok()) else { return Ok(None) };
    let ca_pem = match noted(labels::HOMESERVER_CA).and_then(|ca| ca.split_once('/')) {
        None => None,
        Some((name, key)) => dereference::get(secrets, Some(name.to_owned()))
            .await?
            .and_then(|secret| secret.data?.remove(key).map(|bytes| bytes.0)),
    };
    Ok(Some((ctx.connect)(HomeserverTarget { url, ca_pem })?))
}

async fn log_in(
    connect: &std::sync::Arc<dyn Connect>,
    secret: Option<&Secret>,
) -> Result<Option<Box<dyn Admin>>, Error> {
    let Some(secret) = secret else { return Ok(None) };
    let (Some(username), Some(password)) = (text(secret, "username"), text(secret, "password")) else {
        return Ok(None);
    };
    let (Ok(localpart), Ok(device)) =
        (Localpart::parse(username.expose_secret()), DeviceId::parse("EMSOPERATOR"))
    else {
        return Ok(None);
    };
    match connect.entry().login(&localpart, &password, &device).await {
        Ok(session) => Ok(Some(connect.admin(session))),
        Err(HomeserverError::PasswordRefused { .. } | HomeserverError::PasswordLoginDisabled) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn say_goodbye(
    goodbye: &Goodbye<'_>,
    admin: &dyn Admin,
    connect: &std::sync::Arc<dyn Connect>,
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
    connect: &std::sync::Arc<dyn Connect>,
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
