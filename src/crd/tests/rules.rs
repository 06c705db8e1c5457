//! Every rule: what it lets pass and what it refuses. The values are in `tests/data`, since a
//! real API server is asked the same.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{KINDS, minimal, refusals, rules_of, with};
use crate::domain::BotKind;

#[derive(Deserialize)]
struct Cases {
    rules: Vec<Case<Value>>,
    changes: Vec<Case<(Value, Value)>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case<T> {
    kind: Option<String>,
    field: String,
    #[serde(default)]
    beside: BTreeMap<String, Value>,
    sentence: String,
    accepted: Vec<T>,
    refused: Vec<T>,
}

impl<T> Case<T> {
    fn is_of(&self, kind: BotKind) -> bool {
        self.kind.as_deref().is_none_or(|only| only == kind.kubernetes_kind())
    }

    fn object(&self, kind: BotKind, value: &Value) -> Value {
        let beside =
            self.beside.iter().fold(minimal(kind), |object, (at, value)| with(object, at, value.clone()));
        with(beside, &self.field, value.clone())
    }

    fn is_among(&self, refusals: &[String]) -> bool {
        refusals.iter().any(|message| message.starts_with(&self.sentence))
    }
}

fn cases() -> Cases {
    serde_yaml::from_str(include_str!("../../../tests/data/crd_rules.yaml")).unwrap()
}

#[test]
fn the_smallest_object_is_accepted() {
    for kind in KINDS {
        assert_eq!(refusals(kind, &minimal(kind), None), Vec::<String>::new());
    }
}

#[test]
fn values_are_accepted_or_refused_with_the_sentence() {
    for kind in KINDS {
        for case in cases().rules.iter().filter(|case| case.is_of(kind)) {
            let said = |value: &Value| refusals(kind, &case.object(kind, value), None);
            for value in &case.accepted {
                assert!(
                    !case.is_among(&said(value)),
                    "{kind} {}: {value} was refused: {:?}",
                    case.field,
                    said(value)
                );
            }
            for value in &case.refused {
                assert!(case.is_among(&said(value)), "{kind} {}: {value} got {:?}", case.field, said(value));
            }
        }
    }
}

#[test]
fn changes_are_accepted_or_refused_with_the_sentence() {
    for kind in KINDS {
        for case in cases().changes.iter().filter(|case| case.is_of(kind)) {
            let said = |(before, after): &(Value, Value)| {
                refusals(kind, &case.object(kind, after), Some(&case.object(kind, before)))
            };
            for change in &case.accepted {
                assert!(
                    said(change).is_empty(),
                    "{kind} {}: {change:?} was refused: {:?}",
                    case.field,
                    said(change)
                );
            }
            for change in &case.refused {
                assert!(
                    case.is_among(&said(change)),
                    "{kind} {}: {change:?} got {:?}",
                    case.field,
                    said(change)
                );
            }
        }
    }
}

#[test]
fn every_rule_has_a_test_of_either_side() {
    for kind in KINDS {
        let cases = cases();
        let of_kind = |wanted: Option<&str>| wanted.is_none_or(|only| only == kind.kubernetes_kind());
        let tested: Vec<(&str, usize, usize)> =
            cases
                .rules
                .iter()
                .map(|case| (case.kind.as_deref(), &*case.sentence, case.accepted.len(), case.refused.len()))
                .chain(cases.changes.iter().map(|case| {
                    (case.kind.as_deref(), &*case.sentence, case.accepted.len(), case.refused.len())
                }))
                .filter(|(only, ..)| of_kind(*only))
                .map(|(_, sentence, accepted, refused)| (sentence, accepted, refused))
                .collect();
        for (rule, message) in rules_of(kind) {
            assert!(!message.is_empty(), "{kind}: rule without a sentence: {rule}");
            let own = tested.iter().filter(|(sentence, ..)| message.starts_with(sentence));
            let (accepted, refused) = own.fold((0, 0), |sum, (_, a, r)| (sum.0 + a, sum.1 + r));
            assert!(accepted > 0 && refused > 0, "{kind}: no test for {message:?} ({rule})");
        }
    }
}
