//! Fetches the content of an attachment: asked for with the bot's session, read up to the limit and no
//! further, whatever anybody claims its size to be.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use reqwest::{Response, Url, header::RETRY_AFTER};
use serde::Deserialize;

use super::outcome::{Failed, Miss};
use crate::domain::ServerName;

/// From one part of the content to the next.
const PART: Duration = Duration::from_secs(60);
/// Until the first part of what was never tried: a server that never answers must not hold up what others send.
/// What takes longer gets more time when it is tried again.
const FIRST_PART: Duration = Duration::from_secs(15);
/// For all of it: who sends a byte a minute must not keep a place for ever.
const WHOLE: Duration = Duration::from_mins(15);
/// What a refusal says is short.
const REFUSAL: usize = 64 << 10;

/// The endpoint, and the one of servers that know no authenticated media.
const ENDPOINTS: [&str; 2] = ["_matrix/client/v1/media/download", "_matrix/media/v3/download"];

/// Where and as whom.
#[derive(Debug, Clone)]
pub(super) struct Repository {
    pub(super) http: reqwest::Client,
    pub(super) homeserver: Url,
    pub(super) client: matrix_sdk::Client,
}

/// A content as it was sent, in parts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) parts: VecDeque<Bytes>,
    pub(super) size: usize,
}

/// Server and id of a media.
fn address(mxc: &str) -> Option<(ServerName, &str)> {
    let (server, id) = mxc.strip_prefix("mxc://")?.split_once('/')?;
    let is_id = (1..=255).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    // A segment of a path that is made of dots leads elsewhere.
    let is_name = !server.bytes().all(|byte| byte == b'.');
    (is_id && is_name).then_some((ServerName::parse(server).ok()?, id))
}

impl Repository {
    /// Fetches what is at this address, after so many tries that failed.
    pub(super) async fn fetch(&self, mxc: &str, limit: u64, tries: u32) -> Result<Content, Failed> {
        let patience = if tries == 0 { FIRST_PART } else { PART };
        let fetched = tokio::time::timeout(WHOLE, self.fetch_slowly(mxc, limit, patience)).await;
        fetched.unwrap_or_else(|_| Err(Failed::later("the homeserver sends too slowly")))
    }

    async fn fetch_slowly(&self, mxc: &str, limit: u64, patience: Duration) -> Result<Content, Failed> {
        let (server, id) = address(mxc).ok_or(Miss::Unreadable)?;
        let [current, old] = ENDPOINTS;
        match self.ask(self.url(current, &server, id)?, limit, patience).await? {
            Answer::Content(content) => Ok(content),
            Answer::Unknown => match self.ask(self.url(old, &server, id)?, limit, patience).await? {
                Answer::Content(content) => Ok(content),
                Answer::Unknown => Err(Failed::later("the homeserver offers no media")),
            },
        }
    }

    fn url(&self, endpoint: &str, server: &ServerName, id: &str) -> Result<Url, Failed> {
        let mut url = self.homeserver.clone();
        match url.path_segments_mut() {
            Ok(mut path) => {
                path.pop_if_empty().extend(endpoint.split('/')).push(server.as_str()).push(id);
            }
            Err(()) => return Err(Failed::later("the homeserver's URL has no path")),
        }
        Ok(url)
    }

    async fn ask(&self, url: Url, limit: u64, patience: Duration) -> Result<Answer, Failed> {
        let token = self.client.access_token().ok_or_else(|| Failed::outage("the bot has no session"))?;
        let request = self.http.get(url).bearer_auth(token).send();
        let response = match tokio::time::timeout(patience, request).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) if error.is_connect() => {
                return Err(Failed::outage("the homeserver is not reachable"));
            }
            _ => return Err(Failed::later("the homeserver does not answer")),
        };
        if response.status().as_u16() == 200 {
            return read(response, limit).await.map(Answer::Content);
        }
        refused(response).await
    }
}

/// Codes that say of the bot's account, whatever it asked for, that it gets nothing.
const OF_THE_ACCOUNT: [&str; 5] = [
    "M_CONSENT_NOT_GIVEN",
    "M_RESOURCE_LIMIT_EXCEEDED",
    "M_USER_DEACTIVATED",
    "M_USER_LOCKED",
    "M_USER_SUSPENDED",
];

enum Answer {
    Content(Content),
    /// There is no such endpoint.
    Unknown,
}

/// Reads no more than the limit.
async fn read(mut response: Response, limit: u64) -> Result<Content, Failed> {
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(Miss::TooLarge.into());
    }
    let mut content = Content::default();
    loop {
        match tokio::time::timeout(PART, response.chunk()).await {
            Ok(Ok(Some(part))) => {
                content.size += part.len();
                if content.size as u64 > limit {
                    return Err(Miss::TooLarge.into());
                }
                content.parts.push_back(part);
            }
            Ok(Ok(None)) => return Ok(content),
            _ => return Err(Failed::later("the answer broke off")),
        }
    }
}

#[derive(Deserialize, Default)]
struct Refusal {
    errcode: Option<String>,
    retry_after_ms: Option<u64>,
}

/// What a refusal means. Only one in the words of Matrix is about the media: whatever stands in front of
/// a homeserver, or of the one that has the media, answers 403 and 404 as well.
async fn refused(mut response: Response) -> Result<Answer, Failed> {
    let status = response.status().as_u16();
    let header =
        response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let mut body = Vec::new();
    while let Ok(Ok(Some(part))) = tokio::time::timeout(PART, response.chunk()).await {
        body.extend_from_slice(&part);
        if body.len() > REFUSAL {
            break;
        }
    }
    let refusal: Refusal = serde_json::from_slice(&body).unwrap_or_default();
    let asked = refusal.retry_after_ms.map(Duration::from_millis).or(header.map(Duration::from_secs));
    judge(status, refusal.errcode.as_deref(), asked)
}

fn judge(status: u16, errcode: Option<&str>, asked: Option<Duration>) -> Result<Answer, Failed> {
    match (status, errcode) {
        (404 | 405, Some("M_UNRECOGNIZED")) => Ok(Answer::Unknown),
        (404 | 410, Some("M_NOT_FOUND")) => Err(Failed::Perhaps(Miss::Gone)),
        (_, Some("M_TOO_LARGE")) => Err(Miss::TooLarge.into()),
        (403, Some("M_FORBIDDEN")) => Err(Miss::Refused.into()),
        (403, Some(errcode)) if OF_THE_ACCOUNT.contains(&errcode) => {
            Err(Failed::outage("the homeserver does not serve the bot's account"))
        }
        (429, _) => {
            Err(Failed::Later { why: "the homeserver limits the rate".to_owned(), asked, outage: true })
        }
        (401, _) => Err(Failed::outage("the homeserver does not accept the session")),
        _ => Err(Failed::Later { why: format!("the homeserver answered {status}"), asked, outage: false }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_would_lead_elsewhere_are_none() {
        let (server, id) = address("mxc://example.org:8448/AbC_-1").unwrap();
        assert_eq!((server.as_str(), id), ("example.org:8448", "AbC_-1"));
        for mxc in [
            "mxc://example.org/../../_synapse/admin",
            "mxc://example.org/..",
            "mxc://../x",
            "mxc://example.org/a%2Fb",
            "mxc://example.org/a?b",
            "mxc://example.org/",
            "mxc:///a",
            "mxc://exa mple/a",
            "https://example.org/a",
            "mxc://example.org",
        ] {
            assert_eq!(address(mxc), None, "{mxc}");
        }
    }

    #[test]
    fn only_what_the_homeserver_says_in_the_words_of_matrix_is_final() {
        let judged = |status, errcode| match judge(status, errcode, None) {
            Ok(_) => "unknown".to_owned(),
            Err(Failed::Never(miss)) => miss.reason().to_owned(),
            Err(Failed::Perhaps(miss)) => format!("perhaps {}", miss.reason()),
            Err(Failed::Later { outage, .. }) => if outage { "outage" } else { "later" }.to_owned(),
        };
        for (status, errcode, expected) in [
            (404, Some("M_NOT_FOUND"), "perhaps gone"),
            (410, Some("M_NOT_FOUND"), "perhaps gone"),
            (404, None, "later"),
            // What another server's proxy says comes through Synapse so.
            (404, Some("M_UNKNOWN"), "later"),
            (410, Some("M_UNKNOWN"), "later"),
            (403, Some("M_UNKNOWN"), "later"),
            (403, Some("M_RESOURCE_LIMIT_EXCEEDED"), "outage"),
            (403, Some("M_USER_SUSPENDED"), "outage"),
            (403, Some("M_CONSENT_NOT_GIVEN"), "outage"),
            (404, Some("M_UNRECOGNIZED"), "unknown"),
            (403, Some("M_FORBIDDEN"), "refused"),
            (403, None, "later"),
            (502, Some("M_TOO_LARGE"), "too_large"),
            (502, Some("M_UNKNOWN"), "later"),
            (504, Some("M_NOT_YET_UPLOADED"), "later"),
            (429, Some("M_LIMIT_EXCEEDED"), "outage"),
            (401, Some("M_UNKNOWN_TOKEN"), "outage"),
            (307, None, "later"),
        ] {
            assert_eq!(judged(status, errcode), expected, "{status} {errcode:?}");
        }
    }
}
