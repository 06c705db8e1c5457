//! The operator against an API server and a homeserver in memory.

mod certificate;
mod children;
mod cleanup;
mod concurrency;
mod crash;
mod crashing;
mod fake_api;
mod fake_ssa;
mod fake_state;
mod fake_watch;
mod inbox;
mod kube_util;
mod lease;
mod leaving;
mod problems;
mod provisioning;
mod sessions;
mod world;
