//! Leoflow from the outside: the real binary, real processes, a real Postgres, each test with a
//! home of its own.

mod airflow_facts;
mod airflow_meaning;
mod api;
mod architecture;
mod backup_fuzz;
mod backups;
mod cli;
mod config;
mod dag_files;
mod data_places;
mod doctor;
mod environment;
mod faults;
mod first_start;
mod hostile_backups;
mod installer;
mod lifecycle;
mod logins;
mod migrations;
mod migrator;
mod passwords;
mod places;
mod ports;
mod postgres_sources;
mod python_package;
mod restores;
mod runs;
mod schema_states;
mod support;
mod task_faults;
mod two_at_once;
mod uninstalls;
mod upgrade_kills;
mod upgrade_refusals;
mod upgrades;
