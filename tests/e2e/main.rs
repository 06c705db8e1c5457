//! End-to-end tests on a real cluster, a real Synapse, a real Postgres and a client that is not
//! ours. `make test` brings these up and runs them.

#![recursion_limit = "256"]
#![expect(unreachable_pub, reason = "a test binary has no public interface")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking"
)]

#[expect(dead_code, reason = "each test module uses a part of it")]
mod support;

mod api_server;
mod capture;
mod capture_kinds;
mod conversation;
mod coverage;
mod coverage_recovery;
mod coverage_selection;
mod coverage_worker;
mod deletion;
mod examples;
mod faults_capture;
mod faults_database;
mod faults_homeserver;
mod faults_identity;
mod faults_login;
mod faults_outage;
mod faults_volume;
mod federation;
mod figures;
mod idle;
mod install;
mod intake;
mod observability;
mod provisioning;
mod recovery;
mod security;
mod survey;
mod survey_accounts;
mod tenants;
