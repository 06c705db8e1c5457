//! Integration tests: one binary, since every test binary links the SDK, SQLite and TLS.

#![recursion_limit = "256"]
#[cfg(test)]
mod alice;
#[cfg(test)]
mod chart;
#[cfg(test)]
mod console;
#[cfg(test)]
mod console_caller;
#[cfg(test)]
mod console_certificate;
#[cfg(test)]
mod console_forward;
#[cfg(test)]
mod console_stage;
#[cfg(test)]
mod coverage_exclusion;
#[cfg(test)]
mod coverage_new_rooms;
#[cfg(test)]
mod coverage_notes;
#[cfg(test)]
mod coverage_pace;
#[cfg(test)]
mod coverage_recovery;
#[cfg(test)]
mod coverage_restart;
mod coverage_runner;
#[cfg(test)]
mod coverage_selection;
#[cfg(test)]
mod coverage_stage;
#[cfg(test)]
mod crd_schema;
#[cfg(test)]
mod docs;
#[cfg(test)]
mod examples;
#[cfg(test)]
mod failpoints;
#[cfg(test)]
mod faulty_store;
#[cfg(test)]
mod generated;
#[cfg(test)]
mod homeserver_synapse;
#[cfg(test)]
mod matrix_fake;
#[cfg(test)]
mod media_stage;
#[cfg(test)]
mod operator;
#[cfg(test)]
mod postgres;
#[cfg(test)]
mod store_append;
#[cfg(test)]
mod store_cli;
#[cfg(test)]
mod store_endpoint;
#[cfg(test)]
mod store_events;
#[cfg(test)]
mod store_hostile;
#[cfg(test)]
mod store_media;
#[cfg(test)]
mod store_roles;
#[cfg(test)]
mod store_rooms;
#[cfg(test)]
mod store_search;
#[cfg(test)]
mod store_state;
#[cfg(test)]
mod survey_stage;
#[cfg(test)]
mod worker_absence;
#[cfg(test)]
mod worker_admin_bot;
#[cfg(test)]
mod worker_alive;
#[cfg(test)]
mod worker_behalf;
#[cfg(test)]
mod worker_bucket;
#[cfg(test)]
mod worker_closing;
#[cfg(test)]
mod worker_edits;
#[cfg(test)]
mod worker_ends;
#[cfg(test)]
mod worker_failpoints;
#[cfg(test)]
mod worker_farewell;
#[cfg(test)]
mod worker_faults;
#[cfg(test)]
mod worker_hints;
#[cfg(test)]
mod worker_history;
#[cfg(test)]
mod worker_ignored;
mod worker_keys;
#[cfg(test)]
mod worker_media;
#[cfg(test)]
mod worker_repair;
#[cfg(test)]
mod worker_resets;
#[cfg(test)]
mod worker_rooms;
#[cfg(test)]
mod worker_run;
#[cfg(test)]
mod worker_scene;
#[cfg(test)]
mod worker_sdk_mock;
#[cfg(test)]
mod worker_session;
#[cfg(test)]
mod worker_stage;
#[cfg(test)]
mod worker_state_after;
#[cfg(test)]
mod worker_survey;
