//! Polls: what is asked, and what somebody answered, in words.

use serde_json::Value;

use super::{
    Earlier, Event, body,
    draft::Draft,
    earlier_event,
    lenient::{at, str_at},
    message::{current_content, relation},
    vocabulary::{MESSAGES, POLL_ANSWERED, POLL_ENDED, find},
};

/// The specification allows 20 answers.
const MAX_ANSWERS: usize = 50;

/// The poll that an answer, or the end of a poll, belongs to: its words are there.
pub(super) fn asked_by(event: &Event) -> Option<&str> {
    let verb = find(MESSAGES, event.kind()?)?;
    if event.is_state() || (verb != POLL_ANSWERED && verb != POLL_ENDED) {
        return None;
    }
    str_at(relation(event)?, &["event_id"])
}

/// Question and answers of a poll; nothing of any other content.
pub(super) fn words(content: &Value) -> Vec<&str> {
    let Some(poll) = poll(content) else { return Vec::new() };
    question(poll).into_iter().chain(answers(poll).filter_map(|(_, text)| text)).collect()
}

/// Whether a text says nothing but these words, in their order: with numbers or signs before them, and perhaps not all.
pub(super) fn repeats(words: &[&str], text: &str) -> bool {
    let mut rest = text.trim();
    for word in words.iter().map(|word| word.trim()) {
        let after = without_mark(rest).strip_prefix(word).or_else(|| rest.strip_prefix(word));
        rest = after.map_or(rest, str::trim_start);
    }
    rest.is_empty() && !words.is_empty()
}

/// Without what counts the entries of a list.
fn without_mark(text: &str) -> &str {
    let number = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let rest = if number.len() < text.len() {
        number.strip_prefix(['.', ')', ':'])
    } else {
        text.strip_prefix(['-', '*', '•'])
    };
    rest.map_or(text, str::trim_start)
}

/// Somebody chose answers. The event has only their identifiers, and perhaps a text.
pub(super) fn answered(draft: &mut Draft, content: &Value, earlier: Option<&Earlier>) {
    let asked = earlier.and_then(earlier_event).map(|event| current_content(&event));
    let poll = asked.as_ref().and_then(poll);
    let mut lines: Vec<&str> = poll.and_then(question).into_iter().collect();
    let chosen = chosen(content);
    for id in chosen.iter().flatten() {
        let known = poll.and_then(|poll| answers(poll).find(|(known, _)| known == id));
        lines.push(known.and_then(|(_, text)| text).unwrap_or(id));
    }
    let said = body::text(content).filter(|said| !repeats(&lines, said));
    // Of a form that nobody knows its text is all there is.
    if chosen.as_ref().map_or(said.is_none(), Vec::is_empty) {
        lines.push("no answer");
    }
    lines.extend(said.as_deref());
    draft.text(Some(lines.join("\n")));
}

/// A poll is over. What else the event says is often no more than that.
pub(super) fn ended(draft: &mut Draft, content: &Value, earlier: Option<&Earlier>) {
    let asked = earlier.and_then(earlier_event).map(|event| current_content(&event));
    let mut lines: Vec<&str> = asked.as_ref().and_then(poll).and_then(question).into_iter().collect();
    let said = body::text(content).filter(|said| !repeats(&lines, said));
    lines.extend(said.as_deref());
    draft.text(Some(lines.join("\n")));
}

fn poll(content: &Value) -> Option<&Value> {
    ["m.poll", "m.poll.start", "org.matrix.msc3381.poll.start"].iter().find_map(|key| at(content, &[key]))
}

fn question(poll: &Value) -> Option<&str> {
    at(poll, &["question"]).and_then(text)
}

/// Identifiers and texts.
fn answers(poll: &Value) -> impl Iterator<Item = (&str, Option<&str>)> {
    let answers = at(poll, &["answers"]).and_then(Value::as_array);
    answers.into_iter().flatten().take(MAX_ANSWERS).map(|answer| {
        let id = str_at(answer, &["m.id"]).or_else(|| str_at(answer, &["id"]));
        (id.unwrap_or_default(), text(answer))
    })
}

fn text(part: &Value) -> Option<&str> {
    body::words(part).or_else(|| str_at(part, &["body"]))
}

/// The identifiers of the answers; nothing if the form is one that nobody knows.
fn chosen(content: &Value) -> Option<Vec<&str>> {
    let forms = [
        &["m.selections"][..],
        &["m.poll.response", "answers"],
        &["org.matrix.msc3381.poll.response", "answers"],
    ];
    let chosen = forms.iter().find_map(|path| at(content, path)?.as_array())?;
    Some(chosen.iter().filter_map(Value::as_str).take(MAX_ANSWERS).collect())
}
