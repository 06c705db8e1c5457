//! What a recorded message has attached to it (pure).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    domain::record::{Actor, RecordDraft, Relation},
    store::NewAttachment,
    worker::convert::read,
};

/// Where attachments stand in a content: the media itself, and the part that it plays. Of an encrypted
/// one the object around its address says how to open it.
const PLACES: [(&[&str], &str); 4] = [
    (&["file"], "attached"),
    (&["url"], "attached"),
    (&["info", "thumbnail_file"], "thumbnail"),
    (&["info", "thumbnail_url"], "thumbnail"),
];

/// A message without edit has two at most, an edit that differs in both has four. What else fits into an event is
/// there to have more fetched.
const MOST: usize = 4;

/// An attachment that is to be fetched, with what the message says of it. All of it was chosen by the
/// sender.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wanted {
    /// Source id of the record of the message.
    pub(super) source_id: String,
    /// Its place among the attachments of the message.
    pub(super) number: usize,
    pub(super) mxc: String,
    pub(super) role: String,
    pub(super) event: Option<String>,
    pub(super) room: Option<String>,
    pub(super) sender: Option<String>,
    pub(super) name: Option<String>,
    pub(super) mimetype: Option<String>,
    pub(super) size: Option<i64>,
    /// How to open it, if it is encrypted: JSON text of the object that the event has.
    pub(super) file: Option<String>,
}

/// The attachments of a record's message, ready to be queued with it.
pub(super) fn attachments(draft: &RecordDraft) -> Vec<NewAttachment> {
    let queued = find(draft).into_iter().filter_map(|wanted| {
        let source_id = wanted.source_id.clone();
        Some(NewAttachment { source_id, wanted: serde_json::to_string(&wanted).ok()? })
    });
    queued.collect()
}

fn find(draft: &RecordDraft) -> Vec<Wanted> {
    // What the conversion did not take for an attachment is none; most messages have none at all.
    let has = |mxc: &str, role: &str| draft.relations.contains(&Relation::new("media", mxc, role));
    let is_message = draft.action.starts_with("message.") || draft.action == "event.sent";
    if !is_message || draft.relations.iter().all(|relation| relation.kind != "media") {
        return Vec::new();
    }
    let Some(raw) = draft.plaintext_raw.as_deref().or(draft.source_raw.as_deref()) else { return Vec::new() };
    let event = read(raw);
    let mut found: Vec<Wanted> = Vec::new();
    // An edit says its attachment twice: in the new content, and for clients that know no edits.
    let contents = [event.pointer("/content/m.new_content"), event.get("content")];
    // The media before any preview, so that nothing is left out in favour of what need not show it.
    for (path, role) in PLACES {
        for content in contents.into_iter().flatten() {
            let Some((mxc, file)) = at(content, path).and_then(address) else { continue };
            let wanted = Wanted { mxc, role: role.to_owned(), file, ..described(draft, content, role) };
            let is_known = found.iter().any(|other| {
                other.mxc == wanted.mxc && other.role == wanted.role && other.file == wanted.file
            });
            if has(&wanted.mxc, role) && !is_known && found.len() < MOST {
                found.push(Wanted { number: found.len(), ..wanted });
            }
        }
    }
    found
}

fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| value.get(key))
}

/// The address of a media, and how to open it.
fn address(value: &Value) -> Option<(String, Option<String>)> {
    let of = |value: &Value| value.as_str().filter(|uri| uri.starts_with("mxc://")).map(str::to_owned);
    match value {
        Value::Object(file) => Some((of(file.get("url")?)?, Some(value.to_string()))),
        plain => Some((of(plain)?, None)),
    }
}

/// What the message says of it.
fn described(draft: &RecordDraft, content: &Value, role: &str) -> Wanted {
    let text = |path: &[&str]| at(content, path).and_then(Value::as_str).map(str::to_owned);
    let number = |path: &[&str]| at(content, path).and_then(Value::as_i64);
    let (name, mimetype, size) = if role == "thumbnail" {
        (None, text(&["info", "thumbnail_info", "mimetype"]), number(&["info", "thumbnail_info", "size"]))
    } else {
        (
            text(&["filename"]).or_else(|| text(&["body"])),
            text(&["info", "mimetype"]),
            number(&["info", "size"]),
        )
    };
    let relation = |kind: &str, roles: &[&str]| {
        let fits = |relation: &&Relation| relation.kind == kind && roles.contains(&relation.role.as_str());
        draft.relations.iter().find(fits).map(|relation| relation.id.clone())
    };
    let sender = match (&draft.on_behalf_of, &draft.actor) {
        (Some(user), _) => Some(user.clone()),
        (None, Actor::MatrixUser { id }) => Some(id.clone()),
        _ => None,
    };
    Wanted {
        source_id: draft.source_id.clone(),
        event: relation("event", &["self", "plaintext_of"]),
        room: relation("room", &["in"]),
        sender,
        name,
        mimetype,
        size,
        ..Wanted::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::worker::convert::{Encryption, Input, convert};

    fn wanted(content: &Value) -> Vec<Wanted> {
        let raw =
            json!({"event_id": "$e", "sender": "@alice:x", "type": "m.room.message", "content": content});
        let raw = raw.to_string();
        let input = Input { room_id: "!r", raw: &raw, encryption: Encryption::None, caused_by: None };
        let draft = convert(&input, None);
        let queued = attachments(&draft);
        assert!(queued.iter().all(|queued| queued.source_id == "matrix:event:$e"));
        queued.iter().map(|queued| serde_json::from_str(&queued.wanted).unwrap()).collect()
    }

    #[test]
    fn a_file_and_its_thumbnail_are_wanted_with_what_the_message_says_of_them() {
        let file = json!({"url": "mxc://x/cipher", "key": {"k": "secret"}});
        let found = wanted(&json!({"msgtype": "m.image", "body": "cat.png", "file": file,
            "info": {"mimetype": "image/png", "size": 7, "thumbnail_url": "mxc://x/thumb",
                "thumbnail_info": {"mimetype": "image/jpeg", "size": 3}}}));
        let [cat, thumbnail] = &found[..] else { panic!("{found:?}") };
        assert_eq!((cat.mxc.as_str(), cat.role.as_str(), cat.number), ("mxc://x/cipher", "attached", 0));
        assert_eq!(serde_json::from_str::<Value>(cat.file.as_ref().unwrap()).unwrap(), file);
        assert_eq!((cat.name.as_deref(), cat.size), (Some("cat.png"), Some(7)));
        assert_eq!((cat.event.as_deref(), cat.room.as_deref()), (Some("$e"), Some("!r")));
        assert_eq!(cat.sender.as_deref(), Some("@alice:x"));
        assert_eq!((thumbnail.mxc.as_str(), thumbnail.number), ("mxc://x/thumb", 1));
        assert_eq!((thumbnail.mimetype.as_deref(), thumbnail.size), (Some("image/jpeg"), Some(3)));
        assert_eq!((&thumbnail.file, &thumbnail.name), (&None, &None));
    }

    #[test]
    fn an_edit_that_repeats_its_attachment_has_it_once_and_one_that_differs_has_both() {
        let old = json!({"msgtype": "m.file", "body": "a", "url": "mxc://x/one"});
        let edit = |new: &str| {
            let mut content = old.clone();
            content["m.new_content"] = json!({"msgtype": "m.file", "body": "a", "url": new});
            content["m.relates_to"] = json!({"rel_type": "m.replace", "event_id": "$o"});
            wanted(&content).into_iter().map(|wanted| wanted.mxc).collect::<Vec<_>>()
        };
        assert_eq!(edit("mxc://x/one"), ["mxc://x/one"]);
        // Clients that know no edits show the other one.
        assert_eq!(edit("mxc://x/two"), ["mxc://x/two", "mxc://x/one"]);
    }

    #[test]
    fn an_event_has_few_attachments_however_many_it_names_and_the_media_first() {
        let content = |name: &str| {
            let mxc = |of: &str| format!("mxc://x/{name}-{of}");
            json!({"msgtype": "m.image", "body": "a", "url": mxc("url"), "file": {"url": mxc("file")},
                "info": {"thumbnail_url": mxc("thumb"), "thumbnail_file": {"url": mxc("thumb-file")}}})
        };
        let mut edit = content("old");
        edit["m.new_content"] = content("new");
        edit["m.relates_to"] = json!({"rel_type": "m.replace", "event_id": "$o"});
        let found = wanted(&edit);
        assert!(found.len() <= MOST, "{found:?}");
        assert!(found.iter().all(|wanted| wanted.role == "attached"), "{found:?}");
        assert!(wanted(&content("one")).len() <= MOST);
    }

    #[test]
    fn what_is_no_attachment_is_not_wanted() {
        for content in [
            json!({"msgtype": "m.text", "body": "mxc://x/y"}),
            json!({"msgtype": "m.file", "url": "https://x/y"}),
            json!({"msgtype": "m.file", "url": 7, "file": "mxc://x/y"}),
            json!({"msgtype": "m.file", "file": {"url": ["mxc://x/y"]}}),
            json!([1]),
            Value::Null,
        ] {
            assert_eq!(wanted(&content), [], "{content}");
        }
    }
}
