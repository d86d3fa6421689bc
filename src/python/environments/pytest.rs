//! pytest for projects whose environment has none.

use super::error::EnvironmentError;
use super::install_packages::INSTALL_LIMIT;
use super::uv::{self, Call};
use crate::discover::Python;
use crate::io_error::io;
use leoflow_base::home::Home;
use leoflow_base::home::progress::Reporter;
use leoflow_base::sys::fs::files;
use std::path::PathBuf;

/// Returns the folder with pytest for a Python; installs the newest version once. Packages of an environment take
/// precedence over those in it.
pub fn ensure(home: &Home, python: &Python, reporter: &dyn Reporter) -> Result<PathBuf, EnvironmentError> {
    let minor: Vec<&str> = python.version.split('.').take(2).collect();
    let folder = home.python().join(format!("packages-pytest-{}", minor.join(".")));
    if folder.is_dir() {
        return Ok(folder);
    }
    home.create_folder(&home.python()).map_err(io(folder.display()))?;
    let uv = uv::ensure(home, reporter)?;
    files::create_folder_atomic(
        &folder,
        |error| EnvironmentError::from(io(folder.display())(error)),
        |staging| {
            let tree = staging.join("tree");
            let arguments = ["pip", "install", "--target"].map(Into::into).into_iter().chain([tree.clone().into()]);
            let arguments = arguments.chain(["--python".into(), python.path.clone().into(), "pytest".into()]);
            uv.run(&Call::new(arguments.collect(), INSTALL_LIMIT), reporter)?;
            Ok(tree)
        },
    )?;
    Ok(folder)
}
