//! Opens the inbox of a bot's trail to the console, if there is one. (client)

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt as _};

use super::{
    build::inbox::{role, role_binding, secret},
    context::Ctx,
    dereference::{Found, dereference, get},
    error::{Error, Problem},
    labels::FIELD_MANAGER,
    names::Names,
    validate::{Validated, Workload, validate},
};
use crate::{
    crd::Bot,
    kube_util::{Created, apply, create_or_read, orphans::delete},
};

/// Reason of the Event that says so.
pub(super) const NOT_OPEN: &str = "InboxNotOpen";

/// The console can put records into the trail as soon as this and the worker's migrations are done.
pub(super) async fn ensure_inbox_is_open(
    ctx: &Ctx,
    bot: &Validated,
    workload: &Workload,
    found: &Found,
    roles: &Secret,
) -> Result<(), Error> {
    let (Some(console), Some(database)) = (&ctx.settings.console, &found.database) else { return Ok(()) };
    let wanted = secret(bot, workload, database, roles)?;
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), &bot.namespace);
    let live = get(&secrets, Some(bot.names.inbox())).await?;
    match live {
        Some(live) if !is_copy_for(&live, bot) => return Err(foreign(&live).into()),
        Some(live) if live.data == wanted.data => {}
        Some(live) => {
            delete(&ctx.client, &live).await?;
            make(ctx, &wanted).await?;
        }
        None => make(ctx, &wanted).await?,
    }
    apply(&ctx.client, FIELD_MANAGER, &role(bot)).await?;
    apply(&ctx.client, FIELD_MANAGER, &role_binding(bot, console)).await?;
    Ok(())
}

/// While a bot that is being deleted waits for the last record of its trail, its database may be corrected: what waits in
/// the console is to arrive before that record. Holds nothing up.
pub(super) async fn keep_open<B: Bot>(ctx: &Ctx, bot: &B) {
    if ctx.settings.console.is_none() {
        return;
    }
    if let Err(error) = Box::pin(open_again(ctx, bot)).await {
        tracing::info!(%error, "the inbox of a bot that is being deleted stays as it is");
    }
}

async fn open_again<B: Bot>(ctx: &Ctx, bot: &B) -> Result<(), Error> {
    let names = Names::new(B::KIND, &bot.name_any(), &bot.uid().unwrap_or_default());
    let found = Box::pin(dereference(&ctx.client, bot, &names)).await?;
    // Who claims the account does not matter any more.
    let valid = validate(bot, &names, &found, &[])?;
    let workload = valid.workload.clone()?;
    let Some(roles) = &found.roles else { return Ok(()) };
    ensure_inbox_is_open(ctx, &valid, &workload, &found, roles).await
}

/// Takes the password of the inbox away where there is no console any more.
pub(super) async fn remove_copy(ctx: &Ctx, bot: &Validated) -> Result<(), Error> {
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), &bot.namespace);
    if let Some(live) = get(&secrets, Some(bot.names.inbox())).await?.filter(|live| is_copy_for(live, bot)) {
        delete(&ctx.client, &live).await?;
    }
    Ok(())
}

async fn make(ctx: &Ctx, wanted: &Secret) -> Result<(), Error> {
    match create_or_read(&ctx.client, FIELD_MANAGER, wanted).await? {
        Created::New(_) => Ok(()),
        // That of a bot before is on its way out, or somebody was faster.
        Created::Existing(_) => Err(Error::Waiting(format!("Secret {} is replaced", wanted.name_any()))),
    }
}

/// Only what this bot owns is replaced.
fn is_copy_for(live: &Secret, bot: &Validated) -> bool {
    live.owner_references().iter().any(|owner| owner.uid == bot.uid)
}

fn foreign(live: &Secret) -> Problem {
    Problem::worker(
        NOT_OPEN,
        format!(
            "Secret {} exists and does not belong to this bot; it is not changed. If it is left over from a bot of the \
             same name, wait until it is gone, or delete it",
            live.name_any()
        ),
    )
}
