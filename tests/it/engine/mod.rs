//! DAGs, runs and the scheduler.

mod airflow_facts;
mod airflow_semantics;
mod asset_events;
mod authoring;
mod backfills;
mod clock_steps;
mod dag_callbacks;
mod deadlines;
mod deferral;
mod history;
mod hitl;
mod loops;
mod mapped_reruns;
mod notifications;
mod partitions;
mod plugins;
mod repeated_requests;
mod requeues;
mod runs;
mod scaling;
mod scheduler_memory;
mod sensors;
mod state_stores;
mod traces;
mod wakeups;
mod watchers;
