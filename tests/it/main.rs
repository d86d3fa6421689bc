//! End-to-end tests: the real binary, real processes and a real PostgreSQL, each test with its own home. The folders
//! are those of `src/`.

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
