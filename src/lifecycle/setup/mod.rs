//! Sets up a home: gather facts, plan the missing parts, apply them step by step. After a kill, the next run plans the
//! rest.

mod apply;
mod check;
mod doctor;
mod extras;
mod facts;
mod install_self;
mod instance_port;
mod other_copy;
mod package_owner;
mod plan;
mod receipt;
mod scaffold;
pub mod service;
mod shared_workspace;
mod shell_path;
mod step;
pub mod uninstall;

pub use apply::{Applied, ApplyError, apply, get_extras, mark_password_shown};
pub(crate) use apply::{record_version, renew_unseen_password};
pub use check::{Check, Fix, Verdict};
pub use doctor::{RESTORE, SchemaReport, SchemaUnavailable, ServerPython, examine, fix, overdue};
pub use facts::{ConfigFact, Facts, FactsError};
pub(crate) use facts::{InstalledBinary, gather};
pub(crate) use install_self::add_version;
pub use install_self::{InstallError, installed_version, link, linked_version};
pub use instance_port::own_port;
pub use other_copy::{first_on_path, other_copy};
pub use package_owner::{PackageOwner, package_owner};
pub use plan::{Plan, Refusal, Request, plan};
pub use receipt::{Receipt, ReceiptError};
pub use scaffold::{is_untouched, make_project};
pub use shared_workspace::{is_set_up, user_of_workspace};
pub use shell_path::{ShellError, add_to_path};
pub use step::Step;
