//! The commands on variables, connections and pools.

pub mod connections;
pub mod db;
pub mod history;
pub mod notify;
pub mod pools;
pub mod variables;
