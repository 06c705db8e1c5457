//! One request and its answer: addresses, limits of time and size, and no secret in any error.

use std::time::Duration;

use reqwest::{Method, header::CONTENT_TYPE};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::Url;

use super::{
    Settings, SettingsError,
    answer::{self, Answer},
};
use crate::{
    domain::Clock,
    homeserver::{HomeserverError, Result},
};

/// Answers are small, except lists of rooms and the state of big rooms.
const SMALL: usize = 1 << 20;
const LARGE: usize = 128 << 20;

enum Body {
    Json(Value),
    Png(&'static [u8]),
}

/// A request before it is sent.
pub(super) struct Call<'a> {
    /// What is asked, for errors.
    pub what: &'static str,
    /// The object asked about, for errors.
    pub subject: String,
    method: Method,
    path: Vec<&'a str>,
    query: Vec<(&'static str, String)>,
    body: Option<Body>,
    token: Option<&'a SecretString>,
    secrets: Vec<&'a SecretString>,
    limit: usize,
    timeout: Option<Duration>,
}

impl<'a> Call<'a> {
    /// A call of `method` to `root` (fixed text with slashes) followed by `segments`, each of which
    /// is encoded whatever it contains.
    pub(super) fn new(method: Method, what: &'static str, root: &'a str, segments: &[&'a str]) -> Self {
        let path = root.split('/').filter(|part| !part.is_empty()).chain(segments.iter().copied());
        Self {
            what,
            subject: what.to_owned(),
            method,
            path: path.collect(),
            query: Vec::new(),
            body: None,
            token: None,
            secrets: Vec::new(),
            limit: SMALL,
            timeout: None,
        }
    }

    /// Names the object that is asked about.
    pub(super) fn about(mut self, subject: impl Into<String>) -> Self {
        self.subject = subject.into();
        self
    }

    /// Adds a segment to the path.
    pub(super) fn then(mut self, segment: &'a str) -> Self {
        self.path.push(segment);
        self
    }

    pub(super) fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    pub(super) fn body(mut self, body: Value) -> Self {
        self.body = Some(Body::Json(body));
        self
    }

    pub(super) fn png(mut self, png: &'static [u8]) -> Self {
        self.body = Some(Body::Png(png));
        self
    }

    pub(super) fn token(mut self, token: &'a SecretString) -> Self {
        self.token = Some(token);
        self
    }

    /// A secret in the body, which no error may repeat even if the other side does.
    pub(super) fn hiding(mut self, secret: &'a SecretString) -> Self {
        self.secrets.push(secret);
        self
    }

    /// The answer may be large and slow.
    pub(super) fn large(mut self) -> Self {
        self.limit = LARGE;
        self.slow()
    }

    /// The homeserver works on it for long.
    pub(super) fn slow(mut self) -> Self {
        self.timeout = Some(Duration::from_mins(2));
        self
    }
}

/// The connection pool and address of one homeserver.
pub(super) struct Http {
    client: reqwest::Client,
    base: Url,
    host: String,
    timeout: Duration,
    clock: std::sync::Arc<dyn Clock>,
}

impl Http {
    pub(super) fn new(
        client: reqwest::Client,
        settings: &Settings,
    ) -> std::result::Result<Self, SettingsError> {
        let mut base = settings.url.clone();
        let usable = matches!(base.scheme(), "http" | "https")
            && base.username().is_empty()
            && base.password().is_none();
        let host = base.host_str().filter(|_| usable).ok_or(SettingsError::Url)?;
        let host = match base.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        base.set_query(None);
        base.set_fragment(None);
        Ok(Self { client, base, host, timeout: settings.timeout, clock: settings.clock.clone() })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Milliseconds since 1970.
    pub(super) fn now_ms(&self) -> i64 {
        self.clock.now().as_millisecond()
    }

    /// Sends a call; the answer to any 2xx is its JSON.
    pub(super) async fn send(&self, call: Call<'_>) -> Result<Answer> {
        let (status, retry_after, body) = self.exchange(&call).await?;
        self.interpret(&call, answer::Received { status, retry_after, body: &body })
    }

    /// Sends a call; the answer to any 2xx is its text, byte by byte.
    pub(super) async fn send_for_text(&self, call: Call<'_>) -> Result<Vec<u8>> {
        let (status, retry_after, body) = self.exchange(&call).await?;
        if !(200..300).contains(&status) {
            self.interpret(&call, answer::Received { status, retry_after, body: &body })?;
        }
        Ok(body)
    }

    fn interpret(&self, call: &Call<'_>, received: answer::Received<'_>) -> Result<Answer> {
        let question = answer::Question {
            what: call.what,
            subject: &call.subject,
            host: &self.host,
            had_token: call.token.is_some(),
        };
        let secrets = call.secrets.iter().copied().chain(call.token);
        answer::interpret(&question, received).map_err(|error| answer::scrub(error, secrets))
    }

    /// Status, how long to wait, and body.
    async fn exchange(&self, call: &Call<'_>) -> Result<(u16, Option<Duration>, Vec<u8>)> {
        let url = self.address(call)?;
        let limit = call.timeout.map_or(self.timeout, |long| long.max(self.timeout));
        let mut request = self.client.request(call.method.clone(), url);
        if let Some(token) = call.token {
            request = request.bearer_auth(token.expose_secret());
        }
        request = match &call.body {
            Some(Body::Json(body)) => request.json(body),
            Some(Body::Png(png)) => request.header(CONTENT_TYPE, "image/png").body(*png),
            None => request,
        };
        let exchange = async {
            let mut response = request.send().await.map_err(|error| self.unreachable(error))?;
            let status = response.status().as_u16();
            let retry_after = answer::retry_after(response.headers());
            let body = self.read(&mut response, call.limit).await?;
            Ok((status, retry_after, body))
        };
        match tokio::time::timeout(limit, exchange).await {
            Ok(result) => result,
            Err(_) => Err(self.broken(format!("no answer to {} within {limit:?}", call.what))),
        }
    }

    /// An answer that was not what a homeserver sends.
    pub(super) fn broken(&self, problem: String) -> HomeserverError {
        HomeserverError::Unreachable { host: self.host.clone(), problem }
    }

    fn address(&self, call: &Call<'_>) -> Result<Url> {
        // A URL parser drops or resolves these segments, encoded or not, and would so call
        // another endpoint.
        if call.path.iter().any(|part| matches!(*part, "" | "." | "..")) {
            return Err(HomeserverError::NotFound { what: call.subject.clone() });
        }
        let mut url = self.base.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => {
                segments.pop_if_empty().extend(&call.path);
            }
            Err(()) => return Err(self.broken("the URL has no path".to_owned())),
        }
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        Ok(url)
    }

    async fn read(&self, response: &mut reqwest::Response, limit: usize) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(error))? {
            if body.len() + chunk.len() > limit {
                return Err(self.broken(format!("the answer is longer than {limit} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// The innermost cause tells most (`connection refused`, `certificate expired`), and no cause
    /// holds the URL.
    fn unreachable(&self, error: reqwest::Error) -> HomeserverError {
        let error = error.without_url();
        let kind = if error.is_timeout() {
            "timeout"
        } else if error.is_connect() {
            "cannot connect"
        } else if error.is_body() || error.is_decode() {
            "the answer broke off"
        } else {
            "the request failed"
        };
        let mut cause: &dyn std::error::Error = &error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        self.broken(format!("{kind}: {}", answer::shorten(&cause.to_string())))
    }
}
