//! `ems-bots rooms list`.

use std::{io::Write as _, process::ExitCode};

use super::output;
use crate::{
    cli::{
        reader::{self, ReaderArgs},
        terminal::Format,
    },
    domain::room::{RoomFilter, RoomState},
    store::AuditReader as _,
};

/// A page is what is held in memory at a time.
const PAGE: u32 = 1_000;

/// Arguments of `ems-bots rooms list`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The worker notes a change within seconds. Rooms that the selection leaves out have no name here.

Examples:
  ems-bots rooms list --state blocked
  ems-bots rooms list --schema adminbot --output json

Exit codes:
  0  done, also when there is no such room (the table then has its heading only)
  1  the database cannot be read; the message says what to do
  2  the command line is wrong
  4  refused: wrong user or password, or the schema is newer than this program")]
pub(super) struct Args {
    /// Only rooms in this state: pending, covered, limited, excluded or blocked.
    #[arg(long, value_parser = state)]
    state: Option<RoomState>,
    /// Only rooms with this reason code, for example `no_local_admin`.
    #[arg(long)]
    reason: Option<String>,
    /// A table for people, or one JSON object per line.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    reader: ReaderArgs,
}

fn state(text: &str) -> Result<RoomState, String> {
    RoomState::parse(text).ok_or_else(|| {
        let names: Vec<_> = RoomState::ALL.into_iter().map(RoomState::as_str).collect();
        format!("use one of {}", names.join(", "))
    })
}

/// Runs it.
pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    reader::settled(print(&args).await)
}

async fn print(args: &Args) -> anyhow::Result<()> {
    let reader = args.reader.connect("ems-bots/rooms-list").await?;
    let filter = RoomFilter { room: None, state: args.state, reason: args.reason.clone() };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    output::heading(&mut out, args.output)?;
    let mut after = None;
    loop {
        let page = reader.rooms(&filter, after.as_ref(), PAGE).await?;
        for note in &page {
            output::line(&mut out, args.output, note)?;
        }
        match page.into_iter().next_back() {
            Some(last) => after = Some(last.room_id),
            None => break,
        }
    }
    out.flush()?;
    Ok(())
}
