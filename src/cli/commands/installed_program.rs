//! Replaces a program of another release, such as that of another instance, by the one that is installed in the home:
//! only the steps of an upgrade or a rollback change the release of an instance.

use super::command::Command;
use crate::context::Context;
use crate::error::Error;
use leoflow_base::build_info;
use leoflow_base::home::Home;
use leoflow_base::sys::env_vars;
use leoflow_lifecycle::setup;
use leoflow_lifecycle::upgrade::release::version_order;
use semver::Version;
use std::path::Path;

/// Execs the installed program with the same arguments, if it is of another release and this program is outside the
/// home. A program inside the home does not exec, so that neither does the installed one.
pub fn exec_instead_of_another(context: &Context<'_>, command: &Command) -> Result<(), Error> {
    let home = &context.home;
    let installed = setup::installed_version(home).filter(|installed| installed != context.version);
    // A development build runs a newer source on an existing home.
    let Some(installed) = installed.filter(|_| command.is_for_installed_program() && !build_info::is_development())
    else {
        return Ok(());
    };
    let (Ok(own), Ok(installed)) = (Version::parse(context.version), Version::parse(&installed)) else { return Ok(()) };
    let is_outside = env_vars::started_from().is_ok_and(|program| !is_inside(home, &program));
    let is_target_inside = home.bin().join("leoflow").canonicalize().is_ok_and(|program| is_inside(home, &program));
    let is_newer = version_order::compare(&own, &installed).is_gt();
    // A start by a newer program of a package manager upgrades the instance.
    let upgrades = || command.starts_instance() && is_newer && setup::package_owner().is_some();
    if !is_outside || !is_target_inside || upgrades() {
        return Ok(());
    }
    let next_step = if is_newer { "; to upgrade the instance: leoflow upgrade" } else { "" };
    context.printer.note(format!("Using this instance's Leoflow {installed} (this program is {own}){next_step}"));
    Err(Error::from(context.operation().exec_installed_version()).hint("leoflow upgrade"))
}

/// `program` is a path without links.
fn is_inside(home: &Home, program: &Path) -> bool {
    home.root().canonicalize().is_ok_and(|root| program.starts_with(root))
}
