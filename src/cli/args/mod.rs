//! Arguments that several commands share, the help in groups, and completion. A command's own arguments are in the
//! command's file. Doc comments of arguments are the text of `--help`.

pub mod airflow;
pub mod all;
pub mod complete;
pub mod global;
pub mod help;
pub mod on_existing;
pub mod output;
pub mod rerun_version;
pub mod run_args;

pub use global::Global;
pub use on_existing::OnExisting;
pub use output::OutputFormat;
