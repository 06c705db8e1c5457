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

/// Somebody chose answers. The event has only their identifiers.
pub(super) fn answered(draft: &mut Draft, content: &Value, earlier: Option<&Earlier>) {
    let asked = earlier.and_then(earlier_event).map(|event| current_content(&event));
    let poll = asked.as_ref().and_then(poll);
    let mut lines: Vec<&str> = poll.and_then(question).into_iter().collect();
    let chosen = chosen(content);
    if chosen.is_empty() {
        lines.push("no answer");
    }
    for id in chosen {
        let known = poll.and_then(|poll| answers(poll).find(|(known, _)| *known == id));
        lines.push(known.and_then(|(_, text)| text).unwrap_or(id));
    }
    draft.text(Some(lines.join("\n")));
}

/// A poll is over. What else the event says is often no more than that.
pub(super) fn ended(draft: &mut Draft, content: &Value, earlier: Option<&Earlier>) {
    let asked = earlier.and_then(earlier_event).map(|event| current_content(&event));
    let question = asked.as_ref().and_then(poll).and_then(question).map(str::to_owned);
    let lines: Vec<String> = question.into_iter().chain(body::text(content)).collect();
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

fn chosen(content: &Value) -> Vec<&str> {
    let forms = [
        &["m.selections"][..],
        &["m.poll.response", "answers"],
        &["org.matrix.msc3381.poll.response", "answers"],
    ];
    let chosen = forms.iter().find_map(|path| at(content, path)?.as_array());
    chosen.into_iter().flatten().filter_map(Value::as_str).take(MAX_ANSWERS).collect()
}
