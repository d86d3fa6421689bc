//! The commands on variables, connections and pools.

pub mod connection_test;
pub mod connections;
pub mod pools;
pub mod variables;
