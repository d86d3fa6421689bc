//! Lifecycle of an instance: setup and uninstall, backups, upgrades and rollbacks. `backup`, `contract` and `setup` do
//! not use each other; `upgrade` uses them, and `operation` joins all to what a command or the server does.

pub mod backup;

pub mod contract;

pub mod setup;

pub mod upgrade;

pub mod operation;
