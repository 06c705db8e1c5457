//! Which bots there are, as the API server says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::StreamExt as _;
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    core::DeserializeGuard,
    runtime::watcher::{self, Event},
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    console::estate::{Estate, KnownBot, Place},
    crd::{AdminBot, AuditBot, Bot},
    domain::BotName,
    kube_util::watch::guarded,
    operator::{dereference::secret_names, names::Names},
};

/// Audit events come seconds after what they report, and are sent again for minutes.
const LATE: Duration = Duration::from_mins(5);

/// Each bot, and since when it is gone.
type Known = BTreeMap<BotName, (KnownBot, Option<Instant>)>;

/// Follows the bots of both kinds.
#[derive(Clone)]
pub(super) struct Bots {
    place: Place,
    known: Arc<Mutex<Known>>,
    is_complete: Arc<AtomicBool>,
    sender: Arc<watch::Sender<Arc<Estate>>>,
}

impl Bots {
    pub(super) fn new(place: Place) -> (Self, watch::Receiver<Arc<Estate>>) {
        let estate = Arc::new(Estate::new(place.clone(), []));
        let (sender, receiver) = watch::channel(estate);
        let bots =
            Self { place, known: Arc::default(), is_complete: Arc::default(), sender: Arc::new(sender) };
        (bots, receiver)
    }

    /// Runs until cancelled; `ready` is called when both kinds were listed once.
    pub(super) async fn follow(self, client: Client, soft: CancellationToken, ready: impl Fn() + Sync) {
        let missing = AtomicUsize::new(2);
        let listed = || {
            if missing.fetch_sub(1, Ordering::Relaxed) == 1 {
                self.complete();
                ready();
            }
        };
        let both = async {
            tokio::join!(
                self.kind::<AdminBot>(client.clone(), &listed),
                self.kind::<AuditBot>(client.clone(), &listed),
                self.forget()
            )
        };
        tokio::select! {
            () = soft.cancelled() => {}
            _ = both => {}
        }
    }

    async fn kind<B: Bot>(&self, client: Client, listed: &impl Fn()) {
        let api: Api<DeserializeGuard<B>> = Api::all(client);
        let mut events = std::pin::pin!(guarded(api, watcher::Config::default(), ""));
        let (mut fresh, mut first) = (BTreeSet::new(), true);
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => fresh.clear(),
                Ok(Event::InitApply(object)) => {
                    let bot = known(&object);
                    fresh.insert(bot.name.clone());
                    self.insert(bot);
                }
                Ok(Event::InitDone) => {
                    self.gone(|name| name.kind == B::KIND && !fresh.contains(name));
                    if std::mem::take(&mut first) {
                        listed();
                    }
                }
                Ok(Event::Apply(object)) => self.insert(known(&object)),
                Ok(Event::Delete(object)) => {
                    let gone = known(&object).name;
                    self.gone(|name| *name == gone);
                }
                Err(error) => tracing::warn!(%error, kind = %B::kind(&()), "watch failed; trying again"),
            }
        }
    }

    fn insert(&self, bot: KnownBot) {
        self.change(|known| {
            // Most changes are of the status.
            if known.get(&bot.name).is_some_and(|(before, _)| *before == bot) {
                return false;
            }
            known.insert(bot.name.clone(), (bot, None));
            true
        });
    }

    fn gone(&self, is_gone: impl Fn(&BotName) -> bool) {
        self.change(|known| {
            let mut changed = false;
            for (name, (bot, since)) in known.iter_mut() {
                if !bot.is_gone && is_gone(name) {
                    (bot.is_gone, *since, changed) = (true, Some(Instant::now()), true);
                }
            }
            changed
        });
    }

    fn complete(&self) {
        self.is_complete.store(true, Ordering::Relaxed);
        self.change(|_| true);
    }

    async fn forget(&self) {
        let mut ticks = tokio::time::interval(LATE / 5);
        loop {
            ticks.tick().await;
            self.change(|known| {
                let before = known.len();
                known.retain(|_, (_, since)| since.is_none_or(|since| since.elapsed() < LATE));
                known.len() != before
            });
        }
    }

    fn change(&self, act: impl FnOnce(&mut Known) -> bool) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if act(&mut known) {
            let bots = known.values().map(|(bot, _)| bot.clone());
            let estate = Estate::new(self.place.clone(), bots);
            let is_complete = self.is_complete.load(Ordering::Relaxed);
            self.sender.send_replace(Arc::new(if is_complete { estate.complete() } else { estate }));
        }
    }
}

fn known<B: Bot>(object: &DeserializeGuard<B>) -> KnownBot {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let base = Names::new(B::KIND, &name, "").base().to_owned();
    let name = BotName { namespace, name, kind: B::KIND };
    // Of an object that does not fit its schema the name is known.
    let secrets = object.0.as_ref().map(secret_names).unwrap_or_default().into_iter().collect();
    let is_leaving = object.meta().deletion_timestamp.is_some();
    let uid = object.meta().uid.clone().unwrap_or_default();
    KnownBot { name, uid, base, secrets, is_leaving, is_gone: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::BotKind;

    fn bot(name: &str) -> KnownBot {
        let name = BotName { namespace: "n".into(), name: name.into(), kind: BotKind::Audit };
        KnownBot {
            name,
            uid: "life".into(),
            base: "auditbot".into(),
            secrets: BTreeSet::new(),
            is_leaving: false,
            is_gone: false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_reported_late_is_still_about_the_bot() {
        let (bots, estate) = Bots::new(Place::default());
        bots.insert(bot("a"));
        let forgetting = tokio::spawn({
            let bots = bots.clone();
            async move { bots.forget().await }
        });
        bots.gone(|name| name.name == "a");
        assert_eq!((estate.borrow().of("n").count(), estate.borrow().everybody().count()), (1, 0));
        tokio::time::sleep(LATE * 2).await;
        assert_eq!(estate.borrow().of("n").count(), 0);
        assert!(!estate.borrow().is_complete);
        bots.complete();
        assert!(estate.borrow().is_complete, "one that is not there is none");
        bots.insert(bot("a"));
        assert!(estate.borrow().is_complete);
        bots.gone(|_| true);
        bots.insert(bot("a"));
        assert_eq!(estate.borrow().everybody().count(), 1, "it is back");
        forgetting.abort();
    }
}
