//! The cleanup step: what happens before a bot may go. (client, homeserver)
//!
//! Needs metadata, status, and what the operator itself has written down, never a specification
//! that can be read. Every part is done already if its object is gone.

use k8s_openapi::{
    api::core::v1::{Pod, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Resource as _,
    core::{ApiResource, DynamicObject, PartialObjectMeta, PartialObjectMetaExt as _},
    runtime::controller::Action,
};

use super::{
    account::told,
    apply::is_owned,
    context::Ctx,
    dereference,
    error::Error,
    goodbye::{Goodbye, leave_homeserver},
    labels::{FIELD_MANAGER, FINALIZER},
    leaving::Leaving,
    names::Names,
    problem::explain,
    status, trail,
};
use crate::{
    crd::{Bot, annotations},
    kube_util::{self, apply::remove_finalizer, apply_status, error::describe_name, orphans},
};

/// Does what must be done before the bot may go, then lets it go.
pub async fn clean_up<B: Bot>(ctx: &Ctx, metadata: &ObjectMeta, bot: Option<&B>) -> Result<Action, Error> {
    if !metadata.finalizers.iter().flatten().any(|f| f == FINALIZER) {
        return Ok(Action::await_change());
    }
    let paused = metadata.annotations.iter().flatten().any(|(k, v)| k == annotations::PAUSED && v == "true");
    if ctx.settings.paused || paused {
        return Ok(Action::await_change());
    }
    let Some(leaving) = read::<B>(ctx, metadata).await? else { return Ok(Action::await_change()) };
    let about = metadata_only::<B>(leaving.metadata.clone());
    let mut notices = Vec::new();
    let result = Box::pin(run::<B>(ctx, &leaving, &mut notices)).await;
    for notice in &notices {
        ctx.events.publish(notice, &about.object_ref(&())).await;
    }
    if let Err(error) = &result
        && let Some(bot) = bot
    {
        report(ctx, bot, error).await?;
    }
    result?;
    remove_finalizer(&ctx.client, &about, FINALIZER).await?;
    let uid = metadata.uid.clone().unwrap_or_default();
    ctx.recent.forget(&uid);
    ctx.backoff.succeeded(&uid);
    Ok(Action::await_change())
}

async fn read<B: Bot>(ctx: &Ctx, metadata: &ObjectMeta) -> Result<Option<Leaving>, Error> {
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let name = metadata.name.as_deref().unwrap_or_default();
    let resource = ApiResource::erase::<B>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(ctx.client.clone(), namespace, &resource);
    let object = api
        .get_opt(name)
        .await
        .map_err(|e| kube_util::Error::new("get", describe_name::<B>(Some(namespace), name), e))?;
    Ok(object.filter(|object| object.metadata.uid == metadata.uid).map(Leaving::read))
}

async fn run<B: Bot>(
    ctx: &Ctx,
    leaving: &Leaving,
    notices: &mut Vec<kube_util::events::Notice>,
) -> Result<(), Error> {
    let metadata = &leaving.metadata;
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let name = metadata.name.as_deref().unwrap_or_default();
    let names = Names::new(B::KIND, name, metadata.uid.as_deref().unwrap_or_default());
    if leaving.is_abandoned() {
        let note = "the cleanup waits for neither the homeserver nor the database, as annotated".to_owned();
        notices.push(told(true, "CleanupAbandoned", note));
    } else if leaving.trail.is_some() && !leaving.closed {
        return Err(Error::Waiting(format!(
            "the worker has yet to write the last record of the trail. If it never will: {}",
            abandon_command::<B>(name)
        )));
    }
    let found = dereference::workload(&ctx.client, namespace, &names).await?;
    let place = trail::Place { kind: B::KIND, namespace, name, names: &names };
    let kept = trail::keep(ctx, &place, leaving.trail.as_ref(), found.trail.as_ref()).await;
    match kept {
        Ok(notice) => notices.extend(notice),
        Err(error) if is_terminating(&error) => {
            tracing::info!(namespace, "namespace is going, trail not kept");
        }
        Err(error) => return Err(error),
    }
    let uid = metadata.uid.as_deref().unwrap_or_default();
    stop_worker(ctx, leaving, found.stateful_set.filter(|live| is_owned(live, uid)), found.pod).await?;
    let goodbye = Goodbye { kind: B::KIND, namespace, names: &names, leaving };
    match Box::pin(leave_homeserver(ctx, &goodbye, notices)).await {
        Err(error) if leaving.is_abandoned() => {
            let note = format!("left on the homeserver what was there: {error}");
            notices.push(told(true, "AccountsLeft", note));
        }
        other => other?,
    }
    remove_secrets(ctx, namespace, &names).await
}

/// A worker that still runs would go back into rooms that the bot leaves.
async fn stop_worker(
    ctx: &Ctx,
    leaving: &Leaving,
    stateful_set: Option<k8s_openapi::api::apps::v1::StatefulSet>,
    pod: Option<Pod>,
) -> Result<(), Error> {
    if let Some(stateful_set) = &stateful_set {
        orphans::delete(&ctx.client, stateful_set).await?;
    }
    match pod {
        Some(pod)
            if !leaving.is_abandoned()
                && (stateful_set.is_some() || pod.metadata.deletion_timestamp.is_some()) =>
        {
            Err(Error::Waiting(format!("pod {} has yet to end", pod.metadata.name.unwrap_or_default())))
        }
        _ => Ok(()),
    }
}

/// The worker's admin account is gone, and with it what its Secrets are for.
async fn remove_secrets(ctx: &Ctx, namespace: &str, names: &Names) -> Result<(), Error> {
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), namespace);
    for name in [names.admin_token(), names.admin()] {
        if let Some(secret) = dereference::get(&secrets, Some(name)).await? {
            orphans::delete(&ctx.client, &secret).await?;
        }
    }
    Ok(())
}

fn is_terminating(error: &Error) -> bool {
    matches!(error, Error::Kube(error) if error.is_forbidden() && error.detail().contains("being terminated"))
}

/// How a person ends the waiting.
fn abandon_command<B: Bot>(name: &str) -> String {
    format!("kubectl annotate {} {name} {}=true", B::KIND.slug(), annotations::ABANDON_CLEANUP)
}

/// Says in the status what is waited for.
async fn report<B: Bot>(ctx: &Ctx, bot: &B, error: &Error) -> Result<(), Error> {
    let namespace = bot.meta().namespace.as_deref().unwrap_or_default();
    let (_, check) = explain(error, namespace, &ctx.settings, None);
    let mut waiting = check.message;
    if matches!(error, Error::Homeserver(_)) {
        waiting.push_str("; to let the bot go without it: ");
        waiting.push_str(&abandon_command::<B>(bot.meta().name.as_deref().unwrap_or_default()));
    }
    let new =
        status::compute_deleting(B::KIND, bot.meta().generation, bot.status(), waiting, ctx.clock.now());
    match apply_status(&ctx.client, FIELD_MANAGER, bot, &new).await {
        Err(error) if error.is_not_found() => Ok(()),
        other => Ok(other.map(|_| ())?),
    }
}

/// An object of the kind without anything but its metadata.
pub fn metadata_only<B: Bot>(metadata: ObjectMeta) -> PartialObjectMeta<B> {
    metadata.into_response_partial()
}
