//! What the workload and its pod say about the worker. (no client)

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ContainerStatus, Pod},
};

use crate::domain::worker::Check;

/// The state of the worker's pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerState {
    /// Condition `WorkerReady`.
    pub check: Check,
    /// Why the migrations failed, in the words of the init container.
    pub migration: Option<String>,
    /// The worker's process runs, so that it reports for itself, be it ready or not.
    pub speaks: bool,
}

impl WorkerState {
    /// The pod runs and serves; what the worker says of itself counts.
    pub fn is_ready(&self) -> bool {
        self.check.ok == Some(true)
    }

    /// The same for a reason that lies before the pod.
    pub fn waiting(reason: &'static str, message: impl Into<String>) -> Self {
        Self { check: Check::failed(reason, message), migration: None, speaks: false }
    }
}

/// Texts of Kubernetes are cut to this length in conditions.
const MAX_TEXT: usize = 500;

/// Reads the state of the worker.
pub fn worker_state(stateful_set: Option<&StatefulSet>, pod: Option<&Pod>) -> WorkerState {
    let Some(stateful_set) = stateful_set else {
        return WorkerState::waiting("NotCreated", "the worker's workload does not exist yet");
    };
    if is_rolled_out(stateful_set) {
        let check = Check::ok("PodReady", "the worker's pod is ready");
        return WorkerState { check, migration: None, speaks: true };
    }
    let name = stateful_set.metadata.name.as_deref().unwrap_or_default();
    let Some(status) = pod.and_then(|pod| pod.status.as_ref()) else {
        return WorkerState::waiting("Starting", format!("pod {name}-0 does not exist yet"));
    };
    if let Some(state) = status.init_container_statuses.iter().flatten().find_map(migration_failed) {
        return state;
    }
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    for container in containers {
        if let Some((reason, message)) = trouble(container) {
            return WorkerState::waiting(reason, format!("pod {name}-0: {message}"));
        }
    }
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "PodScheduled" && c.status == "False")
        .and_then(|c| c.message.as_deref());
    match unscheduled {
        Some(message) => {
            WorkerState::waiting("Unschedulable", format!("pod {name}-0 finds no node: {}", cut(message)))
        }
        None => WorkerState {
            speaks: status.container_statuses.iter().flatten().any(is_running),
            ..WorkerState::waiting("Starting", format!("pod {name}-0 is not ready yet"))
        },
    }
}

fn is_running(container: &ContainerStatus) -> bool {
    container.state.as_ref().is_some_and(|state| state.running.is_some())
}

fn is_rolled_out(stateful_set: &StatefulSet) -> bool {
    let Some(status) = &stateful_set.status else { return false };
    let is_observed = status.observed_generation.unwrap_or_default()
        >= stateful_set.metadata.generation.unwrap_or_default();
    is_observed
        && status.ready_replicas.unwrap_or_default() >= 1
        && (status.updated_replicas.unwrap_or_default() >= 1
            || status.current_revision == status.update_revision)
}

fn migration_failed(container: &ContainerStatus) -> Option<WorkerState> {
    let ended = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| {
        state.as_ref().and_then(|state| state.terminated.clone()).filter(|ended| ended.exit_code != 0)
    };
    let ended = ended(&container.state).or_else(|| ended(&container.last_state))?;
    if container.ready {
        return None;
    }
    let said = ended.message.as_deref().map(cut).filter(|text| !text.is_empty());
    let message = said.unwrap_or_else(|| {
        format!(
            "the migrations failed with exit code {}; see the logs of the init container migrate",
            ended.exit_code
        )
    });
    Some(WorkerState {
        check: Check::failed("MigrationFailed", message.clone()),
        migration: Some(message),
        speaks: false,
    })
}

fn trouble(container: &ContainerStatus) -> Option<(&'static str, String)> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let why = waiting.message.as_deref().map(cut).unwrap_or_default();
    let image = &container.image;
    match waiting.reason.as_deref()? {
        "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
            Some(("ImageNotPulled", format!("image {image} cannot be pulled: {why}")))
        }
        "CrashLoopBackOff" => {
            let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
            let code = last.map_or(0, |ended| ended.exit_code);
            Some((
                "Crashing",
                format!("container {} ends with exit code {code}; see its logs", container.name),
            ))
        }
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            Some(("NotStarted", format!("container {} cannot be started: {why}", container.name)))
        }
        _ => None,
    }
}

fn cut(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests;
