//! Where the certificate of the intake comes from: files that somebody else renews, or a Secret of the console's own.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use k8s_openapi::{
    ByteString,
    api::{admissionregistration::v1::ValidatingWebhookConfiguration, core::v1::Secret},
};
use kube::{Api, Client, api::PostParams};
use secrecy::ExposeSecret as _;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    console::{
        certificate::{Kept, make, renew},
        metrics::Metrics,
        tls::Certificate,
    },
    domain::Clock,
    kube_util::{Error, apply::apply_part},
    operator::generated::text,
};

pub(super) const EVERY: Duration = Duration::from_secs(30);
/// The same after a failure, and after many of them.
const SOON: Duration = Duration::from_secs(2);
const SLOWEST: Duration = Duration::from_secs(20);
/// Secret of the console's own.
const SECRET: &str = "ems-bots-console-tls";
const FIELD_MANAGER: &str = "ems-bots-console";
/// Name of the webhook in its configuration.
const WEBHOOK: &str = "bots.ems.element.io";

/// Shows the certificate in these files, which it looks at this often, whenever they change, until cancelled.
pub async fn follow(
    folder: PathBuf,
    every: Duration,
    certificate: Certificate,
    ready: impl Fn() + Send + Sync,
    soft: CancellationToken,
) -> Result<(), std::convert::Infallible> {
    let mut shown = None;
    let mut ticks = tokio::time::interval(every);
    loop {
        tokio::select! {
            () = soft.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        let chain = tokio::fs::read(folder.join("tls.crt")).await.ok();
        let now = (chain, tokio::fs::read(folder.join("tls.key")).await.ok());
        if shown.as_ref() == Some(&now) {
            continue;
        }
        let (Some(chain), Some(key)) = &now else {
            tracing::warn!(folder = %folder.display(), "there is no certificate yet");
            continue;
        };
        match certificate.set(chain, key) {
            Ok(()) => {
                tracing::info!("shows another certificate");
                ready();
                shown = Some(now);
            }
            Err(error) => tracing::warn!(%error, "the certificate is not changed"),
        }
    }
}

/// A certificate of the console's own.
pub struct Own {
    /// The Kubernetes API.
    pub client: Client,
    /// When a certificate ends is judged by it.
    pub clock: Arc<dyn Clock>,
    /// Namespace of the console.
    pub namespace: String,
    /// Service by which the API server reaches it.
    pub service: String,
    /// Name of the webhook configuration.
    pub webhook: String,
    /// What is counted.
    pub metrics: Metrics,
}

impl std::fmt::Debug for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Own").field("webhook", &self.webhook).finish_non_exhaustive()
    }
}

/// What a replica has done so far.
#[derive(Debug, Default)]
pub struct Done {
    shown: Option<Kept>,
    /// The authorities of which the API server was told.
    told: Option<String>,
}

impl Own {
    /// Makes, renews and shows it until cancelled. Every replica does; the first one to write is right.
    pub(super) async fn keep(
        self,
        certificate: Certificate,
        ready: impl Fn() + Send + Sync,
        soft: CancellationToken,
    ) -> Result<(), std::convert::Infallible> {
        let mut done = Done::default();
        let mut delay = EVERY;
        loop {
            match self.look(&certificate, &mut done, &ready).await {
                Ok(()) => delay = EVERY,
                Err(error) => {
                    tracing::warn!(error = %format_args!("{error:#}"), "the intake's certificate");
                    delay = if delay == EVERY { SOON } else { (delay * 2).min(SLOWEST) };
                }
            }
            tokio::select! {
                () = soft.cancelled() => return Ok(()),
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    /// Shows what is kept, takes one step if something is to be renewed, and tells the API server whom to trust.
    pub async fn look(
        &self,
        certificate: &Certificate,
        done: &mut Done,
        ready: &(impl Fn() + Sync),
    ) -> anyhow::Result<()> {
        let (secret, mut kept) = self.kept().await?;
        self.show(&kept, certificate, done)?;
        // Audit events come also where there is no webhook, and one that is made later is told then.
        ready();
        if let Some(new) = self.renewed(secret, &kept, done).await? {
            self.show(&new, certificate, done)?;
            kept = new;
        }
        let told = self.tell(&kept).await;
        if told.as_ref().err().is_none_or(Error::is_not_found) {
            done.told = Some(kept.authorities);
        }
        told.map_err(|error| anyhow::anyhow!("{error}: {}", error.detail()))
    }

    fn show(&self, kept: &Kept, certificate: &Certificate, done: &mut Done) -> anyhow::Result<()> {
        if done.shown.as_ref() != Some(kept) {
            certificate.set(kept.certificate.as_bytes(), kept.key.as_bytes())?;
            self.metrics.certificate_ends(kept.ends.as_second());
            done.shown = Some(kept.clone());
        }
        Ok(())
    }

    /// What is kept, or made where nothing is kept yet.
    async fn kept(&self) -> anyhow::Result<(Secret, Kept)> {
        let found = self.secrets().get_opt(SECRET).await.context("Secret of the certificate")?;
        let found =
            found.with_context(|| format!("there is no Secret {SECRET}; helm upgrade makes it anew"))?;
        // The chart makes it without data, so that the right to make Secrets is not needed.
        if found.data.as_ref().is_none_or(BTreeMap::is_empty) {
            let new = make(&self.names(), self.clock.now())?;
            return Ok((self.write(found, &new).await?, new));
        }
        let kept = read(&found)
            .with_context(|| format!("Secret {SECRET} is not as it was made; take all data out of it"))?;
        Ok((found, kept))
    }

    /// What is kept from now on, if something was to be renewed. A second authority may be one that the API server does
    /// not know yet: nothing is renewed, and so signed by it, before a look at which that was told.
    async fn renewed(&self, secret: Secret, kept: &Kept, done: &Done) -> anyhow::Result<Option<Kept>> {
        if kept.has_two_authorities() && done.told.as_ref() != Some(&kept.authorities) {
            return Ok(None);
        }
        let Some(new) = renew(kept, &self.names(), self.clock.now())? else { return Ok(None) };
        self.write(secret, &new).await?;
        Ok(Some(new))
    }

    async fn write(&self, mut secret: Secret, kept: &Kept) -> anyhow::Result<Secret> {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        // What the chart says of it stays.
        secret.data = Some(data(kept));
        // A conflict: another replica was faster.
        let written =
            self.secrets().replace(SECRET, &params, &secret).await.context("keep the certificate")?;
        tracing::info!(secret = SECRET, "made a certificate");
        Ok(written)
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Tells the API server how to know the certificate.
    async fn tell(&self, kept: &Kept) -> Result<(), Error> {
        let bundle = ByteString(kept.authorities.clone().into_bytes());
        let part = json!({"webhooks": [{"name": WEBHOOK, "clientConfig": {"caBundle": bundle}}]});
        apply_part::<ValidatingWebhookConfiguration>(&self.client, FIELD_MANAGER, &self.webhook, &part)
            .await
            .map(drop)
    }

    fn names(&self) -> Vec<String> {
        let (service, namespace) = (&self.service, &self.namespace);
        vec![format!("{service}.{namespace}.svc"), format!("{service}.{namespace}.svc.cluster.local")]
    }
}

fn data(kept: &Kept) -> BTreeMap<String, ByteString> {
    let text = |text: &str| ByteString(text.as_bytes().to_vec());
    BTreeMap::from([
        ("ca.crt".to_owned(), text(&kept.authorities)),
        ("ca.key".to_owned(), text(&kept.authority_key)),
        ("ca-ends".to_owned(), text(&kept.authority_ends.to_string())),
        ("tls.crt".to_owned(), text(&kept.certificate)),
        ("tls.key".to_owned(), text(&kept.key)),
        ("ends".to_owned(), text(&kept.ends.to_string())),
    ])
}

fn read(secret: &Secret) -> Option<Kept> {
    // The reader of texts takes the line break at the end off, which PEM is put together with.
    let pem = |key: &str| text(secret, key).map(|text| format!("{}\n", text.expose_secret()));
    let time = |key: &str| text(secret, key)?.expose_secret().parse().ok();
    Some(Kept {
        authorities: pem("ca.crt")?,
        authority_key: pem("ca.key")?,
        authority_ends: time("ca-ends")?,
        certificate: pem("tls.crt")?,
        key: pem("tls.key")?,
        ends: time("ends")?,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    };

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::Value;

    use super::*;
    use crate::domain::SystemClock;

    fn own(client: Client) -> Own {
        Own {
            client,
            clock: Arc::new(SystemClock),
            namespace: "n".to_owned(),
            service: "console".to_owned(),
            webhook: "webhook".to_owned(),
            metrics: Metrics::new(&prometheus::Registry::new()).unwrap(),
        }
    }

    #[tokio::test]
    async fn it_is_shown_also_while_there_is_no_webhook_to_tell() {
        let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let names = own(Client::new(tower::service_fn(never), "n")).names();
        let kept = make(&names, SystemClock.now()).unwrap();
        let stored = serde_json::to_vec(&Secret { data: Some(data(&kept)), ..Secret::default() }).unwrap();
        let service = tower::service_fn(move |request: Request<Body>| {
            let is_kept = request.uri().path().ends_with(SECRET);
            let gone = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "code": 404, "reason": "NotFound", "message": "gone"});
            let (code, body) = if is_kept { (200, stored.clone()) } else { (404, gone.to_string().into()) };
            async move {
                Ok::<_, std::io::Error>(Response::builder().status(code).body(Body::from(body)).unwrap())
            }
        });
        let own = own(Client::new(service, "n"));
        let (certificate, mut done, is_ready) =
            (Certificate::default(), Done::default(), AtomicBool::new(false));
        let ready = || is_ready.store(true, Ordering::Relaxed);
        let told = own.look(&certificate, &mut done, &ready).await;
        assert!(told.unwrap_err().to_string().contains("ValidatingWebhookConfiguration webhook"));
        assert!(is_ready.load(Ordering::Relaxed), "audit events come without it too");
        assert_eq!(done.shown.as_ref(), Some(&kept));
    }

    #[tokio::test]
    async fn the_empty_secret_of_the_chart_is_filled_and_stays_that_of_the_chart() {
        let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let written: Arc<Mutex<Option<Value>>> = Arc::default();
        let (puts, is_there) = (written.clone(), Arc::new(AtomicBool::new(true)));
        let shown = is_there.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let (puts, is_there) = (puts.clone(), shown.load(Ordering::Relaxed));
            async move {
                let is_put = request.method() == http::Method::PUT;
                let body = request.into_body().collect_bytes().await.unwrap();
                if is_put {
                    *puts.lock().unwrap() = Some(serde_json::from_slice(&body).unwrap());
                }
                let empty = json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": {
                    "name": SECRET, "namespace": "n", "resourceVersion": "7",
                    "annotations": {"meta.helm.sh/release-name": "ems-bots"}}});
                let gone = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "code": 404, "reason": "NotFound", "message": "gone"});
                let (code, body) = if is_there { (200, empty) } else { (404, gone) };
                let body = Body::from(body.to_string().into_bytes());
                Ok::<_, std::io::Error>(Response::builder().status(code).body(body).unwrap())
            }
        });
        let own = own(Client::new(service, "n"));
        let (_, kept) = own.kept().await.unwrap();
        let filled = written.lock().unwrap().take().unwrap();
        assert_eq!(filled["metadata"]["annotations"]["meta.helm.sh/release-name"], "ems-bots");
        assert_eq!(filled["metadata"]["resourceVersion"], "7", "two replicas make one certificate");
        assert_eq!(filled["type"], "Opaque", "it cannot be changed");
        let filled: Secret = serde_json::from_value(filled).unwrap();
        assert_eq!(read(&filled).as_ref(), Some(&kept));
        is_there.store(false, Ordering::Relaxed);
        let error = own.kept().await.unwrap_err().to_string();
        assert!(error.contains("helm upgrade"), "{error}");
        assert!(written.lock().unwrap().is_none(), "it has no right to make one");
    }

    async fn never(_: Request<Body>) -> Result<Response<Body>, std::io::Error> {
        std::future::pending().await
    }

    #[test]
    fn what_is_kept_is_read_again() {
        let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let own = make(&["a.b.svc".to_owned()], SystemClock.now()).unwrap();
        let secret = Secret { data: Some(data(&own)), ..Secret::default() };
        assert_eq!(read(&secret).as_ref(), Some(&own));
        assert_eq!(read(&Secret::default()), None);
    }
}
