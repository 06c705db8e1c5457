//! What tests of the console need: its own database, the inboxes of tenants, and which bots there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use ems_bots::{
    console::{
        caller::Proof,
        deliver::{Delivery, messages},
        estate::{Estate, KnownBot, Place},
        forward::Forwarder,
        intake::{Entry, Target},
        metrics::Metrics,
        ports::{Inbox, Inboxes, NotTaken},
        server::Intake,
    },
    domain::{BotKind, BotName, SystemClock, record::RecordDraft},
    store::{
        AuditStore as _,
        pg::{Role, inbox::PgInbox, platform::PgPlatform},
        platform::{Message, PlatformStore as _},
    },
};
use prometheus::Registry;
use secrecy::SecretString;
use tokio::sync::watch;

use crate::{
    postgres::TestDatabase,
    store_append::{batch, message, now},
};

pub(crate) const TOKEN: &str = "token of the API server";

pub(crate) fn bot(name: &str) -> BotName {
    BotName { namespace: "tenant".into(), name: name.into(), kind: BotKind::Audit }
}

pub(crate) fn place() -> Place {
    Place {
        namespace: "ems-bots-system".into(),
        operator: "ems-bots-operator".into(),
        console: "ems-bots-console".into(),
        secrets: ["ems-bots-console-tls".to_owned()].into(),
    }
}

pub(crate) fn known(name: &str) -> KnownBot {
    KnownBot {
        name: bot(name),
        uid: "life".into(),
        base: if name == "auditbot" { name.to_owned() } else { format!("auditbot-{name}") },
        secrets: ["ems-bots-database".to_owned()].into(),
        is_leaving: false,
        is_gone: false,
    }
}

pub(crate) fn estate_of(bots: &[&str]) -> Estate {
    Estate::new(place(), bots.iter().map(|name| known(name))).complete()
}

pub(crate) fn estate() -> Estate {
    estate_of(&["auditbot", "second"])
}

/// The inboxes that are there.
#[derive(Default)]
pub(crate) struct Tenants {
    pub(crate) open: Mutex<BTreeMap<BotName, Arc<PgInbox>>>,
    /// Those that never answer.
    pub(crate) silent: Mutex<BTreeSet<BotName>>,
    /// Who was asked for, in order.
    pub(crate) asked: Mutex<Vec<String>>,
}

impl Tenants {
    pub(crate) fn open(&self, name: &str, database: &TestDatabase) {
        let inbox =
            PgInbox::new(&database.endpoint(Role::Inbox), "ems-bots/console", TestDatabase::inbox_key());
        self.open.lock().unwrap().insert(bot(name), Arc::new(inbox));
    }
}

pub(crate) struct Open(Arc<PgInbox>);

#[async_trait]
impl Inboxes for Tenants {
    async fn find(&self, bot: &BotName) -> Result<Arc<dyn Inbox>, NotTaken> {
        self.asked.lock().unwrap().push(bot.name.clone());
        if self.silent.lock().unwrap().contains(bot) {
            std::future::pending::<()>().await;
        }
        let inbox = self.open.lock().unwrap().get(bot).cloned();
        let inbox = inbox.ok_or_else(|| NotTaken("not there".to_owned()))?;
        Ok(Arc::new(Open(inbox)))
    }

    fn keep_only(&self, bots: &[BotName]) {
        self.open.lock().unwrap().retain(|bot, _| bots.contains(bot));
    }
}

#[async_trait]
impl Inbox for Open {
    async fn put(&self, counter: i64, body: &[u8]) -> Result<(), NotTaken> {
        self.0.put_encoded(counter, body).await.map_err(|error| NotTaken(error.to_string()))
    }
}

/// A console with a database of its own and the tenant of a test.
pub(crate) struct World {
    pub(crate) own: TestDatabase,
    pub(crate) tenant: TestDatabase,
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) platform: Arc<PgPlatform>,
    pub(crate) estate: watch::Sender<Arc<Estate>>,
    pub(crate) metrics: Metrics,
    pub(crate) registry: Registry,
}

impl World {
    pub(crate) async fn new() -> Self {
        let (own, tenant) = (TestDatabase::empty().await, TestDatabase::migrated().await);
        let platform = Arc::new(PgPlatform::new(own.owner()));
        platform.migrate().await.unwrap();
        platform.migrate().await.unwrap();
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        let estate = watch::channel(Arc::new(estate())).0;
        Self { own, tenant, tenants: Arc::default(), platform, estate, metrics, registry }
    }

    pub(crate) fn delivery(&self) -> Delivery {
        Delivery::new(self.tenants.clone(), self.platform.clone(), self.metrics.clone())
    }

    pub(crate) fn forwarder(&self) -> Forwarder {
        Forwarder {
            platform: self.platform.clone(),
            inboxes: self.tenants.clone(),
            estate: self.estate.subscribe(),
            metrics: self.metrics.clone(),
        }
    }

    pub(crate) fn intake(&self) -> Intake {
        Intake {
            delivery: self.delivery(),
            estate: self.estate.subscribe(),
            proof: Arc::new(Proof { token: Some(SecretString::from(TOKEN)) }),
            clock: Arc::new(SystemClock),
            metrics: self.metrics.clone(),
        }
    }

    pub(crate) async fn waiting(&self) -> u64 {
        self.platform.totals(true).await.unwrap().messages
    }

    /// Makes what waits due at once.
    pub(crate) async fn hurry(&self) {
        self.platform.hurry(&[bot("auditbot"), bot("second")]).await.unwrap();
    }

    /// Tries so often in vain that it is not tried again for a while.
    pub(crate) async fn tire(&self) {
        for _ in 0..4 {
            self.hurry().await;
            self.carry().await;
        }
    }

    /// Carries on what is due. Returns to whom, in order.
    pub(crate) async fn carry(&self) -> Vec<String> {
        self.tenants.asked.lock().unwrap().clear();
        while self.forwarder().page().await.unwrap() {}
        self.tenants.asked.lock().unwrap().clone()
    }

    /// What the gauge says.
    pub(crate) fn left_over(&self) -> Option<u32> {
        let families = self.registry.gather();
        let gauge = families.iter().find(|family| family.name() == "ems_bots_console_left_over_records")?;
        let value = gauge.get_metric()[0].get_gauge().get_value();
        serde_json::from_str(&value.to_string()).ok()
    }

    /// As if what waits had been waiting for so many days, and the bots had not been seen for as long.
    pub(crate) async fn age(&self, days: i32) {
        let mut superuser = self.own.superuser().await;
        for statement in [
            "UPDATE waiting SET received_at = now() - make_interval(days => $1)",
            "UPDATE trail SET seen = now() - make_interval(days => $1)",
        ] {
            sqlx::query(statement).bind(days).execute(&mut superuser).await.unwrap();
        }
    }

    /// Takes the inbox of the tenant into its trail. Returns what is new.
    pub(crate) async fn drain(&self) -> Vec<RecordDraft> {
        let store = self.tenant.writer_with_inbox(1);
        store.open(None).await.unwrap();
        let items = store.inbox(100).await.unwrap();
        let drafts: Vec<RecordDraft> = items.iter().map(|item| item.draft.clone()).collect();
        let mut drained = batch(drafts.clone());
        drained.drained = items.iter().map(|item| item.id).collect();
        let seqs = store.append(&drained, now()).await.unwrap().seqs;
        drafts.into_iter().zip(seqs).filter_map(|(draft, seq)| seq.map(|_| draft)).collect()
    }

    pub(crate) fn count(&self, metric: &str, label: &str) -> String {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == metric).unwrap();
        let with =
            family.get_metric().iter().filter(|one| one.get_label().iter().any(|pair| pair.value() == label));
        with.map(|one| one.get_counter().get_value()).sum::<f64>().to_string()
    }
}

pub(crate) fn entries(ids: &[&str]) -> Vec<Entry> {
    let entry = |id: &&str| Entry { target: Target::Bot(bot("auditbot")), draft: message(id, id) };
    ids.iter().map(entry).collect()
}

pub(crate) fn to_auditbot(ids: &[&str]) -> Vec<Message> {
    messages(&entries(ids), &estate(), true)
}
