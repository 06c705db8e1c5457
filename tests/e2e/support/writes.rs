//! How often the product writes to the API server, as its audit log tells: no-op writes count too, and
//! so do those that were refused.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Seek, SeekFrom},
    time::Duration,
};

use serde_json::Value;

use super::{Tenant, tenant::system_namespace};

/// The audit log from one moment on.
pub struct Writes {
    path: String,
    start: u64,
}

impl Writes {
    /// From now on.
    pub fn from_now() -> Self {
        let path = std::env::var("EMS_TEST_AUDIT_LOG").expect("EMS_TEST_AUDIT_LOG is set by `dev/run e2e`");
        let start = std::fs::metadata(&path).expect("the API server writes an audit log").len();
        Self { path, start }
    }

    /// The product's writes to the objects of a tenant until now, and those to the operator's own
    /// namespace, by `user verb resource/subresource`. Leases are left out: they are renewed for ever.
    pub fn of(&self, tenant: &Tenant) -> BTreeMap<String, u64> {
        let mut log = File::open(&self.path).unwrap();
        assert!(log.metadata().unwrap().len() >= self.start, "the audit log was rotated in between");
        log.seek(SeekFrom::Start(self.start)).unwrap();
        let mut counts = BTreeMap::new();
        for line in BufReader::new(log).lines() {
            // The last line may still be in the making.
            let Ok(event) = serde_json::from_str::<Value>(&line.unwrap()) else { continue };
            if let Some(what) = ours(&event, &tenant.namespace) {
                *counts.entry(what).or_insert(0) += 1;
            }
        }
        counts
    }
}

/// What is written to a tenant within this time.
pub async fn writes_within(tenant: &Tenant, span: Duration) -> BTreeMap<String, u64> {
    let writes = Writes::from_now();
    tokio::time::sleep(span).await;
    writes.of(tenant)
}

/// Names a write of ours that is about these namespaces.
fn ours(event: &Value, tenant: &str) -> Option<String> {
    let system = system_namespace();
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (namespace, resource) = (text("/objectRef/namespace"), text("/objectRef/resource"));
    let (of, user) = text("/user/username").strip_prefix("system:serviceaccount:")?.split_once(':')?;
    // The log has reads of Secrets, too.
    let writes = ["create", "update", "patch", "delete", "deletecollection"].contains(&text("/verb"));
    let about_us = writes && [tenant, &system].contains(&namespace) && [tenant, &system].contains(&of);
    (about_us && resource != "leases")
        .then(|| format!("{user} {} {resource}/{}", text("/verb"), text("/objectRef/subresource")))
}
