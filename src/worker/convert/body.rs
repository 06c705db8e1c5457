//! What a message says: the text that a person would search for, in any of the forms that Matrix has
//! had for it.

use serde_json::Value;

use super::{
    lenient::{at, str_at},
    poll,
};

/// Marks of a voice message, which is an audio file otherwise.
const VOICE: [&str; 2] = ["org.matrix.msc3245.voice", "m.voice"];

/// What a person would search for.
pub(super) fn text(content: &Value) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    // A poll is told once more in one text, for clients that do not know polls.
    let poll = poll::words(content);
    let is_more = |part: &&str| !poll::repeats(&poll, part);
    let body = str_at(content, &["body"]).or_else(|| str_at(content, &["formatted_body"]));
    parts.extend(body.map(|body| without_reply_fallback(content, body)).filter(is_more));
    parts.extend(["filename", "geo_uri"].iter().filter_map(|key| str_at(content, &[key])));
    parts.extend(words(content).filter(is_more));
    for key in ["m.location", "org.matrix.msc3488.location"] {
        parts.extend(["description", "uri"].iter().filter_map(|field| str_at(content, &[key, field])));
    }
    parts.extend(poll);
    let voice = voice_words(content);
    parts.extend(voice.as_deref());
    // The same is often said in a newer and in an older form.
    let mut unique: Vec<&str> = Vec::new();
    for part in parts {
        if !unique.contains(&part) {
            unique.push(part);
        }
    }
    (!unique.is_empty()).then(|| unique.join("\n"))
}

/// The text of a part of an event, in its newer or its older form.
pub(super) fn words(value: &Value) -> Option<&str> {
    ["m.text", "org.matrix.msc1767.text"].iter().find_map(|key| {
        let text = at(value, &[key])?;
        let first = text.as_array().and_then(|forms| forms.iter().find_map(|form| str_at(form, &["body"])));
        text.as_str().or(first)
    })
}

/// Whether it was spoken.
pub(super) fn is_voice(content: &Value) -> bool {
    VOICE.iter().any(|key| at(content, &[key]).is_some())
}

/// That it was spoken, and for how long: such files are all named alike.
fn voice_words(content: &Value) -> Option<String> {
    if !is_voice(content) {
        return None;
    }
    let length = at(content, &["info", "duration"])
        .or_else(|| at(content, &["org.matrix.msc1767.audio", "duration"]))
        .and_then(Value::as_u64);
    Some(match length {
        Some(ms) => format!("voice message of {} s", ms.div_ceil(1000)),
        None => "voice message".to_owned(),
    })
}

/// Older clients repeat what they reply to in lines that start with `> `: that is not what this
/// person wrote.
fn without_reply_fallback<'a>(content: &Value, body: &'a str) -> &'a str {
    if at(content, &["m.relates_to", "m.in_reply_to"]).is_none() || !body.starts_with("> ") {
        return body;
    }
    let mut rest = body;
    while let Some((line, after)) = rest.split_once('\n') {
        if !line.starts_with("> ") && line != ">" {
            return if line.is_empty() { after } else { rest };
        }
        rest = after;
    }
    if rest.starts_with("> ") { body } else { rest }
}
