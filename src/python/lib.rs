//! Finds a Python that can run DAGs, installs the small package (our own `airflow.sdk`) and the environments of
//! projects, and parses DAG files in child processes.

pub mod airflow_keys;
mod child;
mod children;
mod discover;
mod dotenv;
pub mod environments;
mod import_timeout;
mod interpreter;
mod io_error;
mod leftovers;
pub mod linked_venv;
mod no_result;
pub mod notes;
mod package;
mod parse;
mod passed_variables;
mod roots;
mod scan;
mod shared_warm;
mod support;
mod warm;
mod wheels;
mod without_effect;
mod zygote;

pub use children::{AnswerError, ChildOutput, Children};
pub use discover::NoPython;
pub use discover::{MINIMUM, Python, find};
pub use dotenv::{InvalidVariable, flag, path_beside as variables_beside, variable, variables_of};
pub use interpreter::{Interpreter, Job, SharedInterpreter, TASK_MARK, is_parse_mark, is_parse_mark_of};
pub use no_result::NoResult;
pub use package::home_of_command;
pub use parse::{
    FileContext, FileSettings, ParseOutput, declared_with, file_context, find_requirements_source, parse,
    read_file_context, unzip_command,
};
pub use passed_variables::environment;
pub use roots::{DagPlaces, Request, VersionCode, folders, path_in_workspace, roots};
pub use scan::{LIMITS, Scan, Stamp, Syntax, Unscanned, dag_files, is_dag_file, is_data, is_python, is_zip, scan};
pub use shared_warm::SharedWarm;
pub use support::{
    PLATFORMS as PACKAGE_PLATFORMS, PackageSource, download as download_packages, install as install_packages,
    installed as installed_packages, requirements as package_requirements, verified_wheels,
};
pub use wheels::WheelError;
pub use without_effect::{SettingsUnread, WithoutEffect, settings_without_effect};
pub use zygote::NO_MARK;
