//! The worker's volume. Made here and not by the `StatefulSet`, whose claims cannot grow.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};

use super::metadata;
use crate::operator::validate::{Validated, Workload};

pub(super) fn volume(bot: &Validated, workload: &Workload) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: metadata(bot, bot.names.worker_data()),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: workload.spec.storage.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(workload.storage.clone()))])),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}
