//! The cleanup step: what happens before a bot may go. (client, homeserver)
//!
//! Needs metadata, status, and what the operator itself has written down, never a specification
//! that can be read. Every part is done already if its object is gone.

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{Pod, Secret, ServiceAccount},
        rbac::v1::{Role, RoleBinding},
    },
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
    goodbye::{Goodbye, accounts_left, leave_homeserver},
    inbox::keep_open,
    labels::{FIELD_MANAGER, FINALIZER, selector},
    leaving::Leaving,
    names::Names,
    problem::explain,
    status, trail,
};
use crate::{
    crd::{Bot, annotations},
    domain::worker::Check,
    kube_util::{
        self,
        apply::remove_finalizer,
        apply_status,
        error::describe_name,
        events::{Notice, is_namespace_terminating},
        orphans,
    },
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
    let result = Box::pin(run(ctx, bot, &leaving, &mut notices)).await;
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

/// Who lost the rights to the namespace can do nothing more in it. If nobody will give them back, because
/// the namespace goes too or somebody has given up, nothing is waited for.
async fn run<B: Bot>(
    ctx: &Ctx,
    bot: Option<&B>,
    leaving: &Leaving,
    notices: &mut Vec<Notice>,
) -> Result<(), Error> {
    let Err(error) = Box::pin(steps(ctx, bot, leaving, notices)).await else { return Ok(()) };
    let namespace = leaving.metadata.namespace.as_deref().unwrap_or_default();
    if !is_forbidden(&error)
        || !(leaving.is_abandoned() || is_namespace_terminating(&ctx.client, namespace).await)
    {
        return Err(error);
    }
    let left = accounts_left(leaving, &error.to_string());
    // In a namespace that goes nobody can be told by an Event.
    tracing::warn!(namespace, note = left.note, "gave up the cleanup");
    if notices.iter().all(|notice| notice.reason != left.reason) {
        notices.push(left);
    }
    Ok(())
}

async fn steps<B: Bot>(
    ctx: &Ctx,
    bot: Option<&B>,
    leaving: &Leaving,
    notices: &mut Vec<Notice>,
) -> Result<(), Error> {
    let metadata = &leaving.metadata;
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let name = metadata.name.as_deref().unwrap_or_default();
    let names = Names::new(B::KIND, name, metadata.uid.as_deref().unwrap_or_default());
    let uid = metadata.uid.as_deref().unwrap_or_default();
    let found = dereference::workload(&ctx.client, namespace, &names).await?;
    let stateful_set = found.stateful_set.filter(|live| is_owned(live, uid));
    let pod = found.pod.filter(|pod| pod.metadata.deletion_timestamp.is_some() || is_worker::<B>(pod, name));
    if leaving.is_abandoned() {
        let note = "the cleanup waits for neither the homeserver nor the database, as annotated".to_owned();
        notices.push(told(true, "CleanupAbandoned", note));
    } else if leaving.trail.is_some() && !leaving.closed {
        let is_there = stateful_set.is_some() || pod.is_some();
        if is_there && may_report(ctx, namespace, &names).await? {
            if let Some(bot) = bot {
                keep_open(ctx, bot).await;
            }
            return Err(Error::Waiting(format!(
                "the worker has yet to write the last record of the trail. If it never will: {}",
                abandon_command::<B>(namespace, name)
            )));
        }
        notices.push(last_record_missing(&names));
    }
    let place = trail::Place { kind: B::KIND, namespace, name, names: &names };
    let kept = trail::keep(ctx, &place, leaving.trail.as_ref(), found.trail.as_ref()).await;
    match kept {
        Ok(notice) => notices.extend(notice),
        Err(Error::Kube(error)) if error.is_terminating() => {
            tracing::info!(namespace, "namespace is going, trail not kept");
        }
        Err(error) => return Err(error),
    }
    stop_worker(ctx, leaving, stateful_set, pod).await?;
    let goodbye = Goodbye { kind: B::KIND, namespace, names: &names, leaving };
    match Box::pin(leave_homeserver(ctx, &goodbye, notices)).await {
        Err(error) if leaving.is_abandoned() => {
            notices.push(accounts_left(leaving, &error.to_string()));
        }
        other => other?,
    }
    remove_secrets(ctx, namespace, &names).await
}

/// A worker that still runs would go back into rooms that the bot leaves.
async fn stop_worker(
    ctx: &Ctx,
    leaving: &Leaving,
    stateful_set: Option<StatefulSet>,
    pod: Option<Pod>,
) -> Result<(), Error> {
    if let Some(stateful_set) = &stateful_set {
        orphans::delete(&ctx.client, stateful_set).await?;
    }
    match pod {
        Some(pod) if !leaving.is_abandoned() => {
            Err(Error::Waiting(format!("pod {} has yet to end", pod.metadata.name.unwrap_or_default())))
        }
        _ => Ok(()),
    }
}

/// Whether it is the pod of a bot of this name and not of something else.
fn is_worker<B: Bot>(pod: &Pod, name: &str) -> bool {
    let labels = pod.metadata.labels.as_ref();
    selector(B::KIND, name).iter().all(|(key, value)| labels.and_then(|has| has.get(key)) == Some(value))
}

/// The worker's admin account is gone, and with it what its Secrets are for.
async fn remove_secrets(ctx: &Ctx, namespace: &str, names: &Names) -> Result<(), Error> {
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), namespace);
    // A session without a password says that all is done; the other way round there would be doubt.
    for name in [names.admin(), names.admin_token()] {
        if let Some(secret) = dereference::get(&secrets, Some(name)).await? {
            orphans::delete(&ctx.client, &secret).await?;
        }
    }
    Ok(())
}

fn is_forbidden(error: &Error) -> bool {
    matches!(error, Error::Kube(error) if error.is_forbidden())
}

/// Whether the worker still has what it reports with.
async fn may_report(ctx: &Ctx, namespace: &str, names: &Names) -> Result<bool, Error> {
    let accounts: Api<ServiceAccount> = Api::namespaced(ctx.client.clone(), namespace);
    let roles: Api<Role> = Api::namespaced(ctx.client.clone(), namespace);
    let bindings: Api<RoleBinding> = Api::namespaced(ctx.client.clone(), namespace);
    let (account, role, binding) = futures::future::try_join3(
        dereference::get(&accounts, Some(names.worker())),
        dereference::get(&roles, Some(names.worker())),
        dereference::get(&bindings, Some(names.worker())),
    )
    .await?;
    Ok(account.is_some() && role.is_some() && binding.is_some())
}

/// Nobody makes these objects for a bot that is being deleted, so nobody will report. They are gone
/// when the garbage collector was asked to take the children first, in any order.
fn last_record_missing(names: &Names) -> Notice {
    let note = format!(
        "objects named {} were removed before the worker had reported the last record of the trail; it is not waited for",
        names.worker()
    );
    told(true, "LastRecordMissing", note)
}

/// How a person ends the waiting.
fn abandon_command<B: Bot>(namespace: &str, name: &str) -> String {
    let annotation = annotations::ABANDON_CLEANUP;
    format!("kubectl annotate {} {name} --namespace {namespace} {annotation}=true", B::KIND.slug())
}

/// Says in the status what is waited for.
async fn report<B: Bot>(ctx: &Ctx, bot: &B, error: &Error) -> Result<(), Error> {
    let namespace = bot.meta().namespace.as_deref().unwrap_or_default();
    let (_, check) = explain(error, namespace, &ctx.settings, None);
    let mut waiting = check.message;
    if matches!(error, Error::Homeserver(_) | Error::Problem(_)) || is_forbidden(error) {
        let name = bot.meta().name.as_deref().unwrap_or_default();
        waiting.push_str("; to let the bot go without it: ");
        waiting.push_str(&abandon_command::<B>(namespace, name));
    }
    let deleting = Check::failed("Deleting", waiting);
    let generation = bot.meta().generation;
    let new = status::compute_not_ready(B::KIND, generation, bot.status(), &deleting, ctx.clock.now());
    match apply_status(&ctx.client, FIELD_MANAGER, bot, &new).await {
        Err(error) if error.is_not_found() => Ok(()),
        other => Ok(other.map(|_| ())?),
    }
}

/// An object of the kind without anything but its metadata.
pub fn metadata_only<B: Bot>(metadata: ObjectMeta) -> PartialObjectMeta<B> {
    metadata.into_response_partial()
}
