//! Watches of one kind and the queue in front of its reconciliations.

use std::{
    collections::{BTreeSet, HashSet},
    fmt::Debug,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::StatefulSet,
        core::v1::{PersistentVolumeClaim, Secret, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
    },
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    core::DeserializeGuard,
    runtime::{
        Controller, WatchStreamExt as _,
        controller::Config,
        reflector::{ObjectRef, Store, store::Writer},
        watcher,
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

use super::{
    context::Ctx,
    dereference::secret_names,
    labels::{FIELD_MANAGER, MANAGED_BY},
    names::Names,
    reconcile::{error_policy, reconcile},
    status::types,
    validate::{Claim, account_of},
};
use crate::{
    crd::Bot,
    domain::{Localpart, ServerName},
    kube_util::{
        conditions::find,
        watch::{self, Seen},
    },
};

/// A bot in the queue.
type Reference<B> = ObjectRef<DeserializeGuard<B>>;

/// What is known of all bots of a kind, and the way to have one looked at.
pub struct Bots<B: Bot> {
    store: Store<DeserializeGuard<B>>,
    trigger: UnboundedSender<Reference<B>>,
    waiting: Arc<Mutex<HashSet<(String, String)>>>,
}

impl<B: Bot> Clone for Bots<B> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), trigger: self.trigger.clone(), waiting: Arc::clone(&self.waiting) }
    }
}

impl<B: Bot> std::fmt::Debug for Bots<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bots").field("kind", &B::KIND).field("len", &self.store.len()).finish_non_exhaustive()
    }
}

/// The other ends of [`Bots`], for [`control`].
pub struct Ends<B: Bot> {
    writer: Writer<DeserializeGuard<B>>,
    triggers: UnboundedReceiver<Reference<B>>,
}

impl<B: Bot> std::fmt::Debug for Ends<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ends").field("kind", &B::KIND).finish_non_exhaustive()
    }
}

impl<B: Bot> Bots<B> {
    /// No bots yet.
    pub fn new() -> (Self, Ends<B>) {
        let writer = Writer::new(());
        let (trigger, triggers) = unbounded_channel();
        let bots = Self { store: writer.as_reader(), trigger, waiting: Arc::default() };
        (bots, Ends { writer, triggers })
    }

    /// Everybody of this kind who claims the account.
    pub fn claims(&self, server: &ServerName, username: &Localpart) -> Vec<Claim> {
        let claims = |bot: &B| account_of(bot).is_ok_and(|(s, u)| s == *server && u == *username);
        let all = self.store.state();
        all.iter().filter_map(|bot| bot.0.as_ref().ok()).filter(|bot| claims(bot)).map(Claim::of).collect()
    }

    /// Namespaces with bots.
    pub fn namespaces(&self) -> BTreeSet<String> {
        self.store.state().iter().filter_map(|bot| bot.namespace()).collect()
    }

    /// UIDs of all bots.
    pub fn uids(&self) -> HashSet<String> {
        self.store.state().iter().filter_map(|bot| bot.uid()).collect()
    }

    /// Number of bots with a change that no reconciliation has begun with.
    pub fn queue_depth(&self) -> usize {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // With a bot that is gone no reconciliation begins any more.
        let is_there = |(namespace, name): &(String, String)| {
            self.store.get(&ObjectRef::new(name).within(namespace)).is_some()
        };
        waiting.retain(is_there);
        waiting.len()
    }

    /// Number of bots whose `Ready` is true, false and unknown.
    pub fn by_readiness(&self) -> (usize, usize, usize) {
        let mut counts = (0, 0, 0);
        for bot in self.store.state() {
            let conditions =
                bot.0.as_ref().ok().and_then(|bot| bot.status()).map(|status| &status.conditions);
            match conditions.and_then(|list| find(list, types::READY)).map(|ready| ready.status.as_str()) {
                Some("True") => counts.0 += 1,
                Some("False") => counts.1 += 1,
                _ => counts.2 += 1,
            }
        }
        counts
    }

    /// Something has changed, in this namespace or in any: those whom it concerns are looked at.
    fn changed(&self, ctx: &Ctx, namespace: Option<&str>, sort: Sort, seen: &Seen) {
        let names = |bot: &B| Names::new(B::KIND, &bot.name_any(), &bot.uid().unwrap_or_default());
        match (sort, seen) {
            (Sort::Secret, Seen::All { .. }) => self.look(ctx, namespace, true, |_| true),
            (Sort::Workload, Seen::All { first }) => self.look(ctx, namespace, *first, |_| true),
            (Sort::Other, Seen::All { first: true }) => self.look(ctx, namespace, true, |_| true),
            (Sort::Secret, Seen::Object { namespace, name, .. }) => {
                self.look(ctx, Some(namespace), true, |bot| secret_names(bot).contains(name));
            }
            (Sort::Workload, Seen::Object { namespace, name, touched }) => {
                self.look(ctx, Some(namespace), *touched, |bot| names(bot).worker() == *name);
            }
            (Sort::Other, Seen::Object { namespace, name, touched: true }) => {
                self.look(ctx, Some(namespace), true, |bot| names(bot).is_applied(name));
            }
            (Sort::Other, Seen::All { first: false } | Seen::Object { touched: false, .. }) => {}
        }
    }

    fn look(&self, ctx: &Ctx, namespace: Option<&str>, completely: bool, concerns: impl Fn(&B) -> bool) {
        for bot in self.store.state() {
            let is_there =
                namespace.is_none_or(|namespace| bot.meta().namespace.as_deref() == Some(namespace));
            if !is_there || !bot.0.as_ref().is_ok_and(&concerns) {
                continue;
            }
            if completely {
                ctx.recent.forget(&bot.uid().unwrap_or_default());
            }
            let reference = ObjectRef::from_obj(bot.as_ref());
            queued(&self.waiting, &reference);
            // The receiver goes with the process only.
            let _ = self.trigger.send(reference);
        }
    }
}

fn queued<B: Bot>(waiting: &Mutex<HashSet<(String, String)>>, reference: &Reference<B>) {
    let key = (reference.namespace.clone().unwrap_or_default(), reference.name.clone());
    waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
}

/// What a change of an object is to the bots in its namespace.
#[derive(Debug, Clone, Copy)]
enum Sort {
    /// Its content counts, whoever wrote it.
    Secret,
    /// Its status counts, and what was applied of it.
    Workload,
    /// Only what was applied of it counts.
    Other,
}

/// Watches in one namespace until cancelled: what only its tenant can open to the operator.
pub async fn watch_children<A: Bot, B: Bot>(
    client: Client,
    namespace: String,
    ctx: Arc<Ctx>,
    bots: (Bots<A>, Bots<B>),
) {
    let here = Some(namespace.as_str());
    let secrets = watch::metadata::<Secret>(client.clone(), here, None, FIELD_MANAGER);
    let changes = [
        secrets.map(|seen| (Sort::Secret, seen)).boxed(),
        children::<StatefulSet>(&client, here, Sort::Workload),
    ];
    follow(changes, here, &ctx, &bots).await;
}

/// Watches in all namespaces until cancelled, with one connection for each kind: kinds of which whoever reads them
/// learns no secret. Roles and their bindings, and the copy of the trail's point, are no such kinds, and not worth
/// connections for each namespace: the next look puts them right.
pub async fn watch_everywhere<A: Bot, B: Bot>(ctx: Arc<Ctx>, bots: (Bots<A>, Bots<B>)) {
    let client = &ctx.client;
    let changes = [
        children::<NetworkPolicy>(client, None, Sort::Other),
        children::<ServiceAccount>(client, None, Sort::Other),
        children::<Service>(client, None, Sort::Other),
        children::<PersistentVolumeClaim>(client, None, Sort::Other),
    ];
    follow(changes, None, &ctx, &bots).await;
}

type Changes = BoxStream<'static, (Sort, Seen)>;

async fn follow<A: Bot, B: Bot>(
    changes: impl IntoIterator<Item = Changes>,
    namespace: Option<&str>,
    ctx: &Ctx,
    bots: &(Bots<A>, Bots<B>),
) {
    let mut changes = futures::stream::select_all(changes);
    while let Some((sort, seen)) = changes.next().await {
        bots.0.changed(ctx, namespace, sort, &seen);
        bots.1.changed(ctx, namespace, sort, &seen);
    }
}

/// Changes of what the operator has made of this kind.
fn children<K>(client: &Client, namespace: Option<&str>, sort: Sort) -> Changes
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static,
{
    let label = format!("{MANAGED_BY}={FIELD_MANAGER}");
    let seen = watch::metadata::<K>(client.clone(), namespace, Some(&label), FIELD_MANAGER);
    seen.map(move |seen| (sort, seen)).boxed()
}

/// Reconciles all bots of a kind until `soft` is cancelled and what was begun is done.
pub fn control<B: Bot>(
    ctx: Arc<Ctx>,
    bots: &Bots<B>,
    ends: Ends<B>,
    concurrency: u16,
    soft: CancellationToken,
) -> impl Future<Output = ()> + Send + use<B> {
    let Ends { writer, triggers } = ends;
    let api: Api<DeserializeGuard<B>> = Api::all(ctx.client.clone());
    let waiting = Arc::clone(&bots.waiting);
    let stream = watch::guarded(api, watcher::Config::default(), FIELD_MANAGER)
        .reflect(writer)
        .touched_objects()
        .inspect_ok(move |bot| queued(&waiting, &ObjectRef::from_obj(bot)))
        .inspect_err(|error| tracing::warn!(kind = B::KIND.slug(), %error, "watch was interrupted"));
    let begun = Arc::clone(&bots.waiting);
    let reconciler = move |bot: Arc<DeserializeGuard<B>>, ctx: Arc<Ctx>| {
        let key = (bot.namespace().unwrap_or_default(), bot.name_any());
        begun.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        reconcile(bot, ctx)
    };
    let triggers = futures::stream::unfold(triggers, |mut triggers| async move {
        triggers.recv().await.map(|reference| (reference, triggers))
    });
    Controller::for_stream(stream, bots.store.clone())
        // The default is no limit at all.
        .with_config(Config::default().concurrency(concurrency.max(1)))
        .reconcile_on(triggers)
        .graceful_shutdown_on(soft.cancelled_owned())
        .run(reconciler, error_policy::<B>, ctx)
        .for_each(|result| async move {
            if let Err(error) = result {
                tracing::debug!(%error, "reconciliation");
            }
        })
}

/// Waits until all bots of the kind are known.
pub async fn known<B: Bot>(bots: &Bots<B>) {
    // The writer is gone only when the process ends.
    let _ = bots.store.wait_until_ready().await;
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;
    use crate::crd::AuditBot;

    #[test]
    fn a_bot_that_is_gone_waits_no_more() {
        let (bots, mut ends) = Bots::<AuditBot>::new();
        let [one, other] = ["one", "other"].map(|name| -> DeserializeGuard<AuditBot> {
            let metadata = json!({ "name": name, "namespace": "tenant" });
            serde_json::from_value(json!({ "metadata": metadata, "spec": {} })).unwrap()
        });
        for bot in [&one, &other] {
            ends.writer.apply_watcher_event(&Event::Apply(bot.clone()));
            queued(&bots.waiting, &ObjectRef::from_obj(bot));
        }
        assert_eq!(bots.queue_depth(), 2);
        ends.writer.apply_watcher_event(&Event::Delete(one));
        assert_eq!(bots.queue_depth(), 1);
    }
}
