//! The home, its settings and the environment of the user.

mod config;
mod environment;
mod home_paths;
mod homes;
