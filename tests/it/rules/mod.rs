//! Rules for the source and the documentation.

mod architecture;
mod contract;
mod documents;
mod import_cycles;
mod reference_pages;
mod repository;
mod scripts;
mod sql_owners;
