//! A cluster with one tenant, its homeserver, and an operator that can be restarted at will.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use base64::Engine as _;
use ems_bots::{
    crd::{AdminBot, AuditBot, Bot},
    domain::{Clock, Localpart, ServerName, UserId},
    homeserver::{Connect, mock::MockHomeserver},
    kube_util::{backoff::Backoff, brake::Brake, events::Events},
    operator::{
        Ctx, Error, Settings, entropy::Entropy, metrics::Metrics, reconcile, seen::Recent, status::types,
        validate::Claim,
    },
};
use jiff::Timestamp;
use kube::core::DeserializeGuard;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::{
    crashing::Crashing,
    fake_api::{Call, FakeApi},
};

pub(crate) const NAMESPACE: &str = "tenant";
pub(crate) const URL: &str = "http://synapse:8008";

/// The two kinds, by the names that the API server uses.
pub(crate) trait Kind: Bot {
    const PLURAL: &'static str;
    const NAME: &'static str;
}

impl Kind for AdminBot {
    const PLURAL: &'static str = "adminbots";
    const NAME: &'static str = "adminbot";
}

impl Kind for AuditBot {
    const PLURAL: &'static str = "auditbots";
    const NAME: &'static str = "auditbot";
}

#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        "2026-02-03T04:05:06Z".parse().unwrap()
    }
}

/// Different on every call, the same in every run.
struct Counter(AtomicU64);

impl Entropy for Counter {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), Error> {
        for byte in buffer {
            let mut x = self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
            x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            *byte = (x >> 56) as u8;
        }
        Ok(())
    }
}

pub(crate) struct World {
    pub(crate) api: FakeApi,
    pub(crate) homeserver: MockHomeserver,
    pub(crate) claims: Arc<Mutex<Vec<Claim>>>,
    /// URLs that connections were opened to.
    pub(crate) opened: Arc<Mutex<Vec<String>>>,
    pub(crate) settings: Settings,
    entropy: Arc<Counter>,
}

impl World {
    /// A tenant whose Secrets are complete, with no bot yet.
    pub(crate) fn new() -> Self {
        let world = Self {
            api: FakeApi::default(),
            homeserver: MockHomeserver::new(ServerName::parse("example.org").unwrap()),
            claims: Arc::default(),
            opened: Arc::default(),
            settings: Settings {
                worker_image: "ems-bots:test".to_owned(),
                image_pull_policy: None,
                image_pull_secrets: Vec::new(),
                allowed_element_web_hosts: vec!["app.example.org".to_owned()],
                api_server_ports: vec![443, 6443],
                worker_egress_ports: Vec::new(),
                paused: false,
                resync: std::time::Duration::from_mins(10),
                service_account: ("ems-bots-system".to_owned(), "ems-bots-operator".to_owned()),
                console: None,
            },
            entropy: Arc::new(Counter(AtomicU64::new(1))),
        };
        world.secret("ems-bots-homeserver", &[("registration-shared-secret", "registration-secret")]);
        world.api.edit("secrets", NAMESPACE, "ems-bots-homeserver", |secret| {
            secret["metadata"]["annotations"] = json!({"ems.element.io/homeserver": URL});
        });
        world.secret(
            "ems-bots-database",
            &[
                ("host", "db"),
                ("port", "5432"),
                ("dbname", "d"),
                ("username", "owner"),
                ("password", "owner-pw"),
            ],
        );
        world
    }

    /// As if something else had been made before.
    pub(crate) fn skip_entropy(&self) {
        self.entropy.0.fetch_add(12_345, Ordering::Relaxed);
    }

    pub(crate) fn secret(&self, name: &str, data: &[(&str, &str)]) {
        let encode = |value: &str| base64::engine::general_purpose::STANDARD.encode(value);
        let data: serde_json::Map<String, Value> =
            data.iter().map(|(key, value)| ((*key).to_owned(), encode(value).into())).collect();
        self.api.put(
            "secrets",
            json!({"apiVersion": "v1", "kind": "Secret", "data": data,
            "metadata": {"name": name, "namespace": NAMESPACE}}),
        );
    }

    /// The text under a key of a Secret.
    pub(crate) fn secret_text(&self, name: &str, key: &str) -> String {
        let secret = self.api.get("secrets", NAMESPACE, name).expect("Secret exists");
        let bytes = base64::engine::general_purpose::STANDARD.decode(secret["data"][key].as_str().unwrap());
        String::from_utf8(bytes.unwrap()).unwrap()
    }

    /// Creates a bot; `more` is laid over its spec.
    pub(crate) fn bot<B: Kind>(&self, more: &Value) {
        let mut spec = json!({"homeserver": {"serverName": "example.org", "url": URL, "plan": "Gold"}});
        super::fake_ssa::merge(&mut spec, more, "");
        self.api.put(
            B::PLURAL,
            json!({"apiVersion": "ems.element.io/v1alpha1", "kind": B::kind(&()),
            "metadata": {"name": B::NAME, "namespace": NAMESPACE}, "spec": spec}),
        );
    }

    /// Creates an Audit Bot whose credential is the access token of `@root`.
    pub(crate) fn bot_with_access_token(&self, is_admin: bool) {
        let root = self.homeserver.add_user(&"root".parse().unwrap(), is_admin);
        self.secret("token", &[("token", root.access_token.expose_secret())]);
        self.api.edit("secrets", NAMESPACE, "token", |secret| {
            secret["metadata"]["annotations"] = json!({"ems.element.io/homeserver": URL});
        });
        self.bot::<AuditBot>(
            &json!({"homeserver": {"adminApi": {"accessToken": {"name": "token", "key": "token"}}}}),
        );
    }

    /// A new process of the operator.
    pub(crate) fn start(&self) -> Arc<Ctx> {
        let client = self.api.client();
        let claims = Arc::clone(&self.claims);
        let inner: Arc<dyn Connect> = Arc::new(self.homeserver.clone());
        let (opened, crash) = (Arc::clone(&self.opened), self.api.crash.clone());
        Arc::new(Ctx {
            events: Events::new(client.clone(), "ems-bots-operator", None),
            client,
            connect: Arc::new(move |target| {
                opened.lock().unwrap().push(target.url.to_string());
                Ok(Arc::new(Crashing { inner: Arc::clone(&inner), crash: crash.clone() }))
            }),
            clock: Arc::new(Still),
            entropy: Arc::clone(&self.entropy) as Arc<dyn Entropy>,
            settings: self.settings.clone(),
            metrics: Metrics::new(&prometheus::Registry::new()).unwrap(),
            backoff: Backoff::new(std::time::Duration::from_secs(1), std::time::Duration::from_mins(1), 10),
            brake: Brake::new(self.settings.resync, 100),
            claims: Arc::new(move |_, _| claims.lock().unwrap().clone()),
            watch_namespace: Arc::new(|_| ()),
            recent: Recent::default(),
        })
    }

    /// One reconciliation by this process; `None` if the bot is gone.
    pub(crate) async fn reconcile<B: Kind>(&self, ctx: &Arc<Ctx>) -> Option<Result<(), Error>> {
        let object = self.api.get(B::PLURAL, NAMESPACE, B::NAME)?;
        let object: DeserializeGuard<B> = serde_json::from_value(object).unwrap();
        Some(Box::pin(reconcile(Arc::new(object), Arc::clone(ctx))).await.map(|_| ()))
    }

    /// Reconciles until nothing is written any more. Returns how often.
    pub(crate) async fn settle<B: Kind>(&self, ctx: &Arc<Ctx>) -> usize {
        for round in 0..10 {
            self.api.take_calls();
            self.reconcile::<B>(ctx).await;
            if self.writes().is_empty() {
                return round;
            }
        }
        panic!("still writing after ten rounds: {:?}", self.writes());
    }

    /// Like [`Self::settle`], but an error does not count as settled.
    pub(crate) async fn settle_through_errors(&self) {
        let ctx = self.start();
        for _ in 0..10 {
            self.api.take_calls();
            let is_ok = self.reconcile::<AuditBot>(&ctx).await.unwrap().is_ok();
            if is_ok && self.writes().is_empty() {
                return;
            }
        }
        panic!("does not settle");
    }

    /// Requests since the last call that change something.
    pub(crate) fn writes(&self) -> Vec<Call> {
        self.api.take_calls().into_iter().filter(Call::is_write).collect()
    }

    /// Says that the worker's pod is ready and that the worker has reported, as Kubernetes and the
    /// worker would.
    pub(crate) fn worker_is_ready<B: Kind>(&self) {
        let name = format!("{}-worker", B::NAME);
        self.api.edit("statefulsets", NAMESPACE, &name, |set| {
            let generation = set["metadata"]["generation"].clone();
            set["status"] = json!({"observedGeneration": generation, "replicas": 1, "readyReplicas": 1,
                "updatedReplicas": 1});
        });
    }

    /// The worker says that all is well, as the worker says it.
    pub(crate) async fn worker_reports<B: Kind>(&self) {
        let live: B = serde_json::from_value(self.api.get(B::PLURAL, NAMESPACE, B::NAME).unwrap()).unwrap();
        let conditions: Vec<Value> = types::OF_WORKER
            .iter()
            .map(|type_| {
                json!({"type": type_, "status": "True", "reason": "Fine", "message": "", "observedGeneration": 1,
                    "lastTransitionTime": "2026-01-01T00:00:00Z"})
            })
            .collect();
        let status = json!({"conditions": conditions});
        ems_bots::kube_util::apply_status(&self.api.client(), "ems-bots-worker", &live, &status)
            .await
            .unwrap();
    }

    /// Says that the worker's pod is not ready.
    pub(crate) fn worker_is_away<B: Kind>(&self) {
        let name = format!("{}-worker", B::NAME);
        self.api.edit("statefulsets", NAMESPACE, &name, |set| set["status"]["readyReplicas"] = 0.into());
    }

    /// `(status, reason, message)` of a condition.
    pub(crate) fn condition<B: Kind>(&self, type_: &str) -> (String, String, String) {
        let bot = self.api.get(B::PLURAL, NAMESPACE, B::NAME).expect("bot exists");
        let list = bot["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found =
            list.iter().find(|c| c["type"] == type_).unwrap_or_else(|| panic!("no {type_} in {list:?}"));
        let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
        (text("status"), text("reason"), text("message"))
    }

    /// Reasons of all Events.
    pub(crate) fn events(&self) -> Vec<String> {
        self.stored_events().iter().map(|event| event["reason"].as_str().unwrap().to_owned()).collect()
    }

    /// What the Events with this reason say.
    pub(crate) fn notes(&self, reason: &str) -> Vec<String> {
        let events = self.stored_events();
        let of_reason = events.iter().filter(|event| event["reason"] == reason);
        of_reason.map(|event| event["note"].as_str().unwrap().to_owned()).collect()
    }

    fn stored_events(&self) -> Vec<Value> {
        let names = self.api.names("events", NAMESPACE);
        names.iter().filter_map(|name| self.api.get("events", NAMESPACE, name)).collect()
    }

    pub(crate) fn user(localpart: &str) -> UserId {
        UserId::from_parts(&Localpart::parse(localpart).unwrap(), &ServerName::parse("example.org").unwrap())
    }

    /// Every value of every Secret that is a secret.
    pub(crate) fn secret_values(&self) -> Vec<String> {
        let mut values = Vec::new();
        for name in self.api.names("secrets", NAMESPACE) {
            let secret = self.api.get("secrets", NAMESPACE, &name).unwrap();
            for key in secret["data"].as_object().into_iter().flatten().map(|(key, _)| key) {
                if !["username", "user-id", "host", "port", "dbname"].contains(&key.as_str()) {
                    values.push(self.secret_text(&name, key));
                }
            }
        }
        values
    }
}
