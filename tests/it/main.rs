//! End-to-end tests: the real binary, real processes and a real PostgreSQL, each test with its own home. A folder tests
//! the crate of its name below `src/`, but `backup`, `setup` and `upgrade` test `src/lifecycle`, and `rules` checks the
//! sources. `support` is the test harness.

mod backup;
mod base;
mod cli;
mod engine;
mod postgres;
mod processes;
mod python;
mod rules;
mod server;
mod setup;
mod support;
mod upgrade;
