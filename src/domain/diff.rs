//! Path-wise differences of JSON values, as [`Change`]s.

use serde_json::{Map, Value};

use super::record::Change;

/// More differences than this become one change of the whole value: a hostile event must not
/// become thousands of rows.
const MAX_CHANGES: usize = 500;

/// What changed between two values below `path` (an RFC 6901 pointer): objects are compared key by
/// key, everything else as a whole. `None` means that there is no value.
pub fn diff(path: &str, before: Option<&Value>, after: Option<&Value>) -> Vec<Change> {
    let mut changes = Vec::new();
    walk(path, before, after, &mut changes);
    if changes.len() > MAX_CHANGES {
        return vec![Change { path: path.to_owned(), before: before.cloned(), after: after.cloned() }];
    }
    changes
}

fn walk(path: &str, before: Option<&Value>, after: Option<&Value>, changes: &mut Vec<Change>) {
    if before == after || changes.len() > MAX_CHANGES {
        return;
    }
    let (old, new) = (before.and_then(Value::as_object), after.and_then(Value::as_object));
    let comparable = (old.is_some() || before.is_none()) && (new.is_some() || after.is_none());
    // Of an empty object that comes or goes there is no key to name.
    let has_keys = [old, new].into_iter().flatten().any(|object| !object.is_empty());
    if comparable && has_keys {
        let empty = Map::new();
        let (old, new) = (old.unwrap_or(&empty), new.unwrap_or(&empty));
        for key in old.keys().chain(new.keys().filter(|key| !old.contains_key(*key))) {
            walk(&join(path, key), old.get(key), new.get(key), changes);
        }
    } else {
        changes.push(Change { path: path.to_owned(), before: before.cloned(), after: after.cloned() });
    }
}

/// Appends a key to a pointer.
pub fn join(path: &str, key: &str) -> String {
    format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_compared_key_by_key() {
        let changes =
            diff("/x", Some(&json!({"a": 1, "b": {"c": 2, "d": 3}})), Some(&json!({"a": 1, "b": {"c": 4}})));
        assert_eq!(
            changes,
            [
                Change { path: "/x/b/c".into(), before: Some(json!(2)), after: Some(json!(4)) },
                Change { path: "/x/b/d".into(), before: Some(json!(3)), after: None },
            ]
        );
    }

    #[test]
    fn what_was_not_there_is_listed_by_leaf() {
        let changes = diff("", None, Some(&json!({"a": {"b": 1}, "c": [1, 2]})));
        assert_eq!(
            changes,
            [
                Change { path: "/a/b".into(), before: None, after: Some(json!(1)) },
                Change { path: "/c".into(), before: None, after: Some(json!([1, 2])) },
            ]
        );
    }

    #[test]
    fn a_type_change_and_an_empty_object_are_changes_as_a_whole() {
        assert_eq!(diff("/a", Some(&json!({"b": 1})), Some(&json!("text"))).len(), 1);
        let emptied = diff("/a", Some(&json!({"b": 1})), Some(&json!({})));
        assert_eq!((emptied[0].path.as_str(), &emptied[0].after), ("/a/b", &None));
        assert_eq!(diff("/a", None, Some(&json!({}))).len(), 1);
        assert!(diff("/a", Some(&json!({})), Some(&json!({}))).is_empty());
    }

    #[test]
    fn keys_are_escaped() {
        assert_eq!(diff("", None, Some(&json!({"a/b~c": 1})))[0].path, "/a~1b~0c");
    }

    #[test]
    fn too_many_changes_become_one() {
        let many: Value = (0..2000).map(|i| (i.to_string(), json!(i))).collect::<Map<_, _>>().into();
        let changes = diff("/m", None, Some(&many));
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].after, Some(many));
    }
}
