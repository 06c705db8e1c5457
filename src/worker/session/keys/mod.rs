//! The SDK's crypto store, but for one thing: a new Olm session is kept together with what its first message brought.
//!
//! A message that opens an Olm session usually brings a room key. The SDK (matrix-sdk-crypto 0.18, `Account::decrypt_olm_message`)
//! saves such a session at once, and the room key when it has looked at the whole answer of /sync. Whoever is killed in between
//! gets the message again, with a session that has opened it already and cannot do so a second time. Then the room key is lost,
//! and nobody sends it again. So the new session waits here until the SDK saves the answer as a whole: whoever is killed before
//! has the one-time key still, and opens the message as if it had never seen it.

use std::{collections::HashMap, fmt};

use matrix_sdk::{
    SqliteCryptoStore, async_trait,
    cross_process_lock::CrossProcessLockGeneration,
    ruma::{DeviceId, OwnedDeviceId, RoomId, TransactionId, UserId, events::secret::request::SecretName},
};
use matrix_sdk_crypto::{
    Account, DeviceData, GossipRequest, SecretInfo, Session, UserIdentityData,
    olm::{
        InboundGroupSession, OlmMessageHash, OutboundGroupSession, PrivateCrossSigningIdentity,
        SenderDataType,
    },
    store::{
        CryptoStore,
        types::{
            BackupKeys, Changes, DehydratedDeviceKey, PendingChanges, RoomKeyCounts, RoomKeyWithheldEntry,
            RoomPendingKeyBundleDetails, RoomSettings, StoredRoomKeyBundleData, TrackedUser,
        },
    },
    vodozemac::Curve25519PublicKey,
};
use secrecy::zeroize::Zeroizing;
use tokio::sync::Mutex;

#[cfg(test)]
mod tests;

type Outcome<T> = Result<T, <SqliteCryptoStore as CryptoStore>::Error>;

/// A device's keys in its volume.
pub(super) struct KeyStore {
    inner: SqliteCryptoStore,
    /// New sessions of the answer of /sync that is being looked at.
    new: Mutex<Vec<Session>>,
}

impl fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyStore").finish_non_exhaustive()
    }
}

impl KeyStore {
    pub(super) fn new(inner: SqliteCryptoStore) -> Self {
        Self { inner, new: Mutex::default() }
    }

    /// Whether somebody else opened this session, and it was never saved. A session that this device opened, or that it
    /// has written with, is saved at once: it must never write twice with the same key.
    async fn is_new(&self, session: &Session, waiting: &[Session]) -> Outcome<bool> {
        if !session.inner.lock().await.has_received_message() || waiting.contains(session) {
            return Ok(false);
        }
        let known = self.inner.get_sessions(&session.sender_key.to_base64()).await?;
        Ok(!known.is_some_and(|known| known.contains(session)))
    }
}

#[async_trait]
impl CryptoStore for KeyStore {
    type Error = <SqliteCryptoStore as CryptoStore>::Error;

    async fn save_changes(&self, mut changes: Changes) -> Outcome<()> {
        let mut new = self.new.lock().await;
        if changes.next_batch_token.is_some() {
            // An answer as a whole. Of a session that it has itself that is the newer one.
            let waited =
                new.drain(..).filter(|session| !changes.sessions.contains(session)).collect::<Vec<_>>();
            changes.sessions.extend(waited);
        } else if changes.inbound_group_sessions.is_empty() {
            for session in std::mem::take(&mut changes.sessions) {
                let waits = self.is_new(&session, &new).await?;
                if waits { new.push(session) } else { changes.sessions.push(session) }
            }
        }
        self.inner.save_changes(changes).await
    }

    async fn save_pending_changes(&self, changes: PendingChanges) -> Outcome<()> {
        self.inner.save_pending_changes(changes).await
    }

    async fn load_account(&self) -> Outcome<Option<Account>> {
        self.inner.load_account().await
    }

    async fn load_identity(&self) -> Outcome<Option<PrivateCrossSigningIdentity>> {
        self.inner.load_identity().await
    }

    async fn save_inbound_group_sessions(
        &self,
        sessions: Vec<InboundGroupSession>,
        backed_up_to_version: Option<&str>,
    ) -> Outcome<()> {
        self.inner.save_inbound_group_sessions(sessions, backed_up_to_version).await
    }

    async fn get_sessions(&self, sender_key: &str) -> Outcome<Option<Vec<Session>>> {
        let mut known = self.inner.get_sessions(sender_key).await?.unwrap_or_default();
        let new = self.new.lock().await;
        known.extend(new.iter().filter(|session| session.sender_key.to_base64() == sender_key).cloned());
        Ok((!known.is_empty()).then_some(known))
    }

    async fn get_inbound_group_session(
        &self,
        room_id: &RoomId,
        session_id: &str,
    ) -> Outcome<Option<InboundGroupSession>> {
        self.inner.get_inbound_group_session(room_id, session_id).await
    }

    async fn get_withheld_info(
        &self,
        room_id: &RoomId,
        session_id: &str,
    ) -> Outcome<Option<RoomKeyWithheldEntry>> {
        self.inner.get_withheld_info(room_id, session_id).await
    }

    async fn get_withheld_sessions_by_room_id(&self, room_id: &RoomId) -> Outcome<Vec<RoomKeyWithheldEntry>> {
        self.inner.get_withheld_sessions_by_room_id(room_id).await
    }

    async fn get_inbound_group_sessions(&self) -> Outcome<Vec<InboundGroupSession>> {
        self.inner.get_inbound_group_sessions().await
    }

    async fn inbound_group_session_counts(&self, backup_version: Option<&str>) -> Outcome<RoomKeyCounts> {
        self.inner.inbound_group_session_counts(backup_version).await
    }

    async fn get_inbound_group_sessions_by_room_id(
        &self,
        room_id: &RoomId,
    ) -> Outcome<Vec<InboundGroupSession>> {
        self.inner.get_inbound_group_sessions_by_room_id(room_id).await
    }

    async fn get_inbound_group_sessions_for_device_batch(
        &self,
        curve_key: Curve25519PublicKey,
        sender_data_type: SenderDataType,
        after_session_id: Option<String>,
        limit: usize,
    ) -> Outcome<Vec<InboundGroupSession>> {
        let page = self.inner.get_inbound_group_sessions_for_device_batch(
            curve_key,
            sender_data_type,
            after_session_id,
            limit,
        );
        page.await
    }

    async fn inbound_group_sessions_for_backup(
        &self,
        backup_version: &str,
        limit: usize,
    ) -> Outcome<Vec<InboundGroupSession>> {
        self.inner.inbound_group_sessions_for_backup(backup_version, limit).await
    }

    async fn mark_inbound_group_sessions_as_backed_up(
        &self,
        backup_version: &str,
        room_and_session_ids: &[(&RoomId, &str)],
    ) -> Outcome<()> {
        self.inner.mark_inbound_group_sessions_as_backed_up(backup_version, room_and_session_ids).await
    }

    async fn reset_backup_state(&self) -> Outcome<()> {
        self.inner.reset_backup_state().await
    }

    async fn load_backup_keys(&self) -> Outcome<BackupKeys> {
        self.inner.load_backup_keys().await
    }

    async fn load_dehydrated_device_pickle_key(&self) -> Outcome<Option<DehydratedDeviceKey>> {
        self.inner.load_dehydrated_device_pickle_key().await
    }

    async fn delete_dehydrated_device_pickle_key(&self) -> Outcome<()> {
        self.inner.delete_dehydrated_device_pickle_key().await
    }

    async fn get_outbound_group_session(&self, room_id: &RoomId) -> Outcome<Option<OutboundGroupSession>> {
        self.inner.get_outbound_group_session(room_id).await
    }

    async fn load_tracked_users(&self) -> Outcome<Vec<TrackedUser>> {
        self.inner.load_tracked_users().await
    }

    async fn save_tracked_users(&self, users: &[(&UserId, bool)]) -> Outcome<()> {
        self.inner.save_tracked_users(users).await
    }

    async fn get_device(&self, user_id: &UserId, device_id: &DeviceId) -> Outcome<Option<DeviceData>> {
        self.inner.get_device(user_id, device_id).await
    }

    async fn get_user_devices(&self, user_id: &UserId) -> Outcome<HashMap<OwnedDeviceId, DeviceData>> {
        self.inner.get_user_devices(user_id).await
    }

    async fn get_own_device(&self) -> Outcome<DeviceData> {
        self.inner.get_own_device().await
    }

    async fn get_user_identity(&self, user_id: &UserId) -> Outcome<Option<UserIdentityData>> {
        self.inner.get_user_identity(user_id).await
    }

    async fn is_message_known(&self, message_hash: &OlmMessageHash) -> Outcome<bool> {
        self.inner.is_message_known(message_hash).await
    }

    async fn get_outgoing_secret_requests(
        &self,
        request_id: &TransactionId,
    ) -> Outcome<Option<GossipRequest>> {
        self.inner.get_outgoing_secret_requests(request_id).await
    }

    async fn get_secret_request_by_info(&self, secret_info: &SecretInfo) -> Outcome<Option<GossipRequest>> {
        self.inner.get_secret_request_by_info(secret_info).await
    }

    async fn get_unsent_secret_requests(&self) -> Outcome<Vec<GossipRequest>> {
        self.inner.get_unsent_secret_requests().await
    }

    async fn delete_outgoing_secret_requests(&self, request_id: &TransactionId) -> Outcome<()> {
        self.inner.delete_outgoing_secret_requests(request_id).await
    }

    async fn get_secrets_from_inbox(&self, secret_name: &SecretName) -> Outcome<Vec<Zeroizing<String>>> {
        self.inner.get_secrets_from_inbox(secret_name).await
    }

    async fn delete_secrets_from_inbox(&self, secret_name: &SecretName) -> Outcome<()> {
        self.inner.delete_secrets_from_inbox(secret_name).await
    }

    async fn get_room_settings(&self, room_id: &RoomId) -> Outcome<Option<RoomSettings>> {
        self.inner.get_room_settings(room_id).await
    }

    async fn get_received_room_key_bundle_data(
        &self,
        room_id: &RoomId,
        user_id: &UserId,
    ) -> Outcome<Option<StoredRoomKeyBundleData>> {
        self.inner.get_received_room_key_bundle_data(room_id, user_id).await
    }

    async fn get_pending_key_bundle_details_for_room(
        &self,
        room_id: &RoomId,
    ) -> Outcome<Option<RoomPendingKeyBundleDetails>> {
        self.inner.get_pending_key_bundle_details_for_room(room_id).await
    }

    async fn get_all_rooms_pending_key_bundles(&self) -> Outcome<Vec<RoomPendingKeyBundleDetails>> {
        self.inner.get_all_rooms_pending_key_bundles().await
    }

    async fn has_downloaded_all_room_keys(&self, room_id: &RoomId) -> Outcome<bool> {
        self.inner.has_downloaded_all_room_keys(room_id).await
    }

    async fn get_custom_value(&self, key: &str) -> Outcome<Option<Vec<u8>>> {
        self.inner.get_custom_value(key).await
    }

    async fn set_custom_value(&self, key: &str, value: Vec<u8>) -> Outcome<()> {
        self.inner.set_custom_value(key, value).await
    }

    async fn remove_custom_value(&self, key: &str) -> Outcome<()> {
        self.inner.remove_custom_value(key).await
    }

    async fn try_take_leased_lock(
        &self,
        lease_duration_ms: u32,
        key: &str,
        holder: &str,
    ) -> Outcome<Option<CrossProcessLockGeneration>> {
        self.inner.try_take_leased_lock(lease_duration_ms, key, holder).await
    }

    async fn next_batch_token(&self) -> Outcome<Option<String>> {
        self.inner.next_batch_token().await
    }

    async fn close(&self) -> Outcome<()> {
        self.inner.close().await
    }

    async fn reopen(&self) -> Outcome<()> {
        self.inner.reopen().await
    }

    async fn get_size(&self) -> Outcome<Option<usize>> {
        self.inner.get_size().await
    }
}
