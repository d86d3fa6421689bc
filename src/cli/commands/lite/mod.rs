//! The commands on an instance: running it, its status, its logs.

pub mod agent;
pub mod datastore;
pub mod doctor;
pub mod logs;
pub mod psql;
pub mod reset_password;
pub mod restart;
pub mod run;
pub mod service;
pub mod start;
pub mod status;
pub mod stop;
