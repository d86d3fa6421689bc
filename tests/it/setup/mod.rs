//! Set-up, instances, services, removal.

mod doctor;
mod first_start;
mod installer;
pub mod instances;
mod services;
mod uninstalls;
