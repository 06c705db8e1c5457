//! What happens when a bot has changed: the one screen that everything else hangs on.

use std::{sync::Arc, time::Duration};

use kube::{
    Resource, ResourceExt as _,
    core::{DeserializeGuard, error_boundary::InvalidObject},
    runtime::controller::Action,
};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::{
    cleanup::{clean_up, metadata_only},
    context::Ctx,
    entropy::{self, jitter},
    error::{Aspect, Error},
    labels::FIELD_MANAGER,
    metrics::Outcome,
    names::Names,
    problem::explain,
    provision::{Progress, complete, fingerprint, worker_only},
    status::{self, Observed, types},
    unread,
};
use crate::{
    crd::{Bot, annotations, common::AdminApi},
    domain::{Failure as _, Retry, worker::Check},
    kube_util::{self, apply_status, conditions::is_true, events::Notice},
};

/// While a worker is not ready its pod is looked at this often: no watch tells why it is not. So is what is unfinished.
const POLL: Duration = Duration::from_secs(15);

/// Reconciles one bot.
pub async fn reconcile<B: Bot>(object: Arc<DeserializeGuard<B>>, ctx: Arc<Ctx>) -> Result<Action, Error> {
    let span = tracing::info_span!(
        "reconcile",
        kind = B::KIND.slug(),
        namespace = object.namespace().unwrap_or_default(),
        bot = object.name_any(),
        correlation_id = entropy::text(ctx.entropy.as_ref(), 8).unwrap_or_default(),
    );
    Box::pin(reconcile_in_span(object, ctx)).instrument(span).await
}

async fn reconcile_in_span<B: Bot>(object: Arc<DeserializeGuard<B>>, ctx: Arc<Ctx>) -> Result<Action, Error> {
    let started = Instant::now();
    let result = match &object.0 {
        Ok(bot) if bot.meta().deletion_timestamp.is_some() => match paused(bot, &ctx) {
            Some(why) => report_paused(bot, &ctx, why).await,
            None => Box::pin(clean_up(&ctx, bot.meta(), Some(bot))).await,
        },
        Err(invalid) if invalid.metadata.deletion_timestamp.is_some() => {
            Box::pin(clean_up::<B>(&ctx, &invalid.metadata, None)).await
        }
        // These futures hold dozens of objects; on the heap they burden no thread's stack.
        Ok(bot) => Box::pin(reconcile_bot(bot, &ctx)).await,
        Err(invalid) => Ok(report_invalid::<B>(invalid, &ctx).await),
    };
    let outcome = if result.is_ok() { Outcome::Done } else { Outcome::Failed };
    ctx.metrics.reconciled(B::KIND, outcome, started.elapsed());
    if let Err(error) = &result {
        ctx.metrics.failed(B::KIND, error.category());
        let detail = if let Error::Kube(error) = error { error.detail() } else { String::new() };
        tracing::info!(category = error.category(), %error, detail, "reconciliation did not complete");
    }
    result
}

async fn reconcile_bot<B: Bot>(bot: &B, ctx: &Ctx) -> Result<Action, Error> {
    if let Some(why) = paused(bot, ctx) {
        return report_paused(bot, ctx, why).await;
    }
    let names = Names::new(B::KIND, &bot.name_any(), &bot.uid().unwrap_or_default());
    let mut progress = Progress::new();
    let result = Box::pin(provision(bot, ctx, &names, &mut progress)).await;
    let again = progress.again;
    let is_settled = progress.worker.is_ready() && !progress.unfinished;
    report(bot, ctx, progress, result.as_ref().err()).await?;
    result?;
    ctx.backoff.succeeded(&bot.uid().unwrap_or_default());
    let resync = ctx.settings.resync;
    let spread = resync.mul_f64(0.9 + 0.1 * jitter(ctx.entropy.as_ref()));
    let after = if is_settled { spread } else { POLL.min(spread) };
    Ok(Action::requeue(again.map_or(after, |wait| wait.min(after))))
}

/// Only the worker has changed, or everything is to be looked at.
async fn provision<B: Bot>(bot: &B, ctx: &Ctx, names: &Names, progress: &mut Progress) -> Result<(), Error> {
    let uid = bot.uid().unwrap_or_default();
    let max_age = ctx.settings.resync.mul_f64(0.9);
    if let Some(last) = ctx.recent.complete(&uid, &fingerprint(bot), max_age)
        && worker_only(ctx, bot, names, last, progress).await?
    {
        return Ok(());
    }
    Box::pin(complete(ctx, bot, names, progress)).await
}

/// Writes the operator's share of the status if it differs, and tells people what happened.
async fn report<B: Bot>(bot: &B, ctx: &Ctx, progress: Progress, error: Option<&Error>) -> Result<(), Error> {
    let Progress { mut account, mut worker, facts, mut notices, unfinished: _, again: _ } = progress;
    if let Some(error) = error {
        ctx.recent.forget(&bot.uid().unwrap_or_default());
        let admin_api = bot.common().homeserver.admin_api();
        let credential = admin_api.as_ref().and_then(AdminApi::secret_key);
        let namespace = bot.namespace().unwrap_or_default();
        let (aspect, check) = explain(error, &namespace, &ctx.settings, credential);
        // What fails once the account is well has nothing to do with it, whatever it is.
        let aspect = if account.ok == Some(true) { Aspect::Worker } else { aspect };
        if !matches!(error, Error::Waiting(_)) {
            notices.push(warning(check.reason, check.message.clone()));
        }
        let before = (account.clone(), worker.clone());
        (account, worker) = status::failed(aspect, check, bot.status(), worker);
        if before.0.ok == Some(true) {
            account = before.0;
        }
    }
    let observed = Observed {
        account,
        worker,
        paused: None,
        suspend: bot.common().suspend,
        without_effect: bot.fields_without_effect(),
        facts,
    };
    let now = ctx.clock.now();
    let new = status::compute(B::KIND, bot.meta().generation, bot.status(), &observed, now);
    let was_ready = bot.status().is_some_and(|old| is_true(&old.conditions, types::READY));
    if is_true(&new.conditions, types::READY) && !was_ready {
        notices.push(Notice {
            warning: false,
            reason: "Ready",
            action: "Reconcile",
            note: "the bot works".to_owned(),
        });
    }
    for notice in &notices {
        ctx.events.publish(notice, &bot.object_ref(&())).await;
    }
    apply_status(&ctx.client, FIELD_MANAGER, bot, &new).await?;
    Ok(())
}

fn paused<B: Bot>(bot: &B, ctx: &Ctx) -> Option<&'static str> {
    if ctx.settings.paused {
        Some("OperatorPaused")
    } else {
        bot.is_annotated(annotations::PAUSED).then_some("Annotated")
    }
}

async fn report_paused<B: Bot>(bot: &B, ctx: &Ctx, why: &'static str) -> Result<Action, Error> {
    // Whatever happens meanwhile is to be seen afterwards.
    ctx.recent.forget(&bot.uid().unwrap_or_default());
    let new = status::compute_paused(B::KIND, bot.meta().generation, bot.status(), why, ctx.clock.now());
    apply_status(&ctx.client, FIELD_MANAGER, bot, &new).await?;
    Ok(Action::await_change())
}

/// An object that was stored under another schema: nothing can be done but to say so. The API
/// server may refuse to write even the status of such an object; the Event remains.
async fn report_invalid<B: Bot>(invalid: &InvalidObject, ctx: &Ctx) -> Action {
    let problem: String = invalid.error.chars().filter(|c| !c.is_control()).take(300).collect();
    let note = format!("the specification cannot be read: {problem}; correct it with kubectl edit");
    let about = metadata_only::<B>(invalid.metadata.clone()).object_ref(&());
    ctx.events.publish(&warning("InvalidSpec", note.clone()), &about).await;
    ctx.recent.forget(invalid.metadata.uid.as_deref().unwrap_or_default());
    if let Err(error) = Box::pin(write_invalid::<B>(invalid, ctx, note)).await {
        tracing::info!(%error, detail = error.detail(), "the status cannot say that the object is invalid");
    }
    Action::requeue(ctx.settings.resync)
}

async fn write_invalid<B: Bot>(invalid: &InvalidObject, ctx: &Ctx, note: String) -> kube_util::Result<()> {
    let Some(live) = unread::read::<B>(&ctx.client, &invalid.metadata).await? else { return Ok(()) };
    // A status that cannot be read either would be lost, and with it what is known of the accounts.
    let Some(old) = live.status() else { return Ok(()) };
    let invalid = Check::failed("InvalidSpec", note);
    let generation = live.meta().generation;
    let new = status::compute_not_ready(B::KIND, generation, Some(&old), &invalid, ctx.clock.now());
    apply_status(&ctx.client, FIELD_MANAGER, &live, &new).await?;
    Ok(())
}

fn warning(reason: &'static str, note: String) -> Notice {
    Notice { warning: true, reason, action: "Reconcile", note }
}

/// When a bot is looked at again after an error.
#[expect(clippy::needless_pass_by_value, reason = "the signature is that of kube's controller")]
pub fn error_policy<B: Bot>(object: Arc<DeserializeGuard<B>>, error: &Error, ctx: Arc<Ctx>) -> Action {
    let uid = object.uid().unwrap_or_default();
    let random = jitter(ctx.entropy.as_ref());
    let delay = match error.retry() {
        // A watch will tell; the resync is for what no watch sees.
        Retry::Never => ctx.settings.resync.mul_f64(0.9 + 0.1 * random),
        // What is waited for is not a failure that gets worse: a pod that ends, say, which no watch tells of.
        Retry::Backoff if matches!(error, Error::Waiting(_)) => ctx.backoff.failed(&uid, random).min(POLL),
        Retry::Backoff => ctx.backoff.failed(&uid, random),
        Retry::After(delay) => delay.mul_f64(1.0 + 0.2 * random),
    };
    let (namespace, bot) = (object.namespace().unwrap_or_default(), object.name_any());
    tracing::debug!(kind = B::KIND.slug(), namespace, bot, delay = ?delay, "tried again");
    Action::requeue(delay)
}
