//! Python: finding one that can run DAGs, giving it our package, and parsing with it.

mod child;
mod children;
mod discover;
pub mod environments;
mod ignore;
mod interpreter;
mod leftovers;
mod package;
mod parse;
mod roots;
mod scan;
mod support;
mod warm;
mod zygote;

pub use children::{Children, Left};
pub use discover::{MINIMUM, Python, find};
pub use ignore::Syntax;
pub use interpreter::{Interpreter, Job, SharedInterpreter, TASK_MARK, environment};
pub use parse::{Beside, Found, Request, Said, beside, declared_with, look_beside, parse};
pub use roots::{VersionCode, as_in_workspace, project_of, roots};
pub use scan::{LIMITS, NO_ANSWER, Scan, Stamp, is_dag_file, python_files, scan};
pub use support::{
    PackageSource, checked as checked_packages, download as download_packages, install as install_packages,
    installed as installed_packages,
};
pub use warm::Warm;
