//! Whatever reaches the webhook, it becomes records that an inbox takes and a trail reads, or it is refused.
#![no_main]

use ems_bots::{
    console::{
        caller::Caller,
        intake::{Target, admission, counter},
    },
    trail::content,
};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;

/// More than this of one request is more than people can write into a bot.
const LONGEST: usize = 1 << 20;

// How a case is made of bytes: one that chooses who reports, then the review.
fuzz_target!(|bytes: &[u8]| {
    let Some((mode, body)) = bytes.split_first() else { return };
    let caller = if mode % 2 == 0 { Caller::ApiServer } else { Caller::Unknown };
    let own = ["system:serviceaccount:ems-bots-system:ems-bots-operator".to_owned()];
    let read = || admission::convert(body, caller, &own, Timestamp::UNIX_EPOCH);
    let Ok(review) = read() else { return };
    assert!(!review.uid.is_empty());
    for entry in &review.entries {
        let Target::Bot(bot) = &entry.target else { panic!("a request is about one bot") };
        let is_plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
        assert!(is_plain(&bot.namespace) && is_plain(&bot.name), "{bot} leads to a Secret");
        let encoded = content::encode(&entry.draft);
        assert!(encoded.len() < LONGEST);
        content::decode(&encoded).expect("it can be read back");
        assert!(counter(&entry.draft.source_id) > 0);
    }
    assert_eq!(read().as_ref(), Ok(&review), "the same request is the same record");
});
