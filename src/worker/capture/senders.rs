//! Whose devices are whose, where sync does not tell.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use matrix_sdk::{
    Client,
    ruma::{OwnedUserId, RoomId as RumaRoomId, UserId as RumaUserId},
};

use super::received::{Opened, Received, Secrecy, trust};
use crate::{domain::record::Trust, worker::recorder::Recorder};

/// A sender without a cross-signed device costs one request in this time.
const AGAIN_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// How long capture waits for the devices of one sender, whose own homeserver may be down.
const PATIENCE: Duration = Duration::from_secs(3);

/// Senders whose devices were asked for.
///
/// Sync tells changes of device lists only. A device that goes on at the cursor of another one, whose volume was
/// lost, would take every sender for unverified until each of them changes something.
#[derive(Clone)]
pub(crate) struct Senders {
    client: Client,
    recorder: Recorder,
    asked: Arc<Mutex<HashMap<OwnedUserId, Asked>>>,
}

/// When a sender's devices were asked for last. It is locked while they are: whoever has an event of the same sender
/// meanwhile waits for the answer, too.
type Asked = Arc<tokio::sync::Mutex<Option<Timestamp>>>;

impl Senders {
    pub(crate) fn new(client: Client, recorder: Recorder) -> Self {
        Self { client, recorder, asked: Arc::default() }
    }

    /// The event with the trust that its sender deserves.
    pub(crate) async fn judge(&self, mut received: Received) -> Received {
        if let Secrecy::Opened(opened) = &mut received.secrecy
            && matches!(opened.trust, Trust::UnknownDevice | Trust::UnverifiedDevice)
            && let Some(known) = self.ask(&received.room, opened).await
        {
            opened.trust = known;
        }
        received
    }

    async fn ask(&self, room: &str, opened: &Opened) -> Option<Trust> {
        let sender = RumaUserId::parse(&opened.sender).ok()?;
        let session = opened.session_id.as_deref()?;
        let room = self.client.get_room(&RumaRoomId::parse(room).ok()?)?;
        self.ask_once(&sender).await;
        // Also if nobody was asked: the first of several messages of a new sender has brought the devices.
        room.get_encryption_info(session, &sender).await.map(|info| trust(&info))
    }

    /// Asks for the sender's devices, unless that was done lately.
    async fn ask_once(&self, sender: &RumaUserId) {
        let now = self.recorder.clock().now();
        let is_recent = |at: &Timestamp| now.duration_since(*at) < AGAIN_AFTER;
        let asked = {
            let mut all = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let is_kept = |asked: &Asked| {
                // Somebody asks just now, or has lately.
                Arc::strong_count(asked) > 1
                    || asked.try_lock().is_ok_and(|at| at.as_ref().is_some_and(is_recent))
            };
            all.retain(|_, asked| is_kept(asked));
            Arc::clone(all.entry(sender.to_owned()).or_default())
        };
        let mut at = asked.lock().await;
        if !at.as_ref().is_some_and(is_recent) && self.request(sender).await {
            *at = Some(now);
        }
    }

    /// The result is whether the next message need not ask again.
    async fn request(&self, sender: &RumaUserId) -> bool {
        let encryption = self.client.encryption();
        match tokio::time::timeout(PATIENCE, encryption.request_user_identity(sender)).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot ask for a sender's devices");
                false
            }
            Err(_) => {
                tracing::warn!(%sender, "a sender's devices are not told in time");
                true
            }
        }
    }
}
