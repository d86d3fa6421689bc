//! Leoflow Lite: Airflow-style DAGs on one laptop. The layers are crates in the folders beside this file, from the
//! bottom up `base`, `components`, `postgres`, `python`, `engine`, `processes`, `server`, `lifecycle` and `cli`; each uses only lower
//! ones. This crate joins them to the program.

pub use leoflow_base::{airflow_minors, auth, build_info, config, docs, home, protocol, sys};
pub use leoflow_cli as cli;
pub use leoflow_components as components;
pub use leoflow_components::web_ui;
pub use leoflow_engine as engine;
pub use leoflow_lifecycle::{backup, contract, operation, setup, upgrade};
pub use leoflow_postgres as postgres;
pub use leoflow_postgres::schema;
pub use leoflow_processes::{agent, keeper, supervisor};
pub use leoflow_python as python;
pub use leoflow_server as server;

mod built;
mod server_process;

pub mod entry;

pub use built::BUILT;
