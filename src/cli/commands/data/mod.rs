//! The commands on variables, connections and pools.

pub mod connections;
pub mod pools;
pub mod variables;
