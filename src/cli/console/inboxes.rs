//! The inboxes of the tenants' trails, found by the Secret that the operator makes for each.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use secrecy::ExposeSecret as _;

use crate::{
    console::ports::{Inbox, Inboxes, NotTaken},
    domain::{BotName, Failure as _},
    kube_util::Error,
    operator::{generated::text, names::Names},
    store::pg::{Endpoint, EndpointParts, Role, SchemaName, inbox::PgInbox, role_name},
};

/// The writer of every message: the number of a message follows from its record, so replicas need no names of
/// their own.
const WRITER: &str = "ems-bots/console";

/// Connections, and the UID of the Secret that they are made of. It is never changed but made anew, so that this tells
/// whether they still lead to the right database.
type Open = BTreeMap<BotName, (String, Arc<OpenInbox>)>;

/// The inboxes that the Secrets in the tenants' namespaces lead to.
pub struct KubeInboxes {
    client: Client,
    open: Mutex<Open>,
}

impl KubeInboxes {
    /// Of this cluster.
    pub fn new(client: Client) -> Self {
        Self { client, open: Mutex::default() }
    }

    fn with_open<T>(&self, act: impl FnOnce(&mut Open) -> T) -> T {
        act(&mut self.open.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn open(&self, bot: &BotName, secret: &Secret) -> Result<Arc<OpenInbox>, NotTaken> {
        let uid = secret.metadata.uid.clone().unwrap_or_default();
        let known = self.with_open(|open| open.get(bot).filter(|(of, _)| *of == uid).cloned());
        if let Some((_, inbox)) = known {
            return Ok(inbox);
        }
        let opened = inbox(secret).map(|inbox| Arc::new(OpenInbox(inbox)));
        self.with_open(|open| match &opened {
            Ok(inbox) => open.insert(bot.clone(), (uid, inbox.clone())),
            Err(_) => open.remove(bot),
        });
        opened
    }
}

#[async_trait]
impl Inboxes for KubeInboxes {
    async fn find(&self, bot: &BotName) -> Result<Arc<dyn Inbox>, NotTaken> {
        let name = Names::new(bot.kind, &bot.name, "").inbox();
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &bot.namespace);
        let failed = |error| NotTaken(Error::new("get", format!("Secret {name}"), error).detail());
        let Some(secret) = secrets.get_opt(&name).await.map_err(failed)? else {
            self.with_open(|open| open.remove(bot));
            return Err(NotTaken(format!("there is no Secret {name}")));
        };
        Ok(self.open(bot, &secret)?)
    }

    fn keep_only(&self, bots: &[BotName]) {
        self.with_open(|open| open.retain(|bot, _| bots.contains(bot)));
    }
}

struct OpenInbox(PgInbox);

#[async_trait]
impl Inbox for OpenInbox {
    async fn put(&self, counter: i64, body: &[u8]) -> Result<(), NotTaken> {
        let put = self.0.put_encoded(counter, body).await;
        put.map_err(|error| NotTaken(format!("{}: {error}", error.category())))
    }
}

fn inbox(secret: &Secret) -> Result<PgInbox, NotTaken> {
    let need = |key: &str| text(secret, key).ok_or_else(|| NotTaken(format!("its Secret has no key {key}")));
    let plain = |key: &str| need(key).map(|value| value.expose_secret().to_owned());
    let schema = SchemaName::parse(&plain("schema")?).map_err(|error| NotTaken(error.to_string()))?;
    let dbname = plain("dbname")?;
    let password = need("password")?;
    let parts = EndpointParts {
        host: plain("host")?,
        port: plain("port")?.parse().map_err(|_| NotTaken("port is not a number".to_owned()))?,
        user: role_name(&schema, &dbname, Role::Inbox),
        dbname,
        password: password.clone(),
        ca_pem: text(secret, "ca.crt").map(|pem| pem.expose_secret().to_owned()),
        ssl_mode: None,
        schema,
        application_name: WRITER.to_owned(),
    };
    let endpoint = Endpoint::from_parts(parts).map_err(|error| NotTaken(error.to_string()))?;
    Ok(PgInbox::new(&endpoint, WRITER, password))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn what_its_secret_lacks_is_named_and_nothing_in_it_is() {
        let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let complete = [
            ("host", "db"),
            ("port", "5432"),
            ("dbname", "d"),
            ("schema", "auditbot"),
            ("password", "geheim"),
        ];
        let secret = |without: &str| {
            let data = complete.iter().filter(|(key, _)| *key != without);
            let data = data.map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
            Secret { data: Some(data.collect()), ..Secret::default() }
        };
        for (key, _) in complete {
            let problem = inbox(&secret(key)).unwrap_err().to_string();
            assert!(problem.contains(key) && !problem.contains("geheim"), "{problem}");
        }
        let mut odd = secret("port");
        odd.data.as_mut().unwrap().insert("port".to_owned(), ByteString(b"many".to_vec()));
        assert!(inbox(&odd).is_err());
    }
}
