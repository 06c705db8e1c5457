//! What is kept of a trail outside of the custom resource: a `ConfigMap` that the worker cannot
//! write, that outlives the bot, and that never goes back. (client)

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};

use super::{context::Ctx, error::Error, labels, names::Names};
use crate::{
    domain::{BotKind, trail::TrailPoint},
    kube_util::{apply, events::Notice},
};

/// The point in the `ConfigMap`, if it can be read.
pub fn kept(config_map: Option<&ConfigMap>) -> Option<TrailPoint> {
    let data = config_map?.data.as_ref()?;
    Some(TrailPoint {
        epoch: data.get("epoch")?.parse().ok()?,
        size: data.get("size")?.parse().ok()?,
        root_hash: data.get("rootHash")?.clone(),
    })
}

/// What to do with a reported point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// It is further than the kept one.
    Write,
    /// It is the kept one.
    Same,
    /// It is behind or contradicts the kept one, which stays.
    Refuse,
}

/// Whether the reported point is further than the kept one. (pure)
pub fn decide(reported: &TrailPoint, kept: Option<&TrailPoint>) -> Keep {
    match kept {
        None => Keep::Write,
        Some(kept) if kept == reported => Keep::Same,
        // After a restored database an epoch may begin at a smaller size; that is a recorded decision.
        Some(kept) if (reported.epoch, reported.size) > (kept.epoch, kept.size) => Keep::Write,
        Some(_) => Keep::Refuse,
    }
}

/// Whose trail it is.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Kind of the bot.
    pub kind: BotKind,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Names of its children.
    pub names: &'a Names,
}

/// Keeps the reported point if it is further. Returns what people should see if it is not.
pub async fn keep(
    ctx: &Ctx,
    place: &Place<'_>,
    reported: Option<&TrailPoint>,
    live: Option<&ConfigMap>,
) -> Result<Option<Notice>, Error> {
    let names = place.names;
    let Some(reported) = reported else { return Ok(None) };
    let before = kept(live);
    match decide(reported, before.as_ref()) {
        Keep::Same => Ok(None),
        Keep::Refuse => Ok(before.map(|before| Notice {
            warning: true,
            reason: "TrailWentBack",
            action: "Reconcile",
            note: format!(
                "the status says that the trail has {} records in epoch {}, but ConfigMap {} says {} in epoch {}; the \
                 ConfigMap is kept as it is",
                reported.size,
                reported.epoch,
                names.trail(),
                before.size,
                before.epoch
            ),
        })),
        Keep::Write => {
            let config_map = build(place, reported);
            apply(&ctx.client, labels::FIELD_MANAGER, &config_map).await?;
            Ok(None)
        }
    }
}

/// Without owner reference: it stays when the bot goes.
fn build(place: &Place<'_>, point: &TrailPoint) -> ConfigMap {
    let Place { kind, namespace, name, names } = *place;
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(names.trail()),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels::labels(kind, name, names.base())),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([
            ("epoch".to_owned(), point.epoch.to_string()),
            ("size".to_owned(), point.size.to_string()),
            ("rootHash".to_owned(), point.root_hash.clone()),
        ])),
        ..ConfigMap::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(epoch: i64, size: i64, root: &str) -> TrailPoint {
        TrailPoint { epoch, size, root_hash: root.to_owned() }
    }

    #[test]
    fn the_kept_point_never_goes_back() {
        let kept = point(2, 10, "a");
        let cases = [
            (point(2, 11, "b"), Keep::Write),
            (point(3, 5, "c"), Keep::Write),
            (point(2, 10, "a"), Keep::Same),
            (point(2, 10, "b"), Keep::Refuse),
            (point(2, 9, "a"), Keep::Refuse),
            (point(1, 50, "a"), Keep::Refuse),
        ];
        for (reported, expected) in cases {
            assert_eq!(decide(&reported, Some(&kept)), expected, "{reported:?}");
        }
        assert_eq!(decide(&kept, None), Keep::Write);
    }
}
