//! Whatever a homeserver sends, it becomes a record that keeps it as it came, can be stored and be read back.
#![no_main]

use ems_bots::{
    domain::record::{RecordDraft, Trust},
    worker::convert::{Earlier, Encryption, Input, Plaintext, convert, needs},
};
use libfuzzer_sys::fuzz_target;

// How a case is made of bytes: one that chooses what became of the encryption, then the event, and after a record
// separator the plaintext, which is the earlier event at the same time.
fuzz_target!(|bytes: &[u8]| {
    let Some((mode, rest)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    let (raw, other) = text.split_once('\u{1e}').unwrap_or((&text, "{}"));
    let plain = Plaintext { raw: other, trust: Trust::UnknownDevice, device_id: None, session_id: None };
    let encryption = match mode % 5 {
        0 => Encryption::Decrypted(plain),
        1 => Encryption::DecryptedLater(plain),
        2 => Encryption::Failed("missing_key"),
        _ => Encryption::None,
    };
    let caused_by = (mode % 5 == 4).then_some("@auditbot:example.org");
    let input = Input { room_id: "!room:example.org", raw, encryption, caused_by };
    let _ = needs(&input);
    let earlier = match mode / 5 % 4 {
        0 => None,
        1 => serde_json::from_str(other).ok().map(Earlier::Event),
        2 => serde_json::from_str(other).ok().map(|event| Earlier::Perhaps(Box::new(Earlier::Event(event)))),
        _ => {
            let old = Input { raw: other, encryption: Encryption::None, caused_by: None, ..input.clone() };
            Some(Earlier::Record(Box::new(convert(&old, None))))
        }
    };
    let record = convert(&input, earlier.as_ref());
    assert_eq!(record.source_raw.as_deref(), Some(raw));
    assert!(!record.action.is_empty() && !record.source_id.is_empty());
    let stored = serde_json::to_string(&record).expect("it can be stored");
    serde_json::from_str::<RecordDraft>(&stored).expect("it can be read back");
});
