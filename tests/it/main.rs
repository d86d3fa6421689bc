//! Leoflow from the outside: the real binary, real processes, a real Postgres, each test with a
//! home of its own.

mod airflow_facts;
mod api;
mod architecture;
mod cli;
mod config;
mod dag_files;
mod doctor;
mod environment;
mod faults;
mod first_start;
mod lifecycle;
mod logins;
mod migrations;
mod migrator;
mod places;
mod ports;
mod postgres_sources;
mod runs;
mod schema_states;
mod support;
mod task_faults;
mod two_at_once;
