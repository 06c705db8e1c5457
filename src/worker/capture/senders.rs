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
    asked: Arc<Mutex<HashMap<OwnedUserId, Timestamp>>>,
}

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
        if self.is_due(&sender) {
            self.request(&sender).await;
        }
        // Also if nobody was asked: the first of several messages of a new sender has brought the devices.
        room.get_encryption_info(session, &sender).await.map(|info| trust(&info))
    }

    async fn request(&self, sender: &RumaUserId) {
        let encryption = self.client.encryption();
        match tokio::time::timeout(PATIENCE, encryption.request_user_identity(sender)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                // The next message asks again.
                self.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(sender);
                tracing::warn!(%error, "cannot ask for a sender's devices");
            }
            Err(_) => tracing::warn!(%sender, "a sender's devices are not told in time"),
        }
    }

    /// Whether the sender was not asked for lately; if so, it counts as asked for now.
    fn is_due(&self, sender: &RumaUserId) -> bool {
        let now = self.recorder.clock().now();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|_, at| now.duration_since(*at) < AGAIN_AFTER);
        if asked.contains_key(sender) {
            return false;
        }
        asked.insert(sender.to_owned(), now);
        true
    }
}
