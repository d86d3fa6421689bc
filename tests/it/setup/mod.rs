//! Setup, installers, instances, services, `doctor`, uninstalls.

mod doctor;
mod first_start;
mod installer;
pub mod instances;
mod packages;
mod services;
mod uninstalls;
