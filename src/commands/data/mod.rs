//! The commands on variables, connections and pools.

pub mod connection_test;
pub mod connections;
pub mod connections_format;
pub mod pools;
pub mod transfer_file;
pub mod variables;
