//! What Leoflow downloads or is given as a file: wheels from the Python package index, archives, and Airflow's web UI.

pub mod archive;
pub mod web_ui;
pub mod wheel;
