//! Backups and restores.

mod backup_fuzz;
mod backups;
mod copies;
mod encrypted_backups;
mod hostile_backups;
mod mounted_data;
mod restores;
mod totals;
mod upkeep;
