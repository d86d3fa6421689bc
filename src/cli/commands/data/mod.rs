//! The commands on variables, connections and pools.

pub mod connections;
pub mod db;
pub mod history;
pub mod pools;
pub mod variables;
