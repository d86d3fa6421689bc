//! Task instances, their tries, logs, XComs, links and questions.

pub mod clear;
pub mod extra_links;
pub mod hitl;
pub mod instance_views;
mod log_body;
pub mod mark;
pub mod mark_bulk;
pub mod task_dependencies;
pub mod task_instances;
pub mod task_logs;
pub mod tries;
pub mod xcoms;
