//! Lifecycle of an instance: setup and uninstall, backups, upgrades and rollbacks. `upgrade` uses the other three
//! modules; `backup`, `contract` and `setup` do not use each other.

pub mod backup;

pub mod contract;

pub mod setup;

pub mod upgrade;
