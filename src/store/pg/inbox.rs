//! The inbox: what other processes want recorded, put there durably before they act.

use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;
use sqlx::PgPool;

use super::{Endpoint, map};
use crate::{
    domain::record::{Category, Context, Occurred, RecordDraft},
    store::{InboxItem, StoreError},
    trail::content,
};

/// Bytes of the messages that are read at once, unless one alone is larger; as large as a message may be.
const PAGE_BYTES: i64 = 4 << 20;

/// One connection suffices: messages are rare and small.
const POOL: u32 = 2;

fn mac(key: &SecretString, writer: &str, counter: i64, body: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose_secret().as_bytes()).ok()?;
    mac.update(b"ems-bots/inbox/v1");
    mac.update(&counter.to_be_bytes());
    mac.update(&u64::try_from(writer.len()).ok()?.to_be_bytes());
    mac.update(writer.as_bytes());
    mac.update(body);
    Some(mac)
}

/// The side of the process that wants something recorded.
#[derive(Debug)]
pub struct PgInbox {
    pool: PgPool,
    writer: String,
    key: SecretString,
}

impl PgInbox {
    /// `writer` names this process, at most 200 bytes; it numbers its messages itself.
    pub fn new(endpoint: &Endpoint, writer: impl Into<String>, key: SecretString) -> Self {
        Self { pool: endpoint.pool(POOL), writer: writer.into(), key }
    }

    /// Returns once the message is durable. Putting the same message again does nothing, so that a
    /// caller who does not know whether the first time worked repeats it. Another message with the
    /// same counter is another message.
    pub async fn put(&self, counter: i64, draft: &RecordDraft) -> Result<(), StoreError> {
        self.put_encoded(counter, &content::encode(draft)).await
    }

    /// The same for a record that was encoded before, so that what was kept on the way is the same message.
    pub async fn put_encoded(&self, counter: i64, body: &[u8]) -> Result<(), StoreError> {
        let mac = mac(&self.key, &self.writer, counter, body).map(|mac| mac.finalize().into_bytes().to_vec());
        sqlx::query(
            "INSERT INTO inbox (writer, counter, body, mac) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        )
        .bind(&self.writer)
        .bind(counter)
        .bind(body)
        .bind(mac)
        .execute(&self.pool)
        .await
        .map_err(map)?;
        Ok(())
    }
}

/// Bytes of a MAC in a source id.
const MARK: usize = 16;

/// Number, writer, counter, body and MAC.
type InboxRow = (i64, String, i64, Vec<u8>, Vec<u8>);

/// Reads the oldest messages. What is not authentic or cannot be decoded is recorded as just that,
/// so that nothing blocks the inbox and nothing disappears from it unseen.
pub(super) async fn read(
    pool: &PgPool,
    key: Option<&SecretString>,
    limit: u32,
) -> Result<Vec<InboxItem>, StoreError> {
    let rows: Vec<InboxRow> = sqlx::query_as(
        "SELECT id, writer, counter, body, mac
         FROM (SELECT id, writer, counter, body, mac, octet_length(body) AS size,
                      sum(octet_length(body)) OVER (ORDER BY id) AS total
               FROM (SELECT id, writer, counter, body, mac FROM inbox ORDER BY id LIMIT $1) AS oldest) AS sized
         WHERE total <= $2 OR total = size
         ORDER BY id",
    )
    .bind(i64::from(limit))
    .bind(PAGE_BYTES)
    .fetch_all(pool)
    .await
    .map_err(map)?;
    let items = rows.into_iter().map(|(id, writer, counter, body, claimed)| {
        let authentic = key
            .and_then(|key| mac(key, &writer, counter, &body))
            .is_some_and(|mac| mac.verify_slice(&claimed).is_ok());
        // The start of the MAC tells messages apart to which their writer gave the same counter.
        let mark = hex::encode(&claimed[..claimed.len().min(MARK)]);
        let source_id = format!("inbox:{writer}:{counter}:{mark}");
        let decoded = if authentic { content::decode(&body).ok() } else { None };
        match decoded {
            Some(mut draft) => {
                // What the message says of its own source does not count.
                let names = Some(std::mem::replace(&mut draft.source_id, source_id));
                InboxItem { id, draft, names }
            }
            None => InboxItem { id, draft: refused(authentic, id, &source_id, &body), names: None },
        }
    });
    Ok(items.collect())
}

/// The record of a message that is not recorded as what it claims to be.
fn refused(authentic: bool, id: i64, source_id: &str, body: &[u8]) -> RecordDraft {
    let (action, reason) = if authentic {
        ("inbox.unreadable", "message in the inbox cannot be decoded")
    } else {
        ("inbox.unauthenticated", "message in the inbox has no valid MAC")
    };
    // A forger must not be able to use up the source id of an authentic message.
    let source_id = format!("{action}:{id}:{source_id}");
    RecordDraft {
        context: Context { reason: Some(reason.to_owned()), ..Context::default() },
        source_raw: Some(hex::encode(body)),
        ..RecordDraft::bare(source_id, Category::SystemChange, action, Occurred::Unknown)
    }
}
