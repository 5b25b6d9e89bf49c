//! The integration tests that can share a process. Each module has the tests of one topic. All modules are in one
//! binary: one binary for each file took twice the time to build and several times the disk space.
//!
//!     cargo test --test it                    # all of them
//!     cargo test --test it failover::         # one module
//!     cargo test --test it a_thousand_leases  # the tests with this text in their names
//!
//! A few tests change the environment, install the metrics recorder of the process, or measure its memory. Each of
//! them runs in a process of its own (`support::process::is_alone_with`), because the effect reaches the whole process.
//! A subscriber of `tracing` applies to one thread only (`support::spans`). Tests that need most of the machine are in
//! `tests/load`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[macro_use]
#[path = "../support/everywhere.rs"]
mod everywhere;
#[path = "../support/mod.rs"]
mod support;

mod any_listener;
mod auth;
mod bad_input;
mod blocking;
mod blocking_functions;
mod checker;
mod closed;
mod cluster_server;
mod clusters;
mod compare;
mod configuration;
mod connector;
mod deadlines;
mod distributed;
mod election;
mod ended_calls;
mod endpoints;
mod events;
mod exhaustive;
mod failover;
mod failover_waits;
mod faults;
mod fences;
mod from_python;
mod functions;
mod guards;
mod joining;
mod keyed_layers;
mod layers;
mod log_lines;
mod many_slots;
mod members;
mod multi_lock;
mod observability;
mod old_servers;
mod pipelined;
mod prometheus;
mod protocol_properties;
mod releases;
mod repeatable;
mod retries;
mod said;
mod server;
mod server_signals;
mod service_example;
mod setters;
mod signal_matching;
mod signals;
mod spans;
mod standby;
mod standby_failback;
mod standby_signals;
mod tasks;
mod testing_mock;
mod testing_server;
mod testing_your_code;
mod tickets;
mod tls;
mod tls_faults;
