//! A record as bytes and back: lossless, and with exactly one encoding per record, so that its
//! hash can be recomputed by anybody who has the record.

use super::{
    DecodeError,
    codec::{Reader, Writer},
    envelope::{category_from_number, category_number},
    json,
};
use crate::domain::record::{Actor, Change, Context, Occurred, RecordDraft, Relation, Subject, Trust};

/// The version that this program writes, the first byte of every content.
const VERSION: u8 = 1;

/// Encodes a record.
pub fn encode(draft: &RecordDraft) -> Vec<u8> {
    // Without `..`: a new field does not compile until somebody has decided how it is encoded.
    let RecordDraft {
        source_id,
        category,
        action,
        occurred,
        actor,
        on_behalf_of,
        context,
        relations,
        changes,
        text,
        source_raw,
        plaintext_raw,
        trust,
        undecryptable_reason,
        subjects,
    } = draft;
    let mut w = Writer::with_version(VERSION);
    w.text(source_id);
    w.byte(category_number(*category));
    w.text(action);
    write_occurred(&mut w, *occurred);
    write_actor(&mut w, actor);
    write_optional(&mut w, on_behalf_of.as_deref());
    write_context(&mut w, context);
    w.list(relations, |w, Relation { kind, id, role }| {
        w.text(kind);
        w.text(id);
        w.text(role);
    });
    w.list(changes, |w, Change { path, before, after }| {
        w.text(path);
        w.option(before.as_ref(), json::encode);
        w.option(after.as_ref(), json::encode);
    });
    write_optional(&mut w, text.as_deref());
    write_optional(&mut w, source_raw.as_deref());
    write_optional(&mut w, plaintext_raw.as_deref());
    w.byte(trust_number(*trust));
    write_optional(&mut w, undecryptable_reason.as_deref());
    w.list(subjects, |w, Subject { person, role }| {
        w.text(person);
        w.text(role);
    });
    w.finish()
}

/// Decodes what [`encode`] made and refuses everything else.
pub fn decode(bytes: &[u8]) -> Result<RecordDraft, DecodeError> {
    let mut r = Reader::new(bytes);
    r.version(VERSION)?;
    let draft = RecordDraft {
        source_id: r.text()?,
        category: category_from_number(i64::from(r.byte()?))
            .ok_or(DecodeError::NotCanonical("unknown category"))?,
        action: r.text()?,
        occurred: read_occurred(&mut r)?,
        actor: read_actor(&mut r)?,
        on_behalf_of: r.option(Reader::text)?,
        context: read_context(&mut r)?,
        relations: r.list(|r| Ok(Relation { kind: r.text()?, id: r.text()?, role: r.text()? }))?,
        changes: r.list(|r| {
            Ok(Change { path: r.text()?, before: r.option(json::decode)?, after: r.option(json::decode)? })
        })?,
        text: r.option(Reader::text)?,
        source_raw: r.option(Reader::text)?,
        plaintext_raw: r.option(Reader::text)?,
        trust: trust_from_number(r.byte()?)?,
        undecryptable_reason: r.option(Reader::text)?,
        subjects: r.list(|r| Ok(Subject { person: r.text()?, role: r.text()? }))?,
    };
    r.finish()?;
    Ok(draft)
}

fn write_optional(w: &mut Writer, value: Option<&str>) {
    w.option(value, Writer::text);
}

fn write_occurred(w: &mut Writer, occurred: Occurred) {
    match occurred {
        Occurred::At(at) => {
            w.byte(1);
            w.i64(at);
        }
        Occurred::Between(from, to) => {
            w.byte(2);
            w.i64(from);
            w.i64(to);
        }
        Occurred::Unknown => w.byte(0),
    }
}

fn read_occurred(r: &mut Reader<'_>) -> Result<Occurred, DecodeError> {
    match r.byte()? {
        0 => Ok(Occurred::Unknown),
        1 => Ok(Occurred::At(r.i64()?)),
        2 => Ok(Occurred::Between(r.i64()?, r.i64()?)),
        _ => Err(DecodeError::NotCanonical("unknown kind of time")),
    }
}

fn write_actor(w: &mut Writer, actor: &Actor) {
    match actor {
        Actor::Unknown => w.byte(0),
        Actor::MatrixUser { id } => {
            w.byte(1);
            w.text(id);
        }
        Actor::KubernetesUser { id, groups } => {
            w.byte(2);
            w.text(id);
            w.list(groups, |w, group| w.text(group));
        }
        Actor::Service { id } => {
            w.byte(3);
            w.text(id);
        }
    }
}

fn read_actor(r: &mut Reader<'_>) -> Result<Actor, DecodeError> {
    match r.byte()? {
        0 => Ok(Actor::Unknown),
        1 => Ok(Actor::MatrixUser { id: r.text()? }),
        2 => Ok(Actor::KubernetesUser { id: r.text()?, groups: r.list(Reader::text)? }),
        3 => Ok(Actor::Service { id: r.text()? }),
        _ => Err(DecodeError::NotCanonical("unknown kind of actor")),
    }
}

fn write_context(w: &mut Writer, context: &Context) {
    let Context { device_id, ip, user_agent, session_id, reason } = context;
    for field in [device_id, ip, user_agent, session_id, reason] {
        write_optional(w, field.as_deref());
    }
}

fn read_context(r: &mut Reader<'_>) -> Result<Context, DecodeError> {
    Ok(Context {
        device_id: r.option(Reader::text)?,
        ip: r.option(Reader::text)?,
        user_agent: r.option(Reader::text)?,
        session_id: r.option(Reader::text)?,
        reason: r.option(Reader::text)?,
    })
}

fn trust_number(trust: Trust) -> u8 {
    match trust {
        Trust::Plain => 1,
        Trust::VerifiedDevice => 2,
        Trust::UnverifiedDevice => 3,
        Trust::KeyFromBackup => 4,
        Trust::Forwarded => 5,
        Trust::UnknownDevice => 6,
        Trust::Undecryptable => 7,
    }
}

fn trust_from_number(number: u8) -> Result<Trust, DecodeError> {
    Ok(match number {
        1 => Trust::Plain,
        2 => Trust::VerifiedDevice,
        3 => Trust::UnverifiedDevice,
        4 => Trust::KeyFromBackup,
        5 => Trust::Forwarded,
        6 => Trust::UnknownDevice,
        7 => Trust::Undecryptable,
        _ => return Err(DecodeError::NotCanonical("unknown trust")),
    })
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};
    use serde_json::Value;

    use super::*;
    use crate::domain::record::Category;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..6).prop_map(Value::from),
                vec((any::<String>(), inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn actor() -> impl Strategy<Value = Actor> {
        prop_oneof![
            Just(Actor::Unknown),
            any::<String>().prop_map(|id| Actor::MatrixUser { id }),
            any::<String>().prop_map(|id| Actor::Service { id }),
            (any::<String>(), vec(any::<String>(), 0..3))
                .prop_map(|(id, groups)| Actor::KubernetesUser { id, groups }),
        ]
    }

    fn occurred() -> impl Strategy<Value = Occurred> {
        prop_oneof![
            Just(Occurred::Unknown),
            any::<i64>().prop_map(Occurred::At),
            any::<(i64, i64)>().prop_map(|(from, to)| Occurred::Between(from, to)),
        ]
    }

    fn texts() -> impl Strategy<Value = [Option<String>; 10]> {
        std::array::from_fn(|_| option::of(any::<String>()))
    }

    fn draft() -> impl Strategy<Value = RecordDraft> {
        let lists = (
            vec(any::<(String, String, String)>(), 0..4),
            vec((any::<String>(), option::of(value()), option::of(value())), 0..3),
            vec(any::<(String, String)>(), 0..3),
        );
        (any::<(String, String)>(), 0..5_usize, occurred(), actor(), texts(), lists, 1..=7_u8).prop_map(
            |(
                (source_id, action),
                category,
                occurred,
                actor,
                texts,
                (relations, changes, subjects),
                trust,
            )| {
                let [a, device_id, ip, user_agent, session_id, reason, text, source_raw, plaintext_raw, b] =
                    texts;
                RecordDraft {
                    source_id,
                    category: Category::ALL[category],
                    action,
                    occurred,
                    actor,
                    on_behalf_of: a,
                    context: Context { device_id, ip, user_agent, session_id, reason },
                    relations: relations.into_iter().map(|(k, i, r)| Relation::new(k, i, r)).collect(),
                    changes: changes
                        .into_iter()
                        .map(|(path, before, after)| Change { path, before, after })
                        .collect(),
                    text,
                    source_raw,
                    plaintext_raw,
                    trust: trust_from_number(trust).unwrap(),
                    undecryptable_reason: b,
                    subjects: subjects.into_iter().map(|(person, role)| Subject { person, role }).collect(),
                }
            },
        )
    }

    proptest! {
        #[test]
        fn every_record_comes_back_as_it_was(draft in draft()) {
            let bytes = encode(&draft);
            prop_assert_eq!(decode(&bytes).unwrap(), draft);
        }

        #[test]
        fn bytes_decode_to_something_that_encodes_to_them_or_not_at_all(
            draft in draft(), at in any::<prop::sample::Index>(), flip in 1..=255_u8, cut in any::<bool>()
        ) {
            let mut bytes = encode(&draft);
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= flip }
            if let Ok(other) = decode(&bytes) {
                prop_assert_eq!(encode(&other), bytes);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in vec(any::<u8>(), 0..200)) {
            let _either = decode(&bytes);
            bytes.insert(0, VERSION);
            let _either = decode(&bytes);
        }
    }

    #[test]
    fn a_newer_format_is_named_as_such() {
        assert_eq!(decode(&[9, 1, 2]), Err(DecodeError::Version(9)));
    }
}
