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
        core::v1::{ConfigMap, PersistentVolumeClaim, Secret, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        rbac::v1::{Role, RoleBinding},
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
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).len()
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

    /// Something in the namespace has changed: those whom it concerns are looked at.
    fn changed(&self, ctx: &Ctx, namespace: &str, sort: Sort, seen: &Seen) {
        let Seen::Object { name, touched } = seen else { return self.look(ctx, namespace, true, |_| true) };
        let names = |bot: &B| Names::new(B::KIND, &bot.name_any(), &bot.uid().unwrap_or_default());
        match sort {
            Sort::Secret => self.look(ctx, namespace, true, |bot| secret_names(bot).contains(name)),
            Sort::Workload => self.look(ctx, namespace, *touched, |bot| names(bot).worker() == *name),
            Sort::Other if *touched => self.look(ctx, namespace, true, |bot| names(bot).is_applied(name)),
            Sort::Other => {}
        }
    }

    fn look(&self, ctx: &Ctx, namespace: &str, completely: bool, concerns: impl Fn(&B) -> bool) {
        for bot in self.store.state() {
            let is_concerned = bot.0.as_ref().is_ok_and(&concerns);
            if bot.namespace().as_deref() != Some(namespace) || !is_concerned {
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
    /// Only what was applied of it counts. The operator writes some of these itself whenever a worker reports.
    Other,
}

/// Watches the children of one namespace until cancelled.
pub async fn watch_children<A: Bot, B: Bot>(
    client: Client,
    namespace: String,
    ctx: Arc<Ctx>,
    bots: (Bots<A>, Bots<B>),
) {
    let secrets = watch::metadata::<Secret>(client.clone(), &namespace, None, FIELD_MANAGER);
    let changes = [
        secrets.map(|seen| (Sort::Secret, seen)).boxed(),
        children::<StatefulSet>(&client, &namespace, Sort::Workload),
        children::<NetworkPolicy>(&client, &namespace, Sort::Other),
        children::<Role>(&client, &namespace, Sort::Other),
        children::<RoleBinding>(&client, &namespace, Sort::Other),
        children::<ServiceAccount>(&client, &namespace, Sort::Other),
        children::<Service>(&client, &namespace, Sort::Other),
        children::<PersistentVolumeClaim>(&client, &namespace, Sort::Other),
        children::<ConfigMap>(&client, &namespace, Sort::Other),
    ];
    let mut changes = futures::stream::select_all(changes);
    while let Some((sort, seen)) = changes.next().await {
        bots.0.changed(&ctx, &namespace, sort, &seen);
        bots.1.changed(&ctx, &namespace, sort, &seen);
    }
}

/// Changes of what the operator has made of this kind.
fn children<K>(client: &Client, namespace: &str, sort: Sort) -> BoxStream<'static, (Sort, Seen)>
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
