//! What became of an attachment, as a record (pure).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::wanted::Wanted;
use crate::{
    domain::{
        BotName,
        record::{Change, RecordDraft, Relation, Subject},
        worker::MediaMode,
    },
    store::MediaHash,
    worker::{
        records::own,
        vocabulary::{ATTACHMENT_DESCRIBED, ATTACHMENT_KEPT, ATTACHMENT_NOT_KEPT, Verb},
    },
};

/// So many tries have to say that a content is gone or corrupt: a cache, or a server on the way, may be wrong.
const SURE: u32 = 3;
/// After that nobody expects it any more. Neither alone is a reason: the worker may have stood still, or a
/// try may cost nothing.
const GIVE_UP: SignedDuration = SignedDuration::from_hours(30 * 24);
const GIVE_UP_TRIES: u32 = 100;

/// Why an attachment is never fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Miss {
    /// Larger than the custom resource allows.
    TooLarge,
    /// The homeserver does not have it, or not any more, or does not give it out.
    Gone,
    /// The homeserver refuses to give it to the bot.
    Refused,
    /// It is not what the sender encrypted.
    Corrupt,
    /// Its address, or what should open it, is none.
    Unreadable,
    /// The custom resource does not ask for it any more.
    Policy,
    /// It could not be had for a month, in many tries.
    Unreachable,
}

impl Miss {
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Gone => "gone",
            Self::Refused => "refused",
            Self::Corrupt => "corrupt",
            Self::Unreadable => "unreadable",
            Self::Policy => "policy",
            Self::Unreachable => "unreachable",
        }
    }
}

/// Why an attachment was not fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failed {
    /// It is not worth trying again.
    Never(Miss),
    /// Nor is this, if it happens several times.
    Perhaps(Miss),
    /// It is.
    Later {
        why: String,
        /// After as long as the other side asked for.
        asked: Option<Duration>,
        /// Others would fail as well.
        outage: bool,
    },
}

impl Failed {
    pub(super) fn later(why: impl Into<String>) -> Self {
        Self::Later { why: why.into(), asked: None, outage: false }
    }

    pub(super) fn outage(why: impl Into<String>) -> Self {
        Self::Later { why: why.into(), asked: None, outage: true }
    }

    /// What is recorded if this is final for an attachment of which so many tries have failed before and that
    /// waits for so long. An outage never is: it says nothing of the attachment.
    pub(super) fn last(&self, tries: u32, age: SignedDuration) -> Option<Miss> {
        match self {
            Self::Never(miss) => Some(*miss),
            Self::Perhaps(miss) => (tries.saturating_add(1) >= SURE).then_some(*miss),
            Self::Later { outage: true, .. } => None,
            Self::Later { outage: false, .. } => {
                (age > GIVE_UP && tries >= GIVE_UP_TRIES).then_some(Miss::Unreachable)
            }
        }
    }
}

impl From<Miss> for Failed {
    fn from(miss: Miss) -> Self {
        Self::Never(miss)
    }
}

/// What was found in an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Measured {
    pub(super) sha256: MediaHash,
    pub(super) size: u64,
}

/// How a content is named in relations, whatever it was called and wherever it came from.
fn content_name(sha256: &MediaHash) -> String {
    format!("sha256:{}", hex::encode(sha256))
}

/// The record of what became of an attachment. One per attachment: a second try finds it recorded.
pub(super) fn record(
    bot: &BotName,
    wanted: &Wanted,
    mode: MediaMode,
    found: Result<Measured, Miss>,
    now: Timestamp,
) -> RecordDraft {
    let what = format!("attachment:{}:{}", wanted.number, wanted.source_id);
    let Verb { category, action } = verb(mode, found);
    let mut draft = own(bot, category, action, &what, now);
    draft.text.clone_from(&wanted.name);
    draft.relations.push(Relation::new("media", &wanted.mxc, &wanted.role));
    draft.relations.extend(wanted.room.as_ref().map(|room| Relation::new("room", room, "in")));
    draft.relations.extend(wanted.event.as_ref().map(|event| Relation::new("event", event, "attached_to")));
    draft.subjects.extend(
        wanted.sender.as_ref().map(|sender| Subject { person: sender.clone(), role: "author".to_owned() }),
    );
    let (mut size, mut sha256) = (None, None);
    match found {
        Ok(measured) => {
            draft.relations.push(Relation::new("media", content_name(&measured.sha256), "content"));
            size = Some(measured.size.into());
            sha256 = Some(hex::encode(measured.sha256).into());
        }
        Err(miss) => draft.context.reason = Some(miss.reason().to_owned()),
    }
    let named = |path: &str, after: Option<Value>| {
        after.map(|after| Change { path: format!("/attachment/{path}"), before: None, after: Some(after) })
    };
    let text = |text: &Option<String>| text.clone().map(Value::from);
    draft.changes = [
        named("name", text(&wanted.name)),
        named("type", text(&wanted.mimetype)),
        named("claimedSize", wanted.size.map(Value::from)),
        named("size", size),
        named("sha256", sha256),
    ]
    .into_iter()
    .flatten()
    .collect();
    draft
}

/// Without its content an attachment is described all the same.
pub(super) fn verb(mode: MediaMode, found: Result<Measured, Miss>) -> Verb {
    match (mode, found) {
        (MediaMode::Metadata, _) => ATTACHMENT_DESCRIBED,
        (MediaMode::Content, Ok(_)) => ATTACHMENT_KEPT,
        (MediaMode::Content, Err(_)) => ATTACHMENT_NOT_KEPT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::BotKind;

    fn bot() -> BotName {
        BotName { namespace: "n".into(), name: "b".into(), kind: BotKind::Audit }
    }

    fn wanted() -> Wanted {
        Wanted {
            source_id: "matrix:event:$e".into(),
            number: 1,
            mxc: "mxc://x/y".into(),
            role: "attached".into(),
            event: Some("$e".into()),
            room: Some("!r".into()),
            sender: Some("@alice:x".into()),
            name: Some("cat.png".into()),
            mimetype: Some("image/png".into()),
            size: Some(-3),
            file: Some("{\"key\":\"secret\"}".into()),
        }
    }

    #[test]
    fn what_was_measured_stands_beside_what_was_claimed() {
        let measured = Measured { sha256: [0xab; 32], size: 12 };
        let draft = record(&bot(), &wanted(), MediaMode::Content, Ok(measured), Timestamp::UNIX_EPOCH);
        assert_eq!(draft.action, "attachment.kept");
        assert_eq!(draft.source_id, "worker:attachment:1:matrix:event:$e");
        let changes: Vec<_> = draft
            .changes
            .iter()
            .map(|change| (change.path.as_str(), change.after.clone().unwrap()))
            .collect();
        assert_eq!(
            changes,
            [
                ("/attachment/name", "cat.png".into()),
                ("/attachment/type", "image/png".into()),
                ("/attachment/claimedSize", (-3).into()),
                ("/attachment/size", 12.into()),
                ("/attachment/sha256", "ab".repeat(32).into()),
            ]
        );
        for (kind, id, role) in [
            ("media", "mxc://x/y".to_owned(), "attached"),
            ("media", format!("sha256:{}", "ab".repeat(32)), "content"),
            ("event", "$e".to_owned(), "attached_to"),
            ("room", "!r".to_owned(), "in"),
        ] {
            assert!(draft.relations.contains(&Relation::new(kind, &id, role)), "{kind} {id}");
        }
        assert_eq!(draft.subjects, [Subject { person: "@alice:x".into(), role: "author".into() }]);
        let text = serde_json::to_string(&draft).unwrap();
        assert!(!text.contains("secret"), "how to open it stands in the message's record: {text}");
    }

    #[test]
    fn what_is_final_depends_on_what_was_said_how_often_and_for_how_long() {
        let (young, old) = (SignedDuration::from_hours(1), SignedDuration::from_hours(31 * 24));
        let (gone, later, outage) = (Failed::Perhaps(Miss::Gone), Failed::later("x"), Failed::outage("x"));
        for (failed, tries, age, expected) in [
            (&Failed::Never(Miss::TooLarge), 0, young, Some(Miss::TooLarge)),
            (&gone, 0, old, None),
            (&gone, 1, young, None),
            (&gone, 2, young, Some(Miss::Gone)),
            (&later, 0, old, None),
            (&later, 99, old, None),
            (&later, 100, young, None),
            (&later, 100, old, Some(Miss::Unreachable)),
            (&outage, 5000, old, None),
        ] {
            assert_eq!(failed.last(tries, age), expected, "{failed:?} {tries} {age}");
        }
    }

    #[test]
    fn without_a_content_the_record_says_why_and_names_no_hash() {
        for (mode, action) in
            [(MediaMode::Content, "attachment.not_kept"), (MediaMode::Metadata, "attachment.described")]
        {
            let draft = record(&bot(), &wanted(), mode, Err(Miss::TooLarge), Timestamp::UNIX_EPOCH);
            assert_eq!((draft.action.as_str(), draft.context.reason.as_deref()), (action, Some("too_large")));
            assert!(draft.changes.iter().all(|change| change.path != "/attachment/sha256"));
        }
    }
}
