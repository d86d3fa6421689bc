//! A datastore on a server that others manage, or in a container.

pub mod claim;
pub mod container;
pub mod database_check;
pub mod relay;
pub mod scram;
pub(crate) mod tls;
