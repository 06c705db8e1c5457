//! From a record to what is durable: in the tenant's own inbox, or in the console's database until that can be
//! reached. Whoever reports gets no answer before.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::future::join_all;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    estate::Estate,
    intake::{Entry, Target, counter},
    metrics::Metrics,
    ports::{Inboxes, NotTaken},
};
use crate::{
    domain::{BotName, Failure as _},
    store::{
        StoreError,
        platform::{Message, PlatformStore},
    },
    trail::content,
};

/// The API server waits for the answer of a webhook, and people wait for the API server: all inboxes together get so
/// long, and then the console's database.
const TENANT_TIMEOUT: Duration = Duration::from_secs(2);
const PLATFORM_TIMEOUT: Duration = Duration::from_secs(4);
/// An inbox that did not answer is not asked again for so long: many requests must not wait for one database.
const PAUSE: Duration = Duration::from_secs(10);

/// So many records of one report are brought to their trails at once; more of them wait together, which takes no
/// longer than one.
const FEW: usize = 20;

/// So much is kept by one statement. What is kept twice is kept once, so a crash between two of them does no harm.
const CHUNK: usize = 200;
const CHUNK_BYTES: usize = 4 << 20;

/// So many bytes may wait of those who prove nothing: whoever reaches the intake must not fill the database.
const UNPROVEN_BYTES: u64 = 256 << 20;

/// Neither database took the records: whoever reports must know that they are not recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no database takes records")]
pub struct NotDurable;

/// The messages of records. Those of one record share what it says.
pub fn messages(entries: &[Entry], estate: &Estate, is_proven: bool) -> Vec<Message> {
    let mut messages = Vec::new();
    for Entry { target, draft } in entries {
        let (counter, body) = (counter(&draft.source_id), Bytes::from(content::encode(draft)));
        let message = |bot: &BotName| Message {
            bot: bot.clone(),
            source_id: draft.source_id.clone(),
            counter,
            body: body.clone(),
            is_proven,
        };
        match target {
            Target::Bot(bot) => messages.push(message(bot)),
            Target::Everybody => messages.extend(estate.everybody().map(message)),
        }
    }
    messages
}

/// Brings messages to where they last.
#[derive(Clone)]
pub struct Delivery {
    inboxes: Arc<dyn Inboxes>,
    platform: Arc<dyn PlatformStore>,
    metrics: Metrics,
    /// Inboxes that did not answer, and until when they are not asked.
    silent: Arc<Mutex<BTreeMap<BotName, Instant>>>,
}

impl Delivery {
    /// Over these two.
    pub fn new(inboxes: Arc<dyn Inboxes>, platform: Arc<dyn PlatformStore>, metrics: Metrics) -> Self {
        Self { inboxes, platform, metrics, silent: Arc::default() }
    }

    /// Returns when all of them are durable.
    pub async fn deliver(&self, messages: Vec<Message>) -> Result<(), NotDurable> {
        let left = if messages.len() > FEW { messages } else { self.to_trails(messages).await };
        self.keep(&left).await
    }

    /// Asks all inboxes at the same time: those that do not answer take no longer than one. Returns what they did not take.
    async fn to_trails(&self, messages: Vec<Message>) -> Vec<Message> {
        let deadline = Instant::now() + TENANT_TIMEOUT;
        let mut by_bot: BTreeMap<BotName, VecDeque<Message>> = BTreeMap::new();
        for message in messages {
            by_bot.entry(message.bot.clone()).or_default().push_back(message);
        }
        let trails = by_bot.into_iter().map(|(bot, messages)| self.to_trail(bot, messages, deadline));
        join_all(trails).await.into_iter().flatten().collect()
    }

    async fn to_trail(
        &self,
        bot: BotName,
        mut left: VecDeque<Message>,
        deadline: Instant,
    ) -> VecDeque<Message> {
        if self.is_silent(&bot) {
            return left;
        }
        let why = match timeout_at(deadline, self.put(&bot, &mut left)).await {
            Ok(Ok(())) => return left,
            Ok(Err(error)) => error.to_string(),
            Err(_) => {
                self.with_silent(|silent| silent.insert(bot.clone(), Instant::now() + PAUSE));
                "no answer in time".to_owned()
            }
        };
        tracing::info!(%bot, why, "the trail's inbox is not there; its records wait");
        left
    }

    /// What the inbox has is taken out, also if this is given up in the middle.
    async fn put(&self, bot: &BotName, left: &mut VecDeque<Message>) -> Result<(), NotTaken> {
        let inbox = self.inboxes.find(bot).await?;
        while let Some(message) = left.front() {
            inbox.put(message.counter, &message.body).await?;
            left.pop_front();
            self.metrics.delivered(1);
        }
        Ok(())
    }

    async fn keep(&self, messages: &[Message]) -> Result<(), NotDurable> {
        let mut left = messages;
        if !self.has_room(left).await {
            return Err(self.refuse(left));
        }
        while !left.is_empty() {
            let (chunk, more) = left.split_at(chunk(left));
            if ask(self.platform.keep(chunk)).await.is_none() {
                return Err(self.refuse(left));
            }
            self.metrics.kept(chunk.len());
            left = more;
        }
        Ok(())
    }

    async fn has_room(&self, messages: &[Message]) -> bool {
        if messages.iter().all(|message| message.is_proven) {
            return true;
        }
        match ask(self.platform.unproven_bytes()).await {
            Some(bytes) if bytes < UNPROVEN_BYTES => true,
            Some(bytes) => {
                tracing::error!(bytes, "too much waits of those who prove nothing");
                false
            }
            None => false,
        }
    }

    fn refuse(&self, messages: &[Message]) -> NotDurable {
        let bots: BTreeSet<&BotName> = messages.iter().map(|message| &message.bot).collect();
        tracing::error!(records = messages.len(), bots = bots.len(), "records could not be kept");
        self.metrics.refused(messages.len());
        NotDurable
    }

    fn is_silent(&self, bot: &BotName) -> bool {
        let now = Instant::now();
        self.with_silent(|silent| {
            silent.retain(|_, until| *until > now);
            silent.contains_key(bot)
        })
    }

    fn with_silent<T>(&self, act: impl FnOnce(&mut BTreeMap<BotName, Instant>) -> T) -> T {
        act(&mut self.silent.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The answer of the console's database, if there is one in time.
async fn ask<T>(question: impl Future<Output = Result<T, StoreError>> + Send) -> Option<T> {
    match timeout(PLATFORM_TIMEOUT, question).await {
        Ok(Ok(answer)) => return Some(answer),
        Ok(Err(error)) => {
            tracing::error!(category = error.category(), %error, sqlstate = error.sqlstate(), "console's database");
        }
        Err(_) => tracing::error!("the console's database does not answer"),
    }
    None
}

/// So many of the first messages are kept together.
fn chunk(messages: &[Message]) -> usize {
    let mut bytes = 0;
    let fits = |message: &&Message| {
        bytes += message.body.len();
        bytes <= CHUNK_BYTES
    };
    messages.iter().take(CHUNK).take_while(fits).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::{
        config::{Process, changed},
        estate::tests::{audit_bot, estate},
    };

    fn message(bytes: usize) -> Message {
        let bot = audit_bot("tenant", "auditbot");
        Message { bot, source_id: String::new(), counter: 1, body: vec![0_u8; bytes].into(), is_proven: true }
    }

    #[test]
    fn what_is_kept_at_once_is_bounded_and_never_nothing() {
        let of = |count: usize, bytes: usize| chunk(&vec![message(bytes); count]);
        assert_eq!(of(3, 10), 3);
        assert_eq!(of(1_000, 10), CHUNK);
        assert_eq!(of(10, 1 << 20), 4);
        assert_eq!(of(2, CHUNK_BYTES + 1), 1);
    }

    #[test]
    fn a_record_for_everybody_is_encoded_once() {
        let value = serde_json::json!({"a": 1});
        let bot = audit_bot("tenant-a", "auditbot");
        let entry = changed(&bot, Process::Console, None, &value, jiff::Timestamp::UNIX_EPOCH).unwrap();
        let entry = Entry { target: Target::Everybody, ..entry };
        let all = messages(&[entry], &estate(), true);
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].body.as_ptr(), all[1].body.as_ptr());
    }
}
