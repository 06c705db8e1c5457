//! Records for people and for machines. What was recorded is hostile: it must not control the
//! reader's terminal.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    cli::terminal::{self, Format, printable},
    domain::{
        filter::StoredRecord,
        record::{Actor, Change, Context, Occurred, RecordDraft, Relation, Subject, Trust},
    },
    trail::json,
};

/// The last column is cut here, the others where they would push it out of sight.
const TEXT: usize = 100;
const COLUMN: usize = 40;

pub(super) fn heading(out: &mut impl Write, format: Format) -> io::Result<()> {
    match format {
        Format::Table => row(out, ["SEQ", "OCCURRED (UTC)", "ACTION", "ACTOR", "ROOM", "TEXT"]),
        Format::Json => Ok(()),
    }
}

pub(super) fn record(out: &mut impl Write, format: Format, record: &StoredRecord) -> io::Result<()> {
    match format {
        Format::Table => table_row(out, record),
        Format::Json => json_line(out, record),
    }
}

fn row(out: &mut impl Write, [seq, time, action, actor, room, text]: [&str; 6]) -> io::Result<()> {
    let line = format!("{seq:>8}  {time:<20}  {action:<24}  {actor:<30}  {room:<30}  {text}");
    writeln!(out, "{}", line.trim_end())
}

fn table_row(out: &mut impl Write, record: &StoredRecord) -> io::Result<()> {
    let seq = record.seq.to_string();
    let time = record.occurred_at.strftime("%Y-%m-%d %H:%M:%S").to_string();
    let Some(content) = &record.content else {
        return row(out, [&seq, &time, "(erased)", "", "", ""]);
    };
    let room = content.relations.iter().find(|r| r.kind == "room" && r.role == "in");
    row(
        out,
        [
            &seq,
            &time,
            &printable(&content.action, COLUMN),
            &printable(content.actor.id(), COLUMN),
            &printable(room.map_or("", |room| &room.id), COLUMN),
            &printable(&summary(content), TEXT),
        ],
    )
}

/// The text, or else what changed.
fn summary(content: &RecordDraft) -> String {
    if let Some(text) = &content.text {
        return text.clone();
    }
    let side = |value: &Option<serde_json::Value>| value.as_ref().map_or("-".to_owned(), json::to_text);
    let changes: Vec<_> = content
        .changes
        .iter()
        .take(3)
        .map(|Change { path, before, after }| format!("{path}: {} -> {}", side(before), side(after)))
        .collect();
    changes.join("; ")
}

#[derive(Serialize)]
struct JsonRecord<'a> {
    seq: i64,
    epoch: i64,
    recorded_at: String,
    occurred_at: String,
    content: Option<JsonContent<'a>>,
}

/// As [`RecordDraft`], but changes are written without recursion.
#[derive(Serialize)]
struct JsonContent<'a> {
    source_id: &'a str,
    category: &'static str,
    action: &'a str,
    occurred: Occurred,
    actor: &'a Actor,
    on_behalf_of: Option<&'a str>,
    context: &'a Context,
    relations: &'a [Relation],
    changes: Vec<JsonChange<'a>>,
    text: Option<&'a str>,
    source_raw: Option<&'a str>,
    plaintext_raw: Option<&'a str>,
    trust: Trust,
    undecryptable_reason: Option<&'a str>,
    subjects: &'a [Subject],
}

#[derive(Serialize)]
struct JsonChange<'a> {
    path: &'a str,
    before: Option<Box<RawValue>>,
    after: Option<Box<RawValue>>,
}

fn json_line(out: &mut impl Write, record: &StoredRecord) -> io::Result<()> {
    let raw = |value: &Option<serde_json::Value>| {
        value.as_ref().map(|value| RawValue::from_string(json::to_text(value))).transpose()
    };
    let content = match &record.content {
        None => None,
        Some(draft) => {
            let changes: serde_json::Result<Vec<_>> = draft
                .changes
                .iter()
                .map(|Change { path, before, after }| {
                    Ok(JsonChange { path, before: raw(before)?, after: raw(after)? })
                })
                .collect();
            Some(json_content(draft, changes?))
        }
    };
    let record = JsonRecord {
        seq: record.seq,
        epoch: record.epoch,
        recorded_at: record.recorded_at.to_string(),
        occurred_at: record.occurred_at.to_string(),
        content,
    };
    terminal::json_line(out, &record)
}

fn json_content<'a>(draft: &'a RecordDraft, changes: Vec<JsonChange<'a>>) -> JsonContent<'a> {
    JsonContent {
        source_id: &draft.source_id,
        category: draft.category.as_str(),
        action: &draft.action,
        occurred: draft.occurred,
        actor: &draft.actor,
        on_behalf_of: draft.on_behalf_of.as_deref(),
        context: &draft.context,
        relations: &draft.relations,
        changes,
        text: draft.text.as_deref(),
        source_raw: draft.source_raw.as_deref(),
        plaintext_raw: draft.plaintext_raw.as_deref(),
        trust: draft.trust,
        undecryptable_reason: draft.undecryptable_reason.as_deref(),
        subjects: &draft.subjects,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::record::Category;

    fn hostile() -> StoredRecord {
        let text = "\u{1b}[2J\u{9b}31m\r\nline\u{202e}gnp.exe\0\u{e0041}".to_owned();
        StoredRecord {
            seq: 7,
            epoch: 1,
            recorded_at: jiff::Timestamp::UNIX_EPOCH,
            occurred_at: jiff::Timestamp::UNIX_EPOCH,
            content: Some(RecordDraft {
                source_id: text.clone(),
                category: Category::UserActivity,
                action: "message.sent".to_owned(),
                occurred: Occurred::At(0),
                actor: Actor::matrix(text.clone()),
                on_behalf_of: None,
                context: Context::default(),
                relations: vec![Relation::new("room", text.clone(), "in")],
                changes: vec![Change { path: "/a".into(), before: None, after: Some(json!([text])) }],
                text: Some(text),
                source_raw: None,
                plaintext_raw: None,
                trust: Trust::Plain,
                undecryptable_reason: None,
                subjects: vec![],
            }),
        }
    }

    fn print(format: Format, stored: &StoredRecord) -> String {
        let mut out = Vec::new();
        record(&mut out, format, stored).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn nothing_that_was_recorded_controls_the_terminal() {
        for format in [Format::Table, Format::Json] {
            let line = print(format, &hostile());
            let line = line.strip_suffix('\n').unwrap();
            assert!(!line.chars().any(crate::cli::terminal::is_unsafe), "{line:?}");
        }
    }

    #[test]
    fn json_is_lossless_nevertheless() {
        let stored = hostile();
        let line: Value = serde_json::from_str(&print(Format::Json, &stored)).unwrap();
        let content = stored.content.unwrap();
        assert_eq!(line["content"]["text"], json!(content.text));
        assert_eq!(line["content"]["changes"][0]["after"], content.changes[0].after.clone().unwrap());
        assert_eq!(line["content"]["category"], "user_activity");
        let read: RecordDraft = serde_json::from_value(line["content"].clone()).unwrap();
        assert_eq!(read, content);
    }

    #[test]
    fn deep_values_do_not_recurse() {
        let mut stored = hostile();
        let mut deep = json!(1);
        // More than a parser accepts, few enough for the recursion of dropping the value.
        for _ in 0..1_000 {
            deep = Value::Array(vec![deep]);
        }
        let content = stored.content.as_mut().unwrap();
        content.changes[0].after = Some(deep);
        content.text = None;
        assert!(print(Format::Json, &stored).contains("[[[[[["));
        assert!(print(Format::Table, &stored).contains("/a: - -> [[[["));
    }

    #[test]
    fn a_long_text_is_cut_and_an_erased_record_said_to_be_so() {
        let mut stored = hostile();
        stored.content.as_mut().unwrap().text = Some("ä".repeat(500));
        assert!(print(Format::Table, &stored).ends_with("ä…\n"));
        stored.content = None;
        assert!(print(Format::Table, &stored).contains("(erased)"));
    }
}
