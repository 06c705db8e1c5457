//! JSON values without recursion: hostile nesting must not end the process.

use std::fmt::Write as _;

use serde_json::{Map, Number, Value};

use super::codec::{DecodeError, Reader, Writer};

const NULL: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const NUMBER: u8 = 3;
const STRING: u8 = 4;
const ARRAY: u8 = 5;
const OBJECT: u8 = 6;

/// One step of a walk through a value, in depth-first order; members of objects by key.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// A value that has no parts.
    Scalar(&'a Value),
    /// The start of an array of this many items.
    Array(usize),
    /// The start of an object of this many members.
    Object(usize),
    /// The key of the member that follows.
    Key(&'a str),
    /// The end of an array.
    EndArray,
    /// The end of an object.
    EndObject,
}

enum Frame<'a> {
    Array(std::slice::Iter<'a, Value>),
    Object(std::vec::IntoIter<(&'a String, &'a Value)>),
}

/// Walks a value with a stack of its own.
pub fn walk<'a>(value: &'a Value, mut visit: impl FnMut(Step<'a>)) {
    let mut stack = Vec::new();
    let mut next = Some(value);
    loop {
        if let Some(value) = next.take() {
            match value {
                Value::Array(items) => {
                    visit(Step::Array(items.len()));
                    stack.push(Frame::Array(items.iter()));
                }
                Value::Object(members) => {
                    visit(Step::Object(members.len()));
                    let mut members: Vec<_> = members.iter().collect();
                    members.sort_unstable_by_key(|(key, _)| key.as_bytes());
                    stack.push(Frame::Object(members.into_iter()));
                }
                scalar => visit(Step::Scalar(scalar)),
            }
        }
        match stack.last_mut() {
            None => return,
            Some(Frame::Array(items)) => {
                next = items.next();
                if next.is_none() {
                    visit(Step::EndArray);
                    stack.pop();
                }
            }
            Some(Frame::Object(members)) => {
                next = members.next().map(|(key, value)| {
                    visit(Step::Key(key));
                    value
                });
                if next.is_none() {
                    visit(Step::EndObject);
                    stack.pop();
                }
            }
        }
    }
}

/// The value as compact JSON text, keys sorted.
pub fn to_text(value: &Value) -> String {
    let mut text = String::new();
    walk(value, |step| {
        let opens = matches!(text.as_bytes().last(), None | Some(b'[' | b'{' | b':'));
        if !opens && !matches!(step, Step::EndArray | Step::EndObject) {
            text.push(',');
        }
        match step {
            Step::Array(_) => text.push('['),
            Step::Object(_) => text.push('{'),
            Step::EndArray => text.push(']'),
            Step::EndObject => text.push('}'),
            // Neither a scalar nor a text nests, so their own formatting does not recurse.
            Step::Scalar(scalar) => {
                let _infallible = write!(text, "{scalar}");
            }
            Step::Key(key) => {
                let _infallible = write!(text, "{}:", Value::from(key));
            }
        }
    });
    text
}

pub(super) fn encode(writer: &mut Writer, value: &Value) {
    walk(value, |step| match step {
        Step::Scalar(Value::Bool(false)) => writer.byte(FALSE),
        Step::Scalar(Value::Bool(true)) => writer.byte(TRUE),
        Step::Scalar(Value::Number(number)) => {
            writer.byte(NUMBER);
            writer.text(&number.to_string());
        }
        Step::Scalar(Value::String(text)) => {
            writer.byte(STRING);
            writer.text(text);
        }
        Step::Scalar(_) => writer.byte(NULL),
        Step::Array(count) => {
            writer.byte(ARRAY);
            writer.length(count);
        }
        Step::Object(count) => {
            writer.byte(OBJECT);
            writer.length(count);
        }
        Step::Key(key) => writer.text(key),
        Step::EndArray | Step::EndObject => {}
    });
}

enum Partial {
    Array { left: usize, items: Vec<Value> },
    Object { left: usize, members: Map<String, Value>, key: String },
}

pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Value, DecodeError> {
    let mut stack: Vec<Partial> = Vec::new();
    loop {
        let mut done = match reader.byte()? {
            NULL => Value::Null,
            FALSE => Value::Bool(false),
            TRUE => Value::Bool(true),
            NUMBER => Value::Number(number(&reader.text()?)?),
            STRING => Value::String(reader.text()?),
            ARRAY => match count(reader)? {
                0 => Value::Array(Vec::new()),
                left => {
                    stack.push(Partial::Array { left, items: Vec::new() });
                    continue;
                }
            },
            OBJECT => match count(reader)? {
                0 => Value::Object(Map::new()),
                left => {
                    let key = reader.text()?;
                    stack.push(Partial::Object { left, members: Map::new(), key });
                    continue;
                }
            },
            _ => return Err(DecodeError::NotCanonical("unknown kind of value")),
        };
        // Hand the finished value to what it is a part of; that may finish the outer one, too.
        loop {
            match stack.pop() {
                None => return Ok(done),
                Some(Partial::Array { left, mut items }) => {
                    items.push(done);
                    if left > 1 {
                        stack.push(Partial::Array { left: left - 1, items });
                        break;
                    }
                    done = Value::Array(items);
                }
                Some(Partial::Object { left, mut members, key }) => {
                    if left > 1 {
                        let following = reader.text()?;
                        if following <= key {
                            return Err(DecodeError::NotCanonical("keys are not in order"));
                        }
                        members.insert(key, done);
                        stack.push(Partial::Object { left: left - 1, members, key: following });
                        break;
                    }
                    members.insert(key, done);
                    done = Value::Object(members);
                }
            }
        }
    }
}

fn count(reader: &mut Reader<'_>) -> Result<usize, DecodeError> {
    let count = reader.length()?;
    if count > reader.remaining() { Err(DecodeError::Truncated) } else { Ok(count) }
}

/// Parses with the standard library, which rounds correctly; JSON parsers trade that for speed.
fn number(text: &str) -> Result<Number, DecodeError> {
    let number = if let Ok(unsigned) = text.parse::<u64>() {
        Some(Number::from(unsigned))
    } else if let Ok(signed) = text.parse::<i64>() {
        Some(Number::from(signed))
    } else {
        text.parse::<f64>().ok().and_then(Number::from_f64)
    };
    number
        .filter(|number| number.to_string() == text)
        .ok_or(DecodeError::NotCanonical("number is not written as this program writes it"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_is_what_serde_json_writes() {
        let value = json!({"b": [1, {}, [], null, "a\"\u{0}"], "a": {"x": true, "y": -1.5e300}, "c": ""});
        assert_eq!(to_text(&value), value.to_string());
        assert_eq!(to_text(&json!([[["}"], "{"], ",", ":"])), r#"[[["}"],"{"],",",":"]"#);
        assert_eq!(to_text(&json!("[")), r#""[""#);
    }

    #[test]
    fn nesting_of_100_000_neither_recurses_nor_gets_lost() {
        let mut value = json!("core");
        for _ in 0..50_000 {
            value = Value::Array(vec![value]);
            let mut members = Map::new();
            members.insert("k".to_owned(), value);
            value = Value::Object(members);
        }
        let mut writer = Writer::default();
        encode(&mut writer, &value);
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes);
        let mut back = decode(&mut reader).unwrap();
        assert_eq!(to_text(&back), to_text(&value));
        // Dropping a value recurses in serde_json, so take both apart by hand.
        for value in [&mut value, &mut back] {
            while let Some(inner) = match value {
                Value::Array(items) => items.pop(),
                Value::Object(members) => members.remove("k"),
                _ => None,
            } {
                *value = inner;
            }
        }
    }

    #[test]
    fn a_number_in_another_notation_is_refused() {
        for text in ["01", "+1", "1e0", "1.50", "NaN", "inf", "-0"] {
            assert!(number(text).is_err(), "{text}");
        }
        for text in ["0", "-1", "18446744073709551615", "-9223372036854775808", "-0.0", "1e+300"] {
            let canonical = serde_json::from_str::<Value>(text).unwrap().to_string();
            assert_eq!(number(&canonical).unwrap().to_string(), canonical);
        }
    }
}
