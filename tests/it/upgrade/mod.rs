//! Upgrades and rollbacks.

mod other_programs;
mod package_managers;
mod phases;
mod rollback_kills;
mod rollbacks;
mod upgrade_kills;
mod upgrade_refusals;
mod upgrades;
mod upgrades_over_http;
