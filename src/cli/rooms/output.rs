//! Rooms for people and for machines.

use std::io::{self, Write};

use serde::Serialize;

use crate::{
    cli::terminal::{self, Format, printable},
    coverage::planner,
    domain::{
        filter::StoredRecord,
        room::{RoomNote, RoomState},
    },
};

/// Identifiers of rooms are shown whole: they are to be copied.
const ROOM: usize = 256;
const COLUMN: usize = 40;
const NAME: usize = 80;
/// How the actions of the bot's acts in rooms begin.
pub(super) const ACTS: &str = "bot.act.";

pub(super) fn heading(out: &mut impl Write, format: Format) -> io::Result<()> {
    match format {
        Format::Table => row(out, ["ROOM", "STATE", "REASON", "SINCE (UTC)", "NAME"]),
        Format::Json => Ok(()),
    }
}

pub(super) fn line(out: &mut impl Write, format: Format, note: &RoomNote) -> io::Result<()> {
    match format {
        Format::Table => row(
            out,
            [
                &printable(note.room_id.as_str(), ROOM),
                note.state.as_str(),
                &printable(note.reason.as_deref().unwrap_or_default(), COLUMN),
                &utc(note.since),
                &printable(note.name.as_deref().unwrap_or_default(), NAME),
            ],
        ),
        Format::Json => terminal::json_line(out, &JsonRoom::from(note)),
    }
}

fn row(out: &mut impl Write, [room, state, reason, since, name]: [&str; 5]) -> io::Result<()> {
    let line = format!("{room:<46}  {state:<8}  {reason:<20}  {since:<19}  {name}");
    writeln!(out, "{}", line.trim_end())
}

fn utc(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Everything that is known of one room.
pub(super) fn explanation(
    out: &mut impl Write,
    format: Format,
    note: &RoomNote,
    acts: &[StoredRecord],
) -> io::Result<()> {
    match format {
        Format::Table => text(out, note, acts),
        Format::Json => terminal::json_line(out, &JsonExplanation::new(note, acts)),
    }
}

fn text(out: &mut impl Write, note: &RoomNote, acts: &[StoredRecord]) -> io::Result<()> {
    writeln!(out, "room    {}", printable(note.room_id.as_str(), ROOM))?;
    if let Some(name) = &note.name {
        writeln!(out, "name    {}", printable(name, NAME))?;
    }
    writeln!(out, "state   {}, since {} UTC", note.state.as_str(), utc(note.since))?;
    writeln!(out, "        {}", meaning(note.state))?;
    if let Some(reason) = &note.reason {
        writeln!(out, "reason  {}", printable(reason, COLUMN))?;
        let explained = planner::explanation(reason);
        writeln!(
            out,
            "        {}",
            explained.unwrap_or("a newer version of ems-bots knows what this means")
        )?;
    }
    if acts.is_empty() {
        return writeln!(out, "acts    none is recorded");
    }
    writeln!(out, "acts    the last {}, newest first; `ems-bots audit search` has them all", acts.len())?;
    for act in acts {
        writeln!(out, "        {}  {}", utc(act.occurred_at), printable(&words(act), NAME))?;
    }
    Ok(())
}

fn words(act: &StoredRecord) -> String {
    let Some(content) = &act.content else { return "(erased)".to_owned() };
    let how = content.action.strip_prefix(ACTS).unwrap_or(&content.action);
    let what = content.text.as_deref().unwrap_or_default();
    let whose = content.on_behalf_of.as_ref().map(|person| format!(" in the name of {person}"));
    format!("{how}: {what}{}", whose.unwrap_or_default())
}

fn meaning(state: RoomState) -> &'static str {
    match state {
        RoomState::Pending => "it was not looked at yet, or something is being done",
        RoomState::Covered => "the bot is in the room, as an admin",
        RoomState::Limited => "the bot is in the room and reads, without an admin's power",
        RoomState::Excluded => "the selection (spec.rooms) leaves the room out; nothing of it is recorded",
        RoomState::Blocked => "the bot cannot be brought into the room",
    }
}

#[derive(Serialize)]
struct JsonExplanation<'a> {
    #[serde(flatten)]
    room: JsonRoom<'a>,
    explanation: Option<&'static str>,
    acts: Vec<JsonAct>,
}

#[derive(Serialize)]
struct JsonAct {
    occurred_at: jiff::Timestamp,
    act: String,
}

impl<'a> JsonExplanation<'a> {
    fn new(note: &'a RoomNote, acts: &[StoredRecord]) -> Self {
        let act = |act: &StoredRecord| JsonAct { occurred_at: act.occurred_at, act: words(act) };
        Self {
            room: note.into(),
            explanation: note.reason.as_deref().and_then(planner::explanation),
            acts: acts.iter().map(act).collect(),
        }
    }
}

#[derive(Serialize)]
struct JsonRoom<'a> {
    room_id: &'a str,
    name: Option<&'a str>,
    state: &'static str,
    reason: Option<&'a str>,
    since: jiff::Timestamp,
}

impl<'a> From<&'a RoomNote> for JsonRoom<'a> {
    fn from(note: &'a RoomNote) -> Self {
        Self {
            room_id: note.room_id.as_str(),
            name: note.name.as_deref(),
            state: note.state.as_str(),
            reason: note.reason.as_deref(),
            since: note.since,
        }
    }
}
