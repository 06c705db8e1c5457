use serde_json::{Value, json};

use super::*;

fn set(status: &Value) -> StatefulSet {
    serde_json::from_value(
        json!({"metadata": {"name": "auditbot-worker", "generation": 2}, "status": status}),
    )
    .unwrap()
}

fn pod(status: &Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "auditbot-worker-0"}, "status": status})).unwrap()
}

fn waiting() -> StatefulSet {
    set(&json!({"observedGeneration": 2, "replicas": 1}))
}

fn container(state: &Value, last: &Value) -> Value {
    json!({"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 1, "state": state,
        "lastState": last})
}

fn reason(status: &Value) -> &'static str {
    worker_state(Some(&waiting()), Some(&pod(status))).check.reason
}

#[test]
fn a_pod_that_serves_is_ready_and_an_outdated_one_is_not() {
    let ready = json!({"observedGeneration": 2, "replicas": 1, "readyReplicas": 1, "updatedReplicas": 1});
    assert!(worker_state(Some(&set(&ready)), None).is_ready());
    let unobserved =
        json!({"observedGeneration": 1, "replicas": 1, "readyReplicas": 1, "updatedReplicas": 1});
    assert!(!worker_state(Some(&set(&unobserved)), None).is_ready());
    let old = json!({"observedGeneration": 2, "replicas": 1, "readyReplicas": 1, "currentRevision": "a",
        "updateRevision": "b"});
    assert!(!worker_state(Some(&set(&old)), None).is_ready());
    assert_eq!(worker_state(None, None).check.reason, "NotCreated");
}

#[test]
fn each_trouble_of_a_pod_has_its_reason() {
    let waits = |reason: &str| {
        let state = json!({"waiting": {"reason": reason, "message": "why"}});
        json!({"containerStatuses": [container(&state, &json!({"terminated": {"exitCode": 7}}))]})
    };
    assert_eq!(reason(&waits("ImagePullBackOff")), "ImageNotPulled");
    assert_eq!(reason(&waits("ErrImageNeverPull")), "ImageNotPulled");
    assert_eq!(reason(&waits("CrashLoopBackOff")), "Crashing");
    assert_eq!(reason(&waits("CreateContainerConfigError")), "NotStarted");
    assert_eq!(reason(&waits("ContainerCreating")), "Starting");
    let pending = json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "no nodes"}]});
    assert_eq!(reason(&pending), "Unschedulable");
}

#[test]
fn a_failed_migration_speaks_in_its_own_words_only_until_it_succeeds() {
    let failed = json!({"terminated": {"exitCode": 1, "message": "no such database\n"}});
    let status = json!({"initContainerStatuses": [container(&json!({"waiting": {}}), &failed)]});
    let state = worker_state(Some(&waiting()), Some(&pod(&status)));
    assert_eq!(state.migration.as_deref(), Some("no such database"));
    let silent =
        json!({"initContainerStatuses": [container(&json!({"terminated": {"exitCode": 4}}), &json!({}))]});
    let state = worker_state(Some(&waiting()), Some(&pod(&silent)));
    assert!(state.migration.unwrap().contains("exit code 4"));
    let mut later = container(&json!({"terminated": {"exitCode": 0}}), &failed);
    later["ready"] = true.into();
    let state = worker_state(Some(&waiting()), Some(&pod(&json!({"initContainerStatuses": [later]}))));
    assert_eq!(state.migration, None);
}
