//! An event as it arrived, with what became of its encryption.

use matrix_sdk::{
    Room,
    deserialized_responses::{
        DeviceLinkProblem, EncryptionInfo, TimelineEvent, TimelineEventKind, UnableToDecryptReason,
        VerificationLevel, VerificationState,
    },
    ruma::{events::room::encrypted::OriginalSyncRoomEncryptedEvent, serde::Raw},
};
use serde_json::value::RawValue;

use crate::{
    domain::record::Trust,
    worker::{
        convert::{Encryption, Input, Plaintext},
        session::{SessionError, classify},
    },
};

/// The plaintext, owned.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Opened {
    pub(crate) raw: String,
    pub(crate) sender: String,
    pub(crate) trust: Trust,
    pub(crate) device_id: Option<String>,
    pub(crate) session_id: Option<String>,
}

/// What became of the encryption.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Secrecy {
    Plain,
    Opened(Opened),
    /// With the reason.
    Closed(&'static str),
}

/// An event of a room.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Received {
    pub(crate) room: String,
    pub(crate) event_id: Option<String>,
    /// As received: of an encrypted event the ciphertext event.
    pub(crate) raw: String,
    pub(crate) secrecy: Secrecy,
    /// It was encrypted, and its ciphertext cannot be had: `raw` is the plaintext.
    pub(crate) lacks_ciphertext: bool,
}

impl Received {
    /// An event that has no encryption, or none that anybody looked at.
    pub(crate) fn plain(room: &str, raw: &RawValue) -> Self {
        let raw = raw.get().to_owned();
        Self {
            room: room.to_owned(),
            event_id: event_id(&raw),
            raw,
            secrecy: Secrecy::Plain,
            lacks_ciphertext: false,
        }
    }

    /// An event of a room that the SDK's store does not know (yet): if it is encrypted, it is tried
    /// again when the room is known and a key comes.
    pub(crate) fn untried(room: &str, raw: &RawValue) -> Self {
        let mut received = Self::plain(room, raw);
        if is_ciphertext(&received.raw) {
            received.secrecy = Secrecy::Closed("missing_key");
        }
        received
    }

    /// An event of a timeline that the SDK has looked at already. `ciphertext` is the event as
    /// received, where the SDK decrypted it.
    pub(crate) fn from_timeline(room: &str, event: &TimelineEvent, ciphertext: Option<String>) -> Self {
        let mut lacks_ciphertext = false;
        let (raw, secrecy) = match &event.kind {
            TimelineEventKind::Decrypted(decrypted) => {
                let plain = decrypted.event.json().get().to_owned();
                let opened = open(plain, &decrypted.encryption_info);
                // Without the ciphertext the record still has the event's frame and the plaintext.
                lacks_ciphertext = ciphertext.is_none();
                (ciphertext.unwrap_or_else(|| opened.raw.clone()), Secrecy::Opened(opened))
            }
            TimelineEventKind::UnableToDecrypt { event, utd_info } => {
                (event.json().get().to_owned(), Secrecy::Closed(reason(&utd_info.reason)))
            }
            TimelineEventKind::PlainText { event } => {
                let raw = event.json().get().to_owned();
                let secrecy = if is_ciphertext(&raw) { Secrecy::Closed("corrupt") } else { Secrecy::Plain };
                (raw, secrecy)
            }
        };
        Self { room: room.to_owned(), event_id: event_id(&raw), raw, secrecy, lacks_ciphertext }
    }

    /// What the conversion takes.
    pub(crate) fn input<'a>(&'a self, caused_by: Option<&'a str>, later: bool) -> Input<'a> {
        let encryption = match &self.secrecy {
            Secrecy::Plain => Encryption::None,
            Secrecy::Closed(reason) => Encryption::Failed(reason),
            Secrecy::Opened(opened) => {
                let plaintext = Plaintext {
                    raw: &opened.raw,
                    trust: opened.trust,
                    device_id: opened.device_id.as_deref(),
                    session_id: opened.session_id.as_deref(),
                };
                if later { Encryption::DecryptedLater(plaintext) } else { Encryption::Decrypted(plaintext) }
            }
        };
        Input { room_id: &self.room, raw: &self.raw, encryption, caused_by }
    }
}

/// Decrypts an event of the history; what fails there for want of a key is older than the bot's
/// presence, as far as `history` says so. An error is the store's: it says nothing about the event.
pub(crate) async fn decrypt(room: &Room, raw: &RawValue, history: bool) -> Result<Received, SessionError> {
    let mut received = Received::plain(room.room_id().as_str(), raw);
    if !is_ciphertext(&received.raw) {
        return Ok(received);
    }
    let event: Raw<OriginalSyncRoomEncryptedEvent> = Raw::from_json(raw.to_owned());
    received.secrecy = match room.decrypt_event(&event, None).await.map(|event| event.kind) {
        Ok(TimelineEventKind::Decrypted(decrypted)) => {
            Secrecy::Opened(open(decrypted.event.json().get().to_owned(), &decrypted.encryption_info))
        }
        Ok(TimelineEventKind::UnableToDecrypt { utd_info, .. }) => {
            Secrecy::Closed(match reason(&utd_info.reason) {
                "missing_key" if history => "before_join",
                reason => reason,
            })
        }
        Ok(TimelineEventKind::PlainText { .. }) => Secrecy::Plain,
        Err(error) => return Err(classify(&error)),
    };
    Ok(received)
}

/// The Megolm session of an encrypted event.
pub(crate) fn session_of(raw: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Event {
        content: Content,
    }
    #[derive(serde::Deserialize)]
    struct Content {
        session_id: String,
    }
    serde_json::from_str::<Event>(raw).ok().map(|event| event.content.session_id)
}

fn open(raw: String, info: &EncryptionInfo) -> Opened {
    Opened {
        raw,
        sender: info.sender.to_string(),
        trust: trust(info),
        device_id: info.sender_device.as_ref().map(ToString::to_string),
        session_id: info.session_id().map(str::to_owned),
    }
}

/// How far the sender can be believed. The bot verifies nobody, so that a device which its owner
/// has signed is the best there is.
pub(super) fn trust(info: &EncryptionInfo) -> Trust {
    if info.forwarder.is_some() {
        return Trust::Forwarded;
    }
    match &info.verification_state {
        VerificationState::Verified
        | VerificationState::Unverified(VerificationLevel::UnverifiedIdentity) => Trust::VerifiedDevice,
        VerificationState::Unverified(
            VerificationLevel::VerificationViolation | VerificationLevel::UnsignedDevice,
        ) => Trust::UnverifiedDevice,
        VerificationState::Unverified(VerificationLevel::None(DeviceLinkProblem::InsecureSource)) => {
            Trust::KeyFromBackup
        }
        VerificationState::Unverified(
            VerificationLevel::None(DeviceLinkProblem::MissingDevice) | VerificationLevel::MismatchedSender,
        ) => Trust::UnknownDevice,
    }
}

fn reason(reason: &UnableToDecryptReason) -> &'static str {
    match reason {
        UnableToDecryptReason::MissingMegolmSession { withheld_code: None } => "missing_key",
        UnableToDecryptReason::MissingMegolmSession { withheld_code: Some(_) } => "key_withheld",
        // The key was given from a later message on: this one is from before the bot came.
        UnableToDecryptReason::UnknownMegolmMessageIndex => "before_join",
        UnableToDecryptReason::MalformedEncryptedEvent
        | UnableToDecryptReason::MegolmDecryptionFailure
        | UnableToDecryptReason::PayloadDeserializationFailure
        | UnableToDecryptReason::MismatchedIdentityKeys => "corrupt",
        _ => "unknown",
    }
}

fn event_id(raw: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Id {
        event_id: String,
    }
    serde_json::from_str::<Id>(raw).ok().map(|id| id.event_id)
}

/// An encrypted event that was not redacted.
fn is_ciphertext(raw: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Kind<'a> {
        #[serde(rename = "type", borrow)]
        kind: std::borrow::Cow<'a, str>,
        #[serde(borrow)]
        content: &'a RawValue,
    }
    serde_json::from_str::<Kind<'_>>(raw)
        .is_ok_and(|event| event.kind == "m.room.encrypted" && event.content.get().contains("\"ciphertext\""))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use matrix_sdk::{
        deserialized_responses::{AlgorithmInfo, ForwarderInfo, WithheldCode},
        ruma::user_id,
    };

    use super::*;

    #[test]
    fn ciphertexts_are_told_from_their_redacted_remains() {
        assert!(is_ciphertext(r#"{"type":"m.room.encrypted","content":{"ciphertext":"x"},"event_id":"$e"}"#));
        assert!(!is_ciphertext(r#"{"type":"m.room.encrypted","content":{}}"#));
        assert!(!is_ciphertext(r#"{"type":"m.room.message","content":{"body":"\"ciphertext\""}}"#));
        assert!(!is_ciphertext("nonsense"));
    }

    #[test]
    fn what_nobody_tried_to_decrypt_is_not_plain() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        let cipher = raw(
            r#"{"type":"m.room.encrypted","content":{"ciphertext":"x","session_id":"s/1"},"event_id":"$e"}"#,
        );
        assert_eq!(Received::untried("!r", &cipher).secrecy, Secrecy::Closed("missing_key"));
        assert_eq!(session_of(cipher.get()).as_deref(), Some("s/1"));
        let plain = raw(r#"{"type":"m.room.message","content":{"body":"x"},"event_id":"$e"}"#);
        assert_eq!(Received::untried("!r", &plain).secrecy, Secrecy::Plain);
        assert_eq!(session_of(plain.get()), None);
    }

    #[test]
    fn reasons_are_of_the_closed_set() {
        use UnableToDecryptReason as Why;
        let table = [
            (Why::MissingMegolmSession { withheld_code: None }, "missing_key"),
            (Why::MissingMegolmSession { withheld_code: Some(WithheldCode::Unverified) }, "key_withheld"),
            (Why::UnknownMegolmMessageIndex, "before_join"),
            (Why::MalformedEncryptedEvent, "corrupt"),
            (Why::MegolmDecryptionFailure, "corrupt"),
            (Why::PayloadDeserializationFailure, "corrupt"),
            (Why::MismatchedIdentityKeys, "corrupt"),
            (Why::SenderIdentityNotTrusted(VerificationLevel::UnsignedDevice), "unknown"),
            (Why::Unknown, "unknown"),
        ];
        for (why, expected) in table {
            assert_eq!(reason(&why), expected, "{why:?}");
        }
    }

    /// What a decryption tells of its sender.
    fn info(state: VerificationState, forwarder: Option<ForwarderInfo>) -> EncryptionInfo {
        EncryptionInfo {
            sender: user_id!("@alice:example.org").to_owned(),
            sender_device: Some("PHONE".into()),
            forwarder,
            algorithm_info: AlgorithmInfo::MegolmV1AesSha2 {
                curve25519_key: "key".to_owned(),
                sender_claimed_keys: BTreeMap::new(),
                session_id: Some("session".to_owned()),
            },
            verification_state: state,
        }
    }

    #[test]
    fn every_state_of_a_sender_has_its_trust() {
        use DeviceLinkProblem as Problem;
        use VerificationLevel as Level;
        let unverified = VerificationState::Unverified;
        let table = [
            (VerificationState::Verified, Trust::VerifiedDevice),
            // The owner has signed the device, and the bot verifies no owner.
            (unverified(Level::UnverifiedIdentity), Trust::VerifiedDevice),
            (unverified(Level::VerificationViolation), Trust::UnverifiedDevice),
            (unverified(Level::UnsignedDevice), Trust::UnverifiedDevice),
            (unverified(Level::None(Problem::InsecureSource)), Trust::KeyFromBackup),
            (unverified(Level::None(Problem::MissingDevice)), Trust::UnknownDevice),
            (unverified(Level::MismatchedSender), Trust::UnknownDevice),
        ];
        for (state, expected) in table {
            let opened = open("{}".to_owned(), &info(state.clone(), None));
            assert_eq!(opened.trust, expected, "{state:?}");
            let known = (opened.sender.as_str(), opened.device_id.as_deref(), opened.session_id.as_deref());
            assert_eq!(known, ("@alice:example.org", Some("PHONE"), Some("session")));
            // Whoever passed the key on may have made it up, whatever is said of the device.
            let forwarder = ForwarderInfo {
                user_id: user_id!("@bob:example.org").to_owned(),
                device_id: "TABLET".into(),
            };
            assert_eq!(trust(&info(state.clone(), Some(forwarder))), Trust::Forwarded, "{state:?}");
        }
    }
}
