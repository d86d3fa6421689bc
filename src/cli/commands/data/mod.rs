//! The commands on variables, connections and pools, and the exchange with Apache Airflow.

pub mod connection_test;
pub mod connections;
pub mod export;
pub mod import;
pub mod pools;
pub mod variables;
