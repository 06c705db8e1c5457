//! Whatever the API server reports of what was done, it becomes records that an inbox takes and a trail reads; an
//! event that cannot be read costs no other.
#![no_main]

use std::{collections::BTreeSet, sync::LazyLock};

use ems_bots::{
    console::{
        caller::Caller,
        estate::{Estate, KnownBot, Place},
        intake::{Entry, audit, counter},
    },
    domain::{BotKind, BotName},
    trail::content,
};
use libfuzzer_sys::fuzz_target;

const LONGEST: usize = 1 << 20;

static ESTATE: LazyLock<Estate> = LazyLock::new(|| {
    let place = Place {
        namespace: "ems-bots-system".to_owned(),
        operator: "ems-bots-operator".to_owned(),
        console: "ems-bots-console".to_owned(),
        secrets: ["ems-bots-console-tls".to_owned()].into(),
    };
    let name =
        BotName { namespace: "tenant-a".to_owned(), name: "auditbot".to_owned(), kind: BotKind::Audit };
    let secrets = BTreeSet::from(["ems-bots-database".to_owned()]);
    let bot = KnownBot { name, uid: "life".to_owned(), base: "auditbot".to_owned(), secrets, is_leaving: false, is_gone: false };
    Estate::new(place, [bot])
});

// A case is a list of events, or events alone, separated by record separators.
fuzz_target!(|bytes: &[u8]| {
    let read = |body: &[u8]| audit::convert(body, Caller::ApiServer, &ESTATE);
    let _ = read(bytes);
    let text = String::from_utf8_lossy(bytes);
    let events: Vec<&str> = text
        .split('\u{1e}')
        .filter(|event| serde_json::from_str::<&serde_json::value::RawValue>(event).is_ok())
        .collect();
    let list = |events: &[&str]| {
        let items = events.join(",");
        format!(r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[{items}]}}"#)
    };
    let all = list(&events);
    let report = read(all.as_bytes()).expect("a list of values is a report");
    assert!(report.unreadable + report.anonymous <= events.len());
    for entry in &report.entries {
        let encoded = content::encode(&entry.draft);
        assert!(encoded.len() < LONGEST);
        content::decode(&encoded).expect("it can be read back");
        assert!(counter(&entry.draft.source_id) > 0);
    }
    assert_eq!(read(all.as_bytes()).as_ref(), Ok(&report), "the same event is the same record");
    // None is lost by another. All that cannot be read are one record.
    let ids = |entries: Vec<Entry>| -> BTreeSet<_> {
        let ids = entries.into_iter().map(|entry| (entry.target, entry.draft.source_id));
        ids.filter(|(_, id)| !id.starts_with("kubernetes:audit:unreadable:")).collect()
    };
    let alone = |event: &&str| read(list(&[*event]).as_bytes()).expect("it was read with others").entries;
    assert_eq!(ids(events.iter().flat_map(alone).collect()), ids(report.entries));
});
