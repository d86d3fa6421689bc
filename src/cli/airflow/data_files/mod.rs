//! Variables, connections and pools in the file formats of Airflow's CLI.

pub mod connections;
pub mod pools;
pub mod transfer_file;
pub mod variables;
