//! `ems-bots rooms explain`.

use std::{io::Write as _, process::ExitCode};

use super::output;
use crate::{
    cli::{
        reader::{self, ReaderArgs},
        terminal::Format,
    },
    domain::{
        RoomId,
        filter::{PageRequest, SearchFilter},
        room::RoomFilter,
    },
    store::AuditReader as _,
};

/// So many of the bot's last acts in the room are shown.
const ACTS: u16 = 10;

/// Arguments of `ems-bots rooms explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  ems-bots rooms explain '!room:example.org'

Exit codes:
  0  done
  1  the bot knows no such room, or the database cannot be read; the message says what to do
  2  the command line is wrong
  4  refused: wrong user or password, or the schema is newer than this program")]
pub(super) struct Args {
    /// Room identifier.
    #[arg(value_parser = room)]
    room: RoomId,
    /// Text for people, or one JSON object.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    reader: ReaderArgs,
}

fn room(text: &str) -> Result<RoomId, String> {
    RoomId::parse(text).map_err(|error| error.to_string())
}

/// Runs it.
pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    reader::settled(print(&args).await)
}

async fn print(args: &Args) -> anyhow::Result<()> {
    let reader = args.reader.connect("ems-bots/rooms-explain").await?;
    let filter = RoomFilter { room: Some(args.room.clone()), ..RoomFilter::default() };
    let Some(note) = reader.rooms(&filter, None, 1).await?.pop() else {
        anyhow::bail!(
            "the bot knows no room {}; rooms appear here within seconds of being made, `ems-bots rooms list` lists them",
            args.room
        );
    };
    let acts = SearchFilter {
        room: Some(args.room.to_string()),
        action: Some(output::ACTS.to_owned()),
        ..SearchFilter::default()
    };
    let acts = reader.search(&acts, PageRequest { before_seq: None, limit: ACTS }).await?.items;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    output::explanation(&mut out, args.output, &note, &acts)?;
    out.flush()?;
    Ok(())
}
