//! `ems-bots rooms preview-removal`.

use std::{
    collections::HashSet,
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;

use crate::{
    cli::{
        terminal::{self, Format, printable},
        worker::HomeserverArgs,
    },
    coverage::{
        planner::Identity,
        preview::{Removal, of_removal},
    },
    domain::{Localpart, RoomId, ServerName, SystemClock, UserId},
    homeserver::{Connect as _, RoomListing},
};

/// Rooms that are looked at together: the homeserver has other things to do.
const TOGETHER: usize = 4;
/// How often it is said how far it is.
const PROGRESS: usize = 500;

/// Arguments of `ems-bots rooms preview-removal`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Runs in the bot's pod, where everything that it needs is set:
  kubectl -n TENANT exec auditbot-worker-0 -- ems-bots rooms preview-removal

Nothing is changed. With spec.deletionPolicy: Retain the removal itself leaves no room either. A bot that is suspended
when it is removed, or whose worker is gone, makes nobody an admin before.

Exit codes:
  0  done
  1  the homeserver does not answer or refuses; the message says what happened
  2  the command line is wrong")]
pub(super) struct Args {
    /// A table for people, or one JSON object per line.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// Only rooms in which somebody is made an admin.
    #[arg(long)]
    hand_overs: bool,
    #[command(flatten)]
    homeserver: HomeserverArgs,
}

/// Rooms by what would happen to them.
#[derive(Default)]
struct Totals {
    rooms: usize,
    hand_overs: usize,
    to_bots: usize,
    left_over: usize,
}

/// Runs it.
pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match print(&args).await {
        Err(error) if terminal::is_closed_pipe(&error) => Ok(ExitCode::SUCCESS),
        outcome => outcome.map(|()| ExitCode::SUCCESS),
    }
}

async fn print(args: &Args) -> anyhow::Result<()> {
    let files = args.homeserver.files();
    let session = files.admin_session()?;
    let server = ServerName::parse(session.user_id.server_name())?;
    let bot = UserId::from_parts(&Localpart::parse(&files.text("account/username")?)?, &server);
    let admin = args.homeserver.connect(Arc::new(SystemClock))?.admin(session);
    let joined: HashSet<RoomId> =
        admin.joined_rooms(&bot).await.with_context(|| format!("rooms of {bot}"))?.into_iter().collect();
    let rooms: Vec<RoomListing> = admin.rooms().await.context("rooms of the homeserver")?.rooms;
    let identity = Identity { bot, server };
    let of_one = async |room: RoomListing| {
        let removal = of_removal(&*admin, &room, &identity).await;
        removal.map(|removal| (room, removal))
    };
    let rooms = rooms.into_iter().filter(|room| joined.contains(&room.room_id));
    let mut looks = futures::stream::iter(rooms.map(of_one)).buffered(TOGETHER);
    let mut out = io::BufWriter::new(io::stdout().lock());
    if let Format::Table = args.output {
        row(&mut out, "ROOM", "ON REMOVAL", "NAME")?;
    }
    let mut totals = Totals::default();
    while let Some((room, removal)) = looks.try_next().await? {
        totals.count(&removal);
        if !args.hand_overs || matches!(removal, Removal::HandsOver(_)) {
            line(&mut out, args.output, &room, &removal)?;
        }
        if totals.rooms.is_multiple_of(PROGRESS) {
            writeln!(io::stderr(), "{} of {} rooms", totals.rooms, joined.len())?;
        }
    }
    out.flush()?;
    let Totals { rooms, hand_overs, to_bots, left_over } = totals;
    writeln!(
        io::stderr(),
        "{rooms} rooms: in {hand_overs} a member becomes an admin, in {to_bots} only other bots are, {left_over} are \
         left without looking"
    )?;
    Ok(())
}

impl Totals {
    fn count(&mut self, removal: &Removal) {
        self.rooms += 1;
        match removal {
            Removal::HandsOver(_) => self.hand_overs += 1,
            Removal::Stays(_) => self.left_over += 1,
            Removal::LeavesToBot => self.to_bots += 1,
            Removal::Leaves => {}
        }
    }
}

#[derive(Serialize)]
struct JsonRoom<'a> {
    room_id: &'a str,
    name: Option<&'a str>,
    on_removal: &'static str,
    heir: Option<&'a str>,
}

fn line(out: &mut impl Write, format: Format, room: &RoomListing, removal: &Removal) -> io::Result<()> {
    let heir = match removal {
        Removal::HandsOver(user) => Some(user.as_str()),
        _ => None,
    };
    match format {
        Format::Table => {
            let what =
                heir.map_or_else(|| words(removal).to_owned(), |user| format!("{user} becomes an admin"));
            row(
                out,
                room.room_id.as_str(),
                &printable(&what, 80),
                &printable(room.name.as_deref().unwrap_or(""), 80),
            )
        }
        Format::Json => {
            let name = room.name.as_deref();
            let (room_id, on_removal) = (room.room_id.as_str(), code(removal));
            terminal::json_line(out, &JsonRoom { room_id, name, on_removal, heir })
        }
    }
}

fn row(out: &mut impl Write, room: &str, what: &str, name: &str) -> io::Result<()> {
    let line = format!("{:<46}  {what:<44}  {name}", printable(room, 256));
    writeln!(out, "{}", line.trim_end())
}

fn words(removal: &Removal) -> &'static str {
    match removal {
        Removal::Leaves => "the bot leaves",
        Removal::LeavesToBot => "the bot leaves, only other bots are admins",
        Removal::HandsOver(_) => "a member becomes an admin",
        Removal::Stays(_) => "the bot is taken out without looking",
    }
}

fn code(removal: &Removal) -> &'static str {
    match removal {
        Removal::Leaves => "leaves",
        Removal::LeavesToBot => "leaves_to_bot",
        Removal::HandsOver(_) => "hands_over",
        Removal::Stays(_) => "left_over",
    }
}
