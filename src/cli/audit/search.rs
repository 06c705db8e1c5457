//! `ems-bots audit search`.

use std::{io::Write as _, process::ExitCode};

use super::{output, times::Time};
use crate::{
    cli::{
        reader::{self, ReaderArgs},
        terminal::Format,
    },
    domain::{
        Clock as _, SystemClock,
        filter::{PageRequest, SearchFilter},
        record::Category,
    },
    store::AuditReader as _,
};

/// A page is what is held in memory at a time.
const PAGE: u32 = 500;

/// Arguments of `ems-bots audit search`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Times: 2h, 3d, 1w (ago), 2026-11-20, 2026-11-20T08:00 (UTC), or RFC 3339 with an offset.

Examples:
  ems-bots audit search invoice --since 2d
  ems-bots audit search --room '!room:example.org' --action room.member. --output json

Exit codes:
  0  done, also when nothing is found (the table then has its heading only)
  1  the database cannot be read; the message says what to do
  2  the command line is wrong
  4  refused: wrong user or password, or the schema is newer than this program")]
pub(super) struct Args {
    /// Words that all occur in the record.
    text: Vec<String>,
    /// Room identifier.
    #[arg(long)]
    room: Option<String>,
    /// Who did it, for example @alice:example.org.
    #[arg(long)]
    actor: Option<String>,
    /// Action; with a dot at the end every action that begins so (room.member.).
    #[arg(long)]
    action: Option<String>,
    /// Category: `resource_change`, `user_activity`, `system_change`, `access_event` or `admin_operation`.
    #[arg(long, value_parser = category)]
    category: Option<Category>,
    /// Occurred at or after this time.
    #[arg(long, value_parser = Time::parse)]
    since: Option<Time>,
    /// Occurred before this time.
    #[arg(long, value_parser = Time::parse)]
    until: Option<Time>,
    /// At most this many records.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// A table for people, or one JSON object per line with everything that is recorded.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
    #[command(flatten)]
    reader: ReaderArgs,
}

fn category(text: &str) -> Result<Category, String> {
    Category::parse(text).ok_or_else(|| {
        let names: Vec<_> = Category::ALL.into_iter().map(Category::as_str).collect();
        format!("use one of {}", names.join(", "))
    })
}

/// Runs it.
pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let filter = filter(&args)?;
    reader::settled(print(&args, &filter).await)
}

fn filter(args: &Args) -> anyhow::Result<SearchFilter> {
    let now = SystemClock.now();
    let resolve = |time: &Option<Time>| time.as_ref().map(|time| time.resolve(now)).transpose();
    Ok(SearchFilter {
        text: (!args.text.is_empty()).then(|| args.text.join(" ")),
        room: args.room.clone(),
        actor: args.actor.clone(),
        action: args.action.clone(),
        category: args.category,
        since: resolve(&args.since)?,
        until: resolve(&args.until)?,
    })
}

async fn print(args: &Args, filter: &SearchFilter) -> anyhow::Result<()> {
    let reader = args.reader.connect("ems-bots/audit-search").await?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    output::heading(&mut out, args.output)?;
    let mut before_seq = None;
    let mut left = args.limit;
    while left > 0 {
        let limit = u16::try_from(left.min(PAGE)).unwrap_or(u16::MAX);
        let page = reader.search(filter, PageRequest { before_seq, limit }).await?;
        left = left.saturating_sub(u32::try_from(page.items.len()).unwrap_or(u32::MAX));
        for item in &page.items {
            output::record(&mut out, args.output, item)?;
        }
        before_seq = page.next_before_seq;
        if before_seq.is_none() {
            break;
        }
    }
    out.flush()?;
    Ok(())
}
