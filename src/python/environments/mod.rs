//! Environments of DAGs: a project's declaration, the lock that uv resolves it to, and the folder where it is
//! installed.

mod airflow_versions;
mod build;
mod bytecode;
mod choice;
mod cleanup;
mod declaration;
mod error;
mod fetched;
mod fit;
mod install_packages;
mod installed;
mod lock;
mod managed;
mod pins;
mod pip_settings;
mod resolve;
mod uv;
mod uv_messages;
mod uv_settings;
mod uv_variables;
mod verify;

pub use airflow_versions::excludes_supported;
pub use build::{count, find, record_use, reinstall};
pub use choice::{MissingPython, choose, choose_or_install, ensure, environment_of_lock, renew, renew_managed};
pub use cleanup::{Cleanup, InUse, Pruned, Pruning};
pub(crate) use declaration::collect::collect_declared;
pub use declaration::collect::find_requirements_source;
pub use declaration::declared::Declared;
pub use declaration::error::DeclarationError;
pub use declaration::other_tools::requirements_of as requirements_of_other_tool;
pub use declaration::pip_lines::Line;
pub use declaration::requirements::check as check_requirement;
pub use declaration::requirements_file::{added_to, lines_of};
pub use declaration::unread::Unread;
pub use declaration::variables::Variables;
pub use error::EnvironmentError;
pub use fit::{Loosened, fit};
pub(crate) use installed::has_airflow;
pub use installed::{installed, program};
pub use lock::Lock;
pub use managed::plain as managed_plain;
pub use pins::{name_of, without_versions};
pub(crate) use uv::for_tasks as uv_for_tasks;
pub use uv::{ensure as ensure_uv, find as find_uv};
pub use verify::verify;
