//! Reads the declaration of a project's environment from files of several formats.

pub mod addresses;
pub mod collect;
pub mod declared;
pub mod error;
pub mod index;
mod lock_files;
mod merge;
pub mod other_tools;
pub mod pip_lines;
pub mod project_text;
pub mod python_range;
pub mod requirements;
pub mod requirements_file;
pub mod unread;
pub mod variables;
