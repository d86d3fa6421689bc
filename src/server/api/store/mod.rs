//! Variables, connections, pools and state stores.

pub mod connections;
pub mod pools;
pub mod state_stores;
pub mod variables;
