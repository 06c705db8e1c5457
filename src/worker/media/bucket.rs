//! An S3-compatible bucket for the content of attachments.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::StreamExt as _;
use object_store::{
    ClientOptions, Error, ObjectStore, PutOptions, PutPayload, RetryConfig,
    aws::AmazonS3Builder,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
        HttpService,
    },
    path::Path,
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::timeout;

use crate::{domain::worker::bucket_place, store::MediaHash};

/// For one object, however large.
const DEADLINE: Duration = Duration::from_mins(5);
/// So many bytes of what a service says of an error are read: it says it in a few hundred.
const LONGEST_ERROR: usize = 16 * 1024;
/// And for so long, after its status.
const LONGEST_EXPLANATION: Duration = Duration::from_secs(10);

/// Which bucket, and the keys for it.
#[derive(Debug, Clone)]
pub struct BucketSettings {
    /// URL of the service.
    pub endpoint: String,
    /// Name of the bucket.
    pub name: String,
    /// Region that requests are signed for.
    pub region: String,
    /// What the names of objects begin with.
    pub prefix: Option<String>,
    /// Access key id.
    pub access_key_id: SecretString,
    /// Secret access key.
    pub secret_access_key: SecretString,
    /// Additional CA certificates, PEM.
    pub ca: Option<Vec<u8>>,
}

/// Settings with which no bucket can be used.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// The CA certificates cannot be read, or the TLS library refuses them.
    #[error("CA certificates of the bucket cannot be used")]
    Tls,
    /// The endpoint is none, or the keys are empty.
    #[error("bucket cannot be used with its endpoint, name and keys")]
    Settings,
}

/// The bucket, asked with a client that follows no redirect and reads no variable of the environment.
#[derive(Debug, Clone)]
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: String,
    place: String,
}

/// Why a content is not in the bucket, as a sentence for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotPut {
    /// Others may pass.
    This(&'static str),
    /// Others would fail as well.
    Any(&'static str),
}

const REFUSES_KEYS: &str = "the bucket refuses its keys";
const REFUSES_CONTENT: &str = "the bucket refuses this content";
const FAILS: &str = "the bucket is not reachable or fails";
const TAKES_TOO_LONG: &str = "the bucket takes too long";

/// What an answer says that the library would not tell from others.
#[derive(Debug, thiserror::Error)]
#[error("refused")]
struct Refused(NotPut);

/// Codes with which a service answers 400 whatever the object is.
const OF_THE_BUCKET: [&str; 6] = [
    "AuthorizationHeaderMalformed",
    "ExpiredToken",
    "IllegalLocationConstraintException",
    "InvalidBucketName",
    "InvalidRequest",
    "InvalidToken",
];

type Cause<'a> = &'a (dyn std::error::Error + 'static);

#[derive(Debug, Clone)]
struct Connector(reqwest::Client);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

/// As much of what a service says of an error as may be of use, and as it says soon.
async fn beginning(body: HttpResponseBody) -> Vec<u8> {
    let (mut chunks, mut beginning) = (body.bytes_stream(), Vec::new());
    let reading = async {
        while beginning.len() < LONGEST_ERROR
            && let Some(Ok(chunk)) = chunks.next().await
        {
            beginning.extend_from_slice(&chunk);
        }
    };
    if timeout(LONGEST_EXPLANATION, reading).await.is_err() {
        tracing::debug!("a bucket does not finish what it says of an error");
    }
    beginning.truncate(LONGEST_ERROR);
    beginning
}

#[async_trait]
impl HttpService for Connector {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.0.call(request).await?;
        if !response.status().is_client_error() && !response.status().is_server_error() {
            return Ok(response);
        }
        let (head, body) = response.into_parts();
        let refused = match head.status.as_u16() {
            408 => NotPut::This(TAKES_TOO_LONG),
            411 | 413 | 414 | 422 => NotPut::This(REFUSES_CONTENT),
            400 => {
                let body = beginning(body).await;
                let body = String::from_utf8_lossy(&body);
                let is_of_all = OF_THE_BUCKET.iter().any(|code| body.contains(code));
                if is_of_all { NotPut::Any(REFUSES_KEYS) } else { NotPut::This(REFUSES_CONTENT) }
            }
            _ => return Ok(HttpResponse::from_parts(head, beginning(body).await.into())),
        };
        Err(HttpError::new(HttpErrorKind::Unknown, Refused(refused)))
    }
}

impl Bucket {
    /// Prepares it; nothing is sent yet.
    pub fn new(settings: &BucketSettings) -> Result<Self, BucketError> {
        let store = AmazonS3Builder::new()
            .with_endpoint(settings.endpoint.trim_end_matches('/'))
            .with_bucket_name(&settings.name)
            .with_region(&settings.region)
            .with_access_key_id(settings.access_key_id.expose_secret())
            .with_secret_access_key(settings.secret_access_key.expose_secret())
            .with_virtual_hosted_style_request(false)
            .with_allow_http(true)
            // What fails is tried again by whoever asked, with the attachment in the queue meanwhile.
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .with_http_connector(Connector(client(settings)?))
            .build()
            .map_err(|_| BucketError::Settings)?;
        let place = bucket_place(&settings.endpoint, &settings.name, settings.prefix.as_deref());
        let prefix = settings.prefix.clone().unwrap_or_default();
        Ok(Self { store: Arc::new(store), prefix, place })
    }

    /// Which bucket it is, for the rows that say where a content is.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Keeps a content under its hash; the same content again changes nothing.
    pub(super) async fn keep(&self, sha256: &MediaHash, content: Vec<u8>) -> Result<(), NotPut> {
        let name = Path::from(format!("{}/{}", self.prefix, hex::encode(sha256)));
        let put = self.store.put_opts(&name, PutPayload::from(content), PutOptions::default());
        match tokio::time::timeout(DEADLINE, put).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(describe(&error)),
            Err(_) => Err(NotPut::This(TAKES_TOO_LONG)),
        }
    }
}

/// What to look at. The library's own words hold the URL, and what the service answered.
fn describe(error: &Error) -> NotPut {
    match error {
        Error::NotFound { .. } => NotPut::Any("the bucket does not exist"),
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => NotPut::Any(REFUSES_KEYS),
        other => causes(other).find_map(on_the_way).unwrap_or(NotPut::Any(FAILS)),
    }
}

/// An error, what caused it, and so on.
fn causes(error: Cause<'_>) -> impl Iterator<Item = Cause<'_>> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// What an error of the exchange says, if it is one.
fn on_the_way(error: Cause<'_>) -> Option<NotPut> {
    let error = error.downcast_ref::<HttpError>()?;
    let refused = causes(error).find_map(|cause| cause.downcast_ref::<Refused>());
    let client = causes(error).find_map(|cause| cause.downcast_ref::<reqwest::Error>());
    // A connection that is not made in time counts as a timeout to the library.
    if client.is_some_and(reqwest::Error::is_connect) {
        return Some(NotPut::Any(FAILS));
    }
    Some(match (refused, error.kind()) {
        (Some(Refused(refused)), _) => *refused,
        (None, HttpErrorKind::Connect) => NotPut::Any(FAILS),
        (None, HttpErrorKind::Timeout) => NotPut::This(TAKES_TOO_LONG),
        // Proxies break off what is too large for them.
        (None, _) => NotPut::This("the bucket breaks off before it has this content"),
    })
}

fn client(settings: &BucketSettings) -> Result<reqwest::Client, BucketError> {
    // Harmless when main has done it already; without it a library user or a test would panic.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let certificates = match &settings.ca {
        None => Vec::new(),
        Some(pem) => reqwest::Certificate::from_pem_bundle(pem).map_err(|_| BucketError::Tls)?,
    };
    let builder = reqwest::Client::builder()
        .user_agent(concat!("ems-bots/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .connect_timeout(Duration::from_secs(10));
    // A minimal image has no system certificates, and plain HTTP needs none.
    let builder = if settings.endpoint.starts_with("http://") {
        builder.tls_certs_only(certificates)
    } else {
        builder.tls_certs_merge(certificates)
    };
    builder.build().map_err(|_| BucketError::Tls)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn settings() -> BucketSettings {
        BucketSettings {
            endpoint: "http://127.0.0.1:9/".to_owned(),
            name: "attachments".to_owned(),
            region: "us-east-1".to_owned(),
            prefix: Some("audit/example.org".to_owned()),
            access_key_id: "the-id".into(),
            secret_access_key: "the-secret".into(),
            ca: None,
        }
    }

    #[test]
    fn a_bucket_is_named_by_where_it_is_and_shows_no_key() {
        let bucket = Bucket::new(&settings()).unwrap();
        assert_eq!(bucket.place(), "http://127.0.0.1:9/attachments/audit/example.org");
        assert!(!format!("{:?}", settings()).contains("the-secret"));
        let without = Bucket::new(&BucketSettings { prefix: None, ..settings() }).unwrap();
        assert_eq!(without.place(), "http://127.0.0.1:9/attachments");
    }

    #[test]
    fn certificates_that_are_none_are_refused() {
        let broken = BucketSettings { ca: Some(b"-----BEGIN CERTIFICATE-----\nx".to_vec()), ..settings() };
        assert!(matches!(Bucket::new(&broken), Err(BucketError::Tls)));
    }

    #[test]
    fn what_is_wrong_with_a_bucket_is_told_apart() {
        let (path, source) = (String::new, || "<Error>the-secret</Error>".into());
        let told = [
            describe(&Error::NotFound { path: path(), source: source() }),
            describe(&Error::PermissionDenied { path: path(), source: source() }),
            describe(&Error::Unauthenticated { path: path(), source: source() }),
            describe(&Error::Generic { store: "S3", source: source() }),
        ];
        let missing = "the bucket does not exist";
        assert_eq!(told, [missing, REFUSES_KEYS, REFUSES_KEYS, FAILS].map(NotPut::Any));
    }

    /// What is told of a server that answers so.
    async fn told_of(status: &str, body: &str) -> NotPut {
        told_of_announced(status, body, body.len()).await
    }

    /// And says that it will say more, which does not come.
    async fn told_of_announced(status: &str, body: &str, length: usize) -> NotPut {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let answer =
            format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
        let server = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            // The content of the test is what the request ends with.
            while !seen.ends_with(b"the content") {
                assert!(socket.read_buf(&mut seen).await.unwrap() > 0);
            }
            socket.write_all(answer.as_bytes()).await.unwrap();
            // What it has not said it goes on to say until nobody listens.
            while socket.read_buf(&mut seen).await.unwrap_or(0) > 0 {}
        });
        let bucket = Bucket::new(&BucketSettings { endpoint, ..settings() }).unwrap();
        let told = bucket.keep(&[7; 32], b"the content".to_vec()).await.unwrap_err();
        server.await.unwrap();
        told
    }

    #[tokio::test]
    async fn what_concerns_one_object_is_no_outage() {
        let malformed = "<Error><Code>AuthorizationHeaderMalformed</Code></Error>";
        for (status, body, expected) in [
            ("413 Payload Too Large", "<html>", NotPut::This(REFUSES_CONTENT)),
            ("400 Bad Request", "<Code>EntityTooLarge</Code>", NotPut::This(REFUSES_CONTENT)),
            ("408 Request Timeout", "", NotPut::This(TAKES_TOO_LONG)),
            ("400 Bad Request", malformed, NotPut::Any(REFUSES_KEYS)),
            ("403 Forbidden", "<Code>AccessDenied</Code>", NotPut::Any(REFUSES_KEYS)),
            ("404 Not Found", "<Code>NoSuchBucket</Code>", NotPut::Any("the bucket does not exist")),
            ("503 Slow Down", "<Code>SlowDown</Code>", NotPut::Any(FAILS)),
        ] {
            assert_eq!(told_of(status, body).await, expected, "{status} {body}");
        }
    }

    #[tokio::test]
    async fn of_an_error_without_end_the_beginning_is_read() {
        let body = format!("<Code>InvalidToken</Code>{}", " ".repeat(LONGEST_ERROR));
        for (status, expected) in [("400 Bad Request", REFUSES_KEYS), ("503 Slow Down", FAILS)] {
            let told = told_of_announced(status, &body, usize::MAX / 2);
            assert_eq!(timeout(Duration::from_secs(20), told).await, Ok(NotPut::Any(expected)));
        }
    }

    #[tokio::test]
    async fn a_bucket_that_is_down_is_told_without_its_keys() {
        let bucket = Bucket::new(&settings()).unwrap();
        let error = bucket.keep(&[7; 32], b"x".to_vec()).await.unwrap_err();
        assert_eq!(error, NotPut::Any(FAILS));
    }
}
