//! One look at a bot that is not being deleted: complete, or only at what its worker reports.

use std::{collections::BTreeMap, time::Duration};

use kube::ResourceExt as _;

use super::{
    account::{ensure_accounts, told},
    apply::{apply_resources, is_owned, remove_orphans},
    build::{build, secrets_hash},
    context::Ctx,
    dereference::{self, dereference},
    error::{Error, Problem},
    inbox::{NOT_OPEN, ensure_inbox_is_open},
    labels::{FIELD_MANAGER, FINALIZER},
    names::Names,
    problem::explain,
    secrets::ensure_secrets_exist,
    seen::Complete,
    status::Facts,
    trail,
    validate::{account_of, validate},
    worker_state::{WorkerState, worker_state},
};
use crate::{
    crd::{Bot, TrailStatus},
    domain::{Failure as _, Retry, worker::Check},
    kube_util::{Fight, apply::add_finalizer, events::Notice},
};

/// What is known so far; an error leaves in it what was reached before.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) account: Check,
    pub(super) worker: WorkerState,
    pub(super) facts: Facts,
    pub(super) notices: Vec<Notice>,
    /// Something that the bot works without is to be tried again soon.
    pub(super) unfinished: bool,
    /// An object is left for so long as somebody else makes it.
    pub(super) again: Option<Duration>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            account: Check::unknown("NotReached", "not looked at yet"),
            worker: WorkerState {
                check: Check::unknown("NotReached", "not looked at yet"),
                migration: None,
                speaks: false,
            },
            facts: Facts::default(),
            notices: Vec::new(),
            unfinished: false,
            again: None,
        }
    }
}

/// What a complete look depends on in the custom resource itself. Reports of the worker change
/// none of it.
pub(super) fn fingerprint<B: Bot>(bot: &B) -> String {
    let annotations: BTreeMap<&String, &String> =
        bot.annotations().iter().filter(|(key, _)| key.starts_with("ems.element.io/")).collect();
    format!("{:?} {annotations:?} {:?}", bot.meta().generation, bot.finalizers())
}

/// A complete look: everything is read, made and applied.
pub(super) async fn complete<B: Bot>(
    ctx: &Ctx,
    bot: &B,
    names: &Names,
    progress: &mut Progress,
) -> Result<(), Error> {
    let look = ctx.recent.begin(&bot.uid().unwrap_or_default());
    let found = Box::pin(dereference(&ctx.client, bot, names)).await?;
    // Only now: without the rights to read there is none to watch.
    (ctx.watch_namespace)(&bot.namespace().unwrap_or_default());
    progress.worker = worker_state(found.stateful_set.as_ref(), found.pod.as_ref());
    keep_trail(ctx, bot, names, found.trail.as_ref(), progress).await?;

    let (server_name, username) = account_of(bot)?;
    let claims = (ctx.claims)(&server_name, &username);
    let valid = validate(bot, names, &found, &claims)?;
    // Before the first thing that has to be taken back, and not before: a bot that nothing was made for, in a namespace
    // that the operator may not enter for example, can be deleted without it.
    add_finalizer(&ctx.client, FIELD_MANAGER, bot, FINALIZER).await?;

    let generated = Box::pin(ensure_secrets_exist(ctx, &valid, &found)).await?;
    progress.facts.phrase_secret = Some(names.backup_phrase());
    if !generated.made.is_empty() {
        let note = format!("created the Secrets {}", generated.made.join(", "));
        progress.notices.push(told(false, "SecretsCreated", note));
    }

    let accounts = Box::pin(ensure_accounts(ctx, &valid, &generated, found.admin_token.as_ref())).await?;
    progress.notices.extend(accounts.notices);
    progress.facts.user_id = Some(valid.user_id.to_string());
    progress.facts.admin_user_id = Some(accounts.admin_user_id.to_string());
    progress.account = Check::ok("AccountUsable", format!("account {} is there and ours", valid.user_id));
    login_url(ctx, bot, progress);

    let workload = valid.workload.clone()?;
    let [account, phrase, roles] = &generated.objects;
    let mounted = [
        Some(account),
        Some(phrase),
        Some(roles),
        Some(&accounts.session),
        found.database.as_ref(),
        found.database_ca.as_ref(),
        found.homeserver_ca.as_ref(),
        found.writer.as_ref(),
        found.reader.as_ref(),
        found.eraser.as_ref(),
        found.bucket.as_ref(),
        found.bucket_ca.as_ref(),
    ];
    let hash = secrets_hash(&generated.account.ownership, &mounted);
    if let Some(foreign) = found.stateful_set.as_ref().filter(|live| !is_owned(live, &valid.uid)) {
        return Err(foreign_workload(&foreign.name_any()).into());
    }
    let applied = Box::pin(apply_resources(ctx, build(&valid, &workload, &ctx.settings, &hash))).await?;
    progress.worker = worker_state(applied.stateful_set.as_ref(), found.pod.as_ref());
    progress.again = applied.fights.iter().map(|fight| fight.wait).min();
    progress.notices.extend(applied.fights.iter().map(fought));
    let fingerprint = fingerprint(bot);
    if ctx.recent.complete(&valid.uid, &fingerprint, std::time::Duration::MAX).is_none() {
        Box::pin(remove_orphans(ctx, &valid)).await?;
    }
    if let Err(error) = Box::pin(ensure_inbox_is_open(ctx, &valid, &workload, &found, roles)).await {
        inbox_is_closed(ctx, &valid.namespace, &error, progress);
        ctx.recent.forget(&valid.uid);
        return Ok(());
    }
    if progress.again.is_some() {
        // Only a complete look puts it right.
        ctx.recent.forget(&valid.uid);
        return Ok(());
    }
    let complete = Complete {
        account: progress.account.clone(),
        facts: progress.facts.clone(),
        workload_generation: applied.stateful_set.and_then(|live| live.metadata.generation),
    };
    ctx.recent.remember(look, fingerprint, complete);
    Ok(())
}

/// Two who do not know of each other write without end: one of them must be told to stop.
fn fought(fight: &Fight) -> Notice {
    let object = &fight.object;
    let who = match &fight.by {
        Some(manager) => format!("field manager {manager} changes {object}"),
        None => format!("somebody changes or deletes {object}"),
    };
    let note = format!(
        "{who} as often as it is put right, which is done at growing distance now; have that stopped, or pause the bot"
    );
    told(true, "ObjectFoughtOver", note)
}

/// The bot works all the same: what the console has for its trail waits there.
fn inbox_is_closed(ctx: &Ctx, namespace: &str, error: &Error, progress: &mut Progress) {
    // What a person has to do is seen when it is done.
    progress.unfinished = error.retry() != Retry::Never;
    if !matches!(error, Error::Waiting(_)) {
        let (_, check) = explain(error, namespace, &ctx.settings, None);
        let note = format!("the console cannot reach the trail, its records wait: {}", check.message);
        progress.notices.push(told(true, NOT_OPEN, note));
    }
}

/// A look at the worker only. `false` if the workload is not as the last complete look left it.
pub(super) async fn worker_only<B: Bot>(
    ctx: &Ctx,
    bot: &B,
    names: &Names,
    last: Complete,
    progress: &mut Progress,
) -> Result<bool, Error> {
    let namespace = bot.namespace().unwrap_or_default();
    let found = dereference::workload(&ctx.client, &namespace, names).await?;
    let generation = found.stateful_set.as_ref().map(|live| live.metadata.generation);
    if generation != Some(last.workload_generation) || found.volume.is_none() {
        return Ok(false);
    }
    progress.account = last.account;
    progress.facts = last.facts;
    progress.worker = worker_state(found.stateful_set.as_ref(), found.pod.as_ref());
    keep_trail(ctx, bot, names, found.trail.as_ref(), progress).await?;
    Ok(true)
}

async fn keep_trail<B: Bot>(
    ctx: &Ctx,
    bot: &B,
    names: &Names,
    live: Option<&k8s_openapi::api::core::v1::ConfigMap>,
    progress: &mut Progress,
) -> Result<(), Error> {
    let reported = bot.status().and_then(|status| status.trail.as_ref()).map(TrailStatus::point);
    let place = trail::Place {
        kind: B::KIND,
        namespace: &bot.namespace().unwrap_or_default(),
        name: &bot.name_any(),
        names,
    };
    progress.notices.extend(trail::keep(ctx, &place, reported.as_ref(), live).await?);
    Ok(())
}

fn login_url<B: Bot>(ctx: &Ctx, bot: &B, progress: &mut Progress) {
    let web = bot.common().element_web;
    let is_allowed =
        |host: &str| ctx.settings.allowed_element_web_hosts.iter().any(|allowed| allowed == host);
    progress.facts.login_url = Some(match web {
        Some(web) if is_allowed(&web.host) => Some(format!("https://{}{}", web.host, web.path)),
        Some(web) => {
            let note = format!(
                "spec.elementWeb.host {} is not on the list of hosts that the platform allows; nobody is sent there",
                web.host
            );
            progress.notices.push(told(true, "ElementWebHostNotAllowed", note));
            None
        }
        None => None,
    });
}

fn foreign_workload(name: &str) -> Problem {
    Problem::worker(
        "WorkloadNotOurs",
        format!(
            "StatefulSet {name} exists and does not belong to this bot; it is not changed. If it is left over from a \
             bot of the same name, wait until it is gone, or delete it"
        ),
    )
    .again_after(std::time::Duration::from_secs(15))
}
