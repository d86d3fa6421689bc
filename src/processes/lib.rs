//! The processes around the server: the supervisor, which starts and watches them, and the agent, which runs tasks.
//! Neither uses the other.

pub mod agent;
pub mod supervisor;
