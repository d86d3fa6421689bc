//! The processes around the server: the supervisor, which starts and watches them, the agent, which claims tasks, and
//! the keeper, which runs them. Supervisor and agent do not use each other.

pub mod agent;
pub mod keeper;
pub mod supervisor;
