//! A tenant: a namespace that opted in, with the Secrets that its bots need.

use std::{collections::BTreeMap, process::Command, time::Duration};

use k8s_openapi::api::core::v1::{Event, Namespace, Pod, Secret};
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, ListParams, LogParams, Patch, PatchParams, PostParams},
    discovery::ApiResource,
};
use serde_json::{Value, json};

use super::{Database, Synapse, eventually, services::dev};

/// A namespace of this test's own.
pub struct Tenant {
    pub namespace: String,
    pub client: Client,
}

/// The operator's `ServiceAccount`.
pub const OPERATOR: &str = "ems-bots-operator";

/// The namespace in which the operator runs.
pub fn system_namespace() -> String {
    std::env::var("EMS_TEST_SYSTEM_NAMESPACE").unwrap_or_else(|_| "ems-bots-system".to_owned())
}

impl Tenant {
    /// Makes the namespace; with the RoleBinding that lets the operator work there if `opted_in`.
    pub async fn create(namespace: &str, opted_in: bool) -> Self {
        super::init();
        let client = Client::try_default().await.expect("KUBECONFIG leads to a cluster");
        let tenant = Self { namespace: namespace.to_owned(), client };
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace,
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
        tenant.apply(&object).await;
        if opted_in {
            tenant.opt_in().await;
        }
        tenant
    }

    /// Lets the operator work in the namespace, as examples/tenant does it.
    pub async fn opt_in(&self) {
        self.apply(&json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "ems-bots-tenant", "namespace": self.namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "ems-bots-tenant"},
            "subjects": [{"kind": "ServiceAccount", "name": OPERATOR, "namespace": system_namespace()}]}))
            .await;
    }

    /// The two Secrets under their default names, and the homeserver's names in the cluster's DNS.
    pub async fn give_secrets(&self, synapse: &Synapse, database: &Database) {
        for name in &synapse.pod_names {
            dev(&["cluster", "host", name], None);
        }
        self.secret(
            "ems-bots-homeserver",
            &json!({"registration-shared-secret": synapse.registration_shared_secret}),
            &json!({"ems.element.io/homeserver": synapse.pod_url}),
        )
        .await;
        self.secret("ems-bots-database", &database.secret, &json!({})).await;
    }

    pub async fn secret(&self, name: &str, data: &Value, annotations: &Value) {
        self.apply(&json!({"apiVersion": "v1", "kind": "Secret", "stringData": data,
            "metadata": {"name": name, "namespace": self.namespace, "annotations": annotations}}))
            .await;
    }

    /// A minimal bot; `more` is merged into its spec.
    pub async fn bot(&self, kind: &str, name: &str, synapse: &Synapse, more: Value) {
        let mut spec = json!({"homeserver": {"serverName": synapse.server_name, "url": synapse.pod_url,
            "publicURL": synapse.pod_public_url, "plan": "Gold"}});
        merge(&mut spec, more);
        self.apply(&json!({"apiVersion": "ems.element.io/v1alpha1", "kind": kind,
            "metadata": {"name": name, "namespace": self.namespace}, "spec": spec}))
            .await;
    }

    pub async fn apply(&self, object: &Value) -> DynamicObject {
        self.try_apply(object).await.unwrap_or_else(|error| panic!("apply {object}: {error}"))
    }

    pub async fn try_apply(&self, object: &Value) -> kube::Result<DynamicObject> {
        let object: DynamicObject = serde_json::from_value(object.clone()).unwrap();
        let name = object.metadata.name.clone().unwrap();
        let parameters = PatchParams::apply("ems-bots-e2e").force();
        self.api_of(&object).patch(&name, &parameters, &Patch::Apply(&object)).await
    }

    pub fn api_of(&self, object: &DynamicObject) -> Api<DynamicObject> {
        let types = object.types.as_ref().unwrap();
        let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
        let gvk = kube::core::GroupVersionKind::gvk(group, version, &types.kind);
        let resource = ApiResource::from_gvk(&gvk);
        match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    /// Api of one of our two kinds.
    pub fn bots(&self, kind: &str) -> Api<DynamicObject> {
        let gvk = kube::core::GroupVersionKind::gvk("ems.element.io", "v1alpha1", kind);
        Api::namespaced_with(self.client.clone(), &self.namespace, &ApiResource::from_gvk(&gvk))
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// `(status, reason, message)` of a condition.
    pub async fn condition(
        &self,
        kind: &str,
        name: &str,
        condition: &str,
    ) -> Option<(String, String, String)> {
        let object = self.bots(kind).get_opt(name).await.unwrap()?;
        let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        object.data["status"]["conditions"]
            .as_array()?
            .iter()
            .find(|one| one["type"] == condition)
            .map(|one| (text(one, "status"), text(one, "reason"), text(one, "message")))
    }

    /// Waits for a condition's status and, unless empty, its reason; returns its message. Dumps
    /// everything there is to know if it does not come.
    pub async fn wait_condition(
        &self,
        kind: &str,
        name: &str,
        condition: &str,
        status: &str,
        reason: &str,
    ) -> String {
        let deadline = std::time::Instant::now() + Duration::from_mins(3);
        loop {
            let seen = self.condition(kind, name, condition).await;
            if let Some((found, why, message)) = &seen
                && found == status
                && (reason.is_empty() || why == reason)
            {
                return message.clone();
            }
            if std::time::Instant::now() > deadline {
                self.dump().await;
                panic!("{kind} {}/{name}: {condition} is {seen:?}, not {status} {reason}", self.namespace);
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    pub async fn wait_ready(&self, kind: &str, name: &str) {
        self.wait_condition(kind, name, "Ready", "True", "").await;
    }

    pub async fn status(&self, kind: &str, name: &str) -> Value {
        self.bots(kind).get(name).await.unwrap().data["status"].clone()
    }

    /// Decoded data of a Secret.
    pub async fn secret_data(&self, name: &str) -> Option<BTreeMap<String, String>> {
        let secret = self.api::<Secret>().get_opt(name).await.unwrap()?;
        let text = |value: k8s_openapi::ByteString| String::from_utf8(value.0).unwrap();
        Some(secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, text(value))).collect())
    }

    /// Deletes a bot and waits until it is gone.
    pub async fn delete_bot(&self, kind: &str, name: &str) {
        let bots = self.bots(kind);
        bots.delete(name, &DeleteParams::default()).await.unwrap();
        eventually(&format!("deletion of {kind} {name}"), Duration::from_mins(2), || async {
            match bots.get_opt(name).await.unwrap() {
                None => Ok(()),
                Some(object) => Err(format!("{}", object.data["status"]["conditions"])),
            }
        })
        .await;
    }

    /// Runs `kubectl` and returns whether it succeeded, with all its output.
    pub fn kubectl(&self, arguments: &[&str]) -> (bool, String) {
        kubectl_in(&self.namespace, arguments)
    }

    /// Everything that explains a failure, on standard output.
    pub async fn dump(&self) {
        let (_, text) =
            self.kubectl(&["get", "adminbots,auditbots,pods,statefulsets,pvc,secrets", "-o", "wide"]);
        println!("--- namespace {}\n{text}", self.namespace);
        for kind in ["AdminBot", "AuditBot"] {
            if let Ok(list) = self.bots(kind).list(&ListParams::default()).await {
                for bot in list {
                    println!("--- {kind} {:?}\n{:#}", bot.metadata.name, bot.data["status"]);
                }
            }
        }
        for event in
            self.api::<Event>().list(&ListParams::default()).await.map(|l| l.items).unwrap_or_default()
        {
            println!("event {:?} {:?}: {:?}", event.involved_object.name, event.reason, event.message);
        }
        self.dump_logs(&self.namespace.clone()).await;
        self.dump_logs(&system_namespace()).await;
    }

    async fn dump_logs(&self, namespace: &str) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        for pod in pods.list(&ListParams::default()).await.map(|l| l.items).unwrap_or_default() {
            let name = pod.metadata.name.unwrap();
            for container in pod.spec.unwrap().init_containers.unwrap_or_default().iter().map(|c| &c.name) {
                let wanted = LogParams {
                    container: Some(container.clone()),
                    tail_lines: Some(30),
                    ..LogParams::default()
                };
                println!(
                    "--- logs {namespace}/{name} {container}\n{}",
                    pods.logs(&name, &wanted).await.unwrap_or_default()
                );
            }
            let wanted = LogParams { tail_lines: Some(60), ..LogParams::default() };
            println!("--- logs {namespace}/{name}\n{}", pods.logs(&name, &wanted).await.unwrap_or_default());
        }
    }

    /// Removes the namespace with all its bots; a failed test leaves it for you to look at.
    pub async fn remove(self) {
        for kind in ["AdminBot", "AuditBot"] {
            for bot in self.bots(kind).list(&ListParams::default()).await.unwrap() {
                let name = bot.metadata.name.unwrap();
                self.kubectl(&[
                    "annotate",
                    kind,
                    &name,
                    "ems.element.io/abandon-cleanup=true",
                    "--overwrite",
                ]);
                self.delete_bot(kind, &name).await;
            }
        }
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces.delete(&self.namespace, &DeleteParams::background()).await.unwrap();
    }

    /// Deletes the namespace with everything in it, as `kubectl delete namespace` does, and waits
    /// until it is gone.
    pub async fn delete_namespace(&self) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces.delete(&self.namespace, &DeleteParams::default()).await.unwrap();
        eventually("the end of the namespace", Duration::from_mins(3), || async {
            match namespaces.get_opt(&self.namespace).await.unwrap() {
                None => Ok(()),
                Some(left) => Err(serde_json::to_string(&left.status).unwrap()),
            }
        })
        .await;
    }

    /// A token of a ServiceAccount, and a client that has nothing else.
    pub async fn client_as(&self, namespace: &str, service_account: &str) -> Client {
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
            Api::namespaced(self.client.clone(), namespace);
        let request =
            serde_json::from_value(json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "metadata": {}, "spec": {"audiences": [], "expirationSeconds": 600}}))
            .unwrap();
        let token = accounts
            .create_token_request(service_account, &PostParams::default(), &request)
            .await
            .unwrap_or_else(|error| panic!("token of {namespace}/{service_account}: {error}"));
        let mut config = kube::Config::infer().await.unwrap();
        config.auth_info =
            kube::config::AuthInfo { token: Some(token.status.unwrap().token.into()), ..Default::default() };
        Client::try_from(config).unwrap()
    }
}

/// Merges JSON objects recursively; other values replace.
pub fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// `kubectl` in a namespace: whether it succeeded, and what it said.
pub fn kubectl_in(namespace: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new("kubectl").args(["-n", namespace]).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.success(), text.concat())
}
