//! The API server takes every manifest of `examples/`.

use std::{fs, path::Path};

use kube::{
    api::{DynamicObject, Patch, PatchParams},
    core::TypeMeta,
};
use serde::Deserialize;

use crate::support::{Tenant, services::repository, unique};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_example_is_accepted() {
    let tenant = Tenant::create(&unique("examples"), false).await;
    let mut files = Vec::new();
    manifests(&repository().join("examples"), &mut files);
    assert!(files.len() >= 6, "{files:?}");
    let (mut bots, mut all) = (0, 0);
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        for document in serde_yaml::Deserializer::from_str(&text) {
            let mut object = DynamicObject::deserialize(document).unwrap_or_else(|e| panic!("{file}: {e}"));
            let kind = object.types.as_ref().map(|types: &TypeMeta| types.kind.clone()).unwrap();
            let named = object.metadata.name.clone().unwrap();
            // An example's namespace is the reader's; the objects in it shall stand in ours.
            if !["Namespace", "ClusterRoleBinding", "ClusterRole"].contains(&kind.as_str()) {
                object.metadata.namespace = Some(tenant.namespace.clone());
            }
            let dry = PatchParams { dry_run: true, ..PatchParams::apply("examples").force() };
            let done = tenant.api_of(&object).patch(&named, &dry, &Patch::Apply(&object)).await;
            done.unwrap_or_else(|error| panic!("{file}: {kind} {named}: {error}"));
            bots += usize::from(kind.ends_with("Bot"));
            all += 1;
        }
    }
    println!("{all} objects in {} files, {bots} of them bots", files.len());
    assert!(bots >= 6, "a minimal and a full one of each kind, and what billing orders");
    tenant.remove().await;
}

fn manifests(folder: &Path, into: &mut Vec<String>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            manifests(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            into.push(path.to_str().unwrap().to_owned());
        }
    }
}
