//! What an answer means: a total mapping from status, errcode and text to [`HomeserverError`].

use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;

use crate::homeserver::{HomeserverError, Result};

/// Longer waits than this are not believed.
const LONGEST_WAIT: Duration = Duration::from_hours(1);
const MESSAGE_LENGTH: usize = 200;

/// What was asked.
pub(super) struct Question<'a> {
    pub what: &'static str,
    pub subject: &'a str,
    pub host: &'a str,
    pub had_token: bool,
}

/// What came back.
#[derive(Clone, Copy)]
pub(super) struct Received<'a> {
    pub status: u16,
    pub retry_after: Option<Duration>,
    pub body: &'a [u8],
}

/// A 2xx answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    pub json: Value,
    pub what: &'static str,
    pub host: String,
}

impl Answer {
    /// The answer as `T`; anything else is no answer of a homeserver.
    pub(super) fn parse<T: for<'de> Deserialize<'de>>(self) -> Result<T> {
        serde_json::from_value(self.json).map_err(|_| HomeserverError::Unreachable {
            host: self.host,
            problem: format!("the answer to {} lacks what a homeserver sends", self.what),
        })
    }
}

/// `Retry-After` in seconds; the form with a date is not used by homeservers.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[derive(Deserialize, Default)]
struct MatrixError {
    errcode: Option<String>,
    #[serde(default)]
    error: String,
    #[serde(default)]
    retry_after_ms: Option<f64>,
}

pub(super) fn interpret(question: &Question<'_>, received: Received<'_>) -> Result<Answer> {
    if (200..300).contains(&received.status) {
        return success(question, received);
    }
    Err(failure(question, received))
}

fn success(question: &Question<'_>, received: Received<'_>) -> Result<Answer> {
    match serde_json::from_slice::<Value>(received.body) {
        Ok(json @ Value::Object(_)) => {
            Ok(Answer { status: received.status, json, what: question.what, host: question.host.to_owned() })
        }
        Ok(_) | Err(_) => Err(HomeserverError::Unreachable {
            host: question.host.to_owned(),
            problem: format!("the answer to {} is not JSON; is it a homeserver?", question.what),
        }),
    }
}

fn failure(question: &Question<'_>, received: Received<'_>) -> HomeserverError {
    let what = question.what;
    let status = received.status;
    let told: MatrixError = serde_json::from_slice(received.body).unwrap_or_default();
    let errcode = told.errcode.as_deref().unwrap_or_default();
    let subject = || question.subject.to_owned();
    match (status, errcode) {
        (429, _) | (_, "M_LIMIT_EXCEEDED") => {
            HomeserverError::RateLimited { what, retry_after: wait(&told, received.retry_after) }
        }
        (500.., _) => HomeserverError::Server { status, what },
        (300..=399, _) => HomeserverError::Unreachable {
            host: question.host.to_owned(),
            problem: format!("{what} is answered with a redirect ({status}), which is not followed"),
        },
        (_, "M_USER_LOCKED") => HomeserverError::Locked { user: subject() },
        (_, "M_UNKNOWN_TOKEN" | "M_MISSING_TOKEN") => HomeserverError::CredentialRefused { what },
        (_, "M_USER_IN_USE") => HomeserverError::UserInUse { user: subject() },
        (_, "M_UNRECOGNIZED") | (403 | 404 | 405 | 410, "") => HomeserverError::NotOffered { what },
        (401, _) if question.had_token => HomeserverError::CredentialRefused { what },
        (403, "M_FORBIDDEN") if told.error.contains("not a server admin") => HomeserverError::NotAdmin,
        (404, _) => HomeserverError::NotFound { what: subject() },
        _ => HomeserverError::Refused {
            what,
            status,
            errcode: if errcode.is_empty() { "no errcode".to_owned() } else { shorten(errcode) },
            message: shorten(&told.error),
        },
    }
}

fn wait(told: &MatrixError, header: Option<Duration>) -> Option<Duration> {
    let asked =
        told.retry_after_ms.and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok()).or(header)?;
    Some(asked.min(LONGEST_WAIT))
}

/// Foreign text for a message of ours: short, on one line, without control characters.
pub(super) fn shorten(text: &str) -> String {
    text.chars().take(MESSAGE_LENGTH).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Takes secrets out of foreign text, should the other side repeat what it was sent.
pub(super) fn scrub<'a>(
    error: HomeserverError,
    secrets: impl Iterator<Item = &'a SecretString>,
) -> HomeserverError {
    let HomeserverError::Refused { what, status, errcode, mut message } = error else { return error };
    let mut errcode = errcode;
    for secret in secrets.map(ExposeSecret::expose_secret).filter(|secret| !secret.is_empty()) {
        message = message.replace(secret, "[redacted]");
        errcode = errcode.replace(secret, "[redacted]");
    }
    HomeserverError::Refused { what, status, errcode, message }
}
