//! The life of an instance: its set-up and removal, its backups, its upgrades and the way back. Modules are listed from
//! the bottom up; `backup`, `contract` and `setup` do not use each other.

pub mod backup;

pub mod contract;

pub mod setup;

pub mod upgrade;
