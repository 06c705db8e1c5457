//! Lists of rooms, as the admin API gives them.

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    admin::{ROOMS, SynapseAdmin, readable},
    http::Call,
};
use crate::{
    domain::{RoomId, UserId},
    homeserver::{Result, RoomList, RoomListing},
};

const LARGEST_PAGE: u64 = 100_000;
/// Events that are asked for at once.
const NEWEST_EVENTS: u32 = 500;
/// Characters of a room's name that are kept.
const LONGEST_NAME: usize = 255;

#[derive(Deserialize)]
struct RoomRow {
    room_id: RoomId,
    name: Option<String>,
    creator: Option<String>,
    #[serde(default)]
    joined_local_members: u64,
    #[serde(default)]
    joined_members: u64,
    version: Option<String>,
    join_rules: Option<String>,
    room_type: Option<String>,
    encryption: Option<String>,
    #[serde(default)]
    state_events: u64,
}

/// A name of 60 kB is none that anybody reads, and no table takes U+0000.
fn shortened(name: &str) -> String {
    name.chars().filter(|c| *c != '\0').take(LONGEST_NAME).collect()
}

impl From<RoomRow> for RoomListing {
    fn from(row: RoomRow) -> Self {
        Self {
            room_id: row.room_id,
            name: row.name.map(|name| shortened(&name)).filter(|name| !name.is_empty()),
            creator: row.creator.filter(|creator| !creator.is_empty()),
            joined_local_members: row.joined_local_members,
            joined_members: row.joined_members,
            version: row.version,
            join_rules: row.join_rules,
            room_type: row.room_type,
            encryption: row.encryption,
            state_events: row.state_events,
        }
    }
}

#[derive(Deserialize)]
struct RoomsPage {
    rooms: Vec<Value>,
    total_rooms: u64,
    next_batch: Option<u64>,
}

impl RoomsPage {
    fn empty(&self) -> u64 {
        self.rooms.iter().filter(|row| row["joined_members"] == 0).count() as u64
    }

    fn listings(self) -> impl Iterator<Item = RoomListing> {
        readable::<RoomRow>(self.rooms).map(RoomListing::from)
    }
}

async fn page(admin: &SynapseAdmin, query: &[(&'static str, String)]) -> Result<RoomsPage> {
    let call = Call::new(Method::GET, "the list of rooms", ROOMS, &[]);
    let call = query.iter().fold(call, |call, (name, value)| call.query(name, value));
    admin.ask(call.large()).await?.parse()
}

pub(super) async fn all(admin: &SynapseAdmin) -> Result<RoomList> {
    let (mut rooms, mut empty) = (Vec::new(), 0);
    let mut from = 0;
    loop {
        let page = page(admin, &[("limit", LARGEST_PAGE.to_string()), ("from", from.to_string())]).await?;
        let (next, total) = (page.next_batch, page.total_rooms);
        empty += page.empty();
        rooms.extend(page.listings());
        match next {
            // A page that does not advance would never end.
            Some(next) if next > from => from = next,
            _ => return Ok(RoomList { rooms, inhabited: total.saturating_sub(empty) }),
        }
    }
}

pub(super) async fn smallest(admin: &SynapseAdmin, most: u64) -> Result<Vec<RoomListing>> {
    let query = [
        ("limit", most.to_string()),
        // The largest come first, unless it is asked backwards.
        ("order_by", "joined_members".to_owned()),
        ("dir", "b".to_owned()),
        without_empty_ones(),
    ];
    Ok(page(admin, &query).await?.listings().collect())
}

pub(super) async fn inhabited(admin: &SynapseAdmin) -> Result<u64> {
    Ok(page(admin, &[("limit", "1".to_owned()), without_empty_ones()]).await?.total_rooms)
}

pub(super) async fn newest_events(
    admin: &SynapseAdmin,
    room: &RoomId,
    types: &[&str],
    sender: Option<&UserId>,
) -> Result<Vec<Value>> {
    #[derive(Deserialize)]
    struct Page {
        chunk: Vec<Value>,
    }
    let mut filter = json!({ "types": types });
    if let Some(sender) = sender {
        filter["senders"] = json!([sender]);
    }
    let call = Call::new(Method::GET, "the newest events of a room", ROOMS, &[room.as_str(), "messages"])
        .about(room.as_str())
        .large()
        .query("dir", "b")
        .query("limit", NEWEST_EVENTS.to_string())
        .query("filter", filter.to_string());
    Ok(admin.ask(call).await?.parse::<Page>()?.chunk)
}

fn without_empty_ones() -> (&'static str, String) {
    ("empty_rooms", "false".to_owned())
}
