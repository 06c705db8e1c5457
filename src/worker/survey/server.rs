//! The homeserver itself: its version, what it offers, its background updates.

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    LookError, Survey,
    draft::{Span, seen},
};
use crate::{
    domain::record::{Category, Change, RecordDraft, Relation},
    homeserver::ServerFacts,
    store::{Batch, Snapshot},
    worker::convert::diff,
};

const SOURCE: &str = "homeserver";
/// When it was last looked at, in milliseconds since 1970.
const CURSOR: &str = "survey:homeserver";

impl Survey {
    pub(super) async fn server(&self, cancel: &CancellationToken) -> Result<(), LookError> {
        let span = Span::new(self.number(CURSOR, cancel).await?, self.now_ms());
        let name = self.bot.server_name().to_string();
        let known = self.recorder.snapshots(SOURCE, std::slice::from_ref(&name), cancel).await?;
        let known: Option<Value> = known.get(&name).and_then(|text| serde_json::from_str(text).ok());
        let now = shown(&self.inspect.server().await?);
        let span = span.until(self.now_ms());
        let mut batch =
            Batch { cursors: vec![(CURSOR.to_owned(), span.now.to_string())], ..Batch::default() };
        if known.as_ref() != Some(&now) {
            batch.drafts = changed(&name, known.as_ref(), &now, span);
            batch.snapshots = vec![Snapshot { source: SOURCE, key: name, value: Some(now.to_string()) }];
        }
        self.recorder.append(&batch, cancel).await?;
        Ok(())
    }
}

fn shown(facts: &ServerFacts) -> Value {
    let versions: serde_json::Map<String, Value> =
        facts.api_versions.iter().map(|version| (version.clone(), true.into())).collect();
    json!({
        "version": facts.version,
        "apiVersions": versions,
        "features": facts.features,
        "backgroundUpdates": {"enabled": facts.background_updates, "running": facts.running_updates},
    })
}

fn changed(name: &str, before: Option<&Value>, now: &Value, span: Span) -> Vec<RecordDraft> {
    let all = diff("/homeserver", before, Some(now));
    if before.is_none() {
        return vec![record(name, "homeserver.found", all, span)];
    }
    let is_of = |path: &'static str| move |change: &Change| change.path.starts_with(path);
    let (version, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(is_of("/homeserver/version"));
    let (updates, features): (Vec<_>, Vec<_>) =
        rest.into_iter().partition(is_of("/homeserver/backgroundUpdates"));
    [
        ("homeserver.version_changed", version),
        ("homeserver.features_changed", features),
        ("homeserver.background_updates_changed", updates),
    ]
    .into_iter()
    .filter(|(_, changes)| !changes.is_empty())
    .map(|(action, changes)| record(name, action, changes, span))
    .collect()
}

fn record(name: &str, action: &str, changes: Vec<Change>, span: Span) -> RecordDraft {
    let id = format!("survey:{action}:{}", span.now);
    let mut draft = seen(id, Category::SystemChange, action, span);
    draft.relations.push(Relation::new("homeserver", name, "target"));
    draft.changes = changes;
    draft
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_is_told_from_what_comes_with_it() {
        let facts = |version: &str, feature: bool| ServerFacts {
            version: version.to_owned(),
            api_versions: vec!["v1.1".into()],
            features: [("org.example".to_owned(), feature)].into(),
            background_updates: true,
            running_updates: [].into(),
        };
        let (old, new) = (shown(&facts("1.1", false)), shown(&facts("1.2", true)));
        let span = Span::new(Some(1), 2);
        let actions: Vec<_> =
            changed("x", Some(&old), &new, span).into_iter().map(|draft| draft.action).collect();
        assert_eq!(actions, ["homeserver.version_changed", "homeserver.features_changed"]);
        let mut updating = facts("1.1", false);
        updating.running_updates.insert("main".into(), "index".into());
        let seen = changed("x", Some(&old), &shown(&updating), span);
        assert_eq!(seen[0].action, "homeserver.background_updates_changed");
        assert_eq!(seen[0].changes[0].path, "/homeserver/backgroundUpdates/running/main");
        assert_eq!(changed("x", None, &old, span)[0].action, "homeserver.found");
    }
}
