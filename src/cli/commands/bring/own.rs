//! `leoflow bring PATH --own`: an instance of its own for a repository, a branch's worktree or another folder.

use super::{Bring, canonical_folder};
use crate::context::{Confirmation, Context};
use crate::error::Error;
use leoflow_base::home::{Home, instances, resolve};
use leoflow_base::protocol::control;
use leoflow_base::protocol::status::InstanceState;
use leoflow_base::sys::env_vars;
use std::path::Path;
use std::process::{Command, Stdio};

/// Creates and starts the instance, unless it is there, and brings the folder into it.
pub fn run(context: &Context<'_>, args: &Bring) -> Result<u8, Error> {
    let folder = canonical_folder(&args.path)?;
    let name = args.name.clone().unwrap_or_else(|| instance_name(&folder));
    let home = resolve(Some(&instances::root(&name)?))?;
    if !home.exists() {
        context.printer.note(format!("Creates the instance {name} in {}", home.root().display()));
        context.require_confirmation("Do this?", Confirmation::from(args.yes))?;
    }
    let is_healthy =
        |home: &Home| control::status_of(home).is_some_and(|status| status.state == InstanceState::Healthy);
    if !is_healthy(&home) {
        let mut start = leoflow(&name)?;
        start.args(["lite", "start"]);
        if context.printer.json {
            // The result of this command is that of `bring`; the password of a new instance is for a person.
            start.stdout(Stdio::from(std::io::stderr()));
        }
        match exit_code(&mut start)? {
            0 => {}
            code => return Ok(code),
        }
    }
    let mut bring = leoflow(&name)?;
    bring.args(context.printer.json.then_some("--json")).arg("bring").arg(&folder).args(args.yes.then_some("--yes"));
    exit_code(&mut bring)
}

/// The program for an instance; it hands over to the installed one if that is of another release.
fn leoflow(instance: &str) -> Result<Command, Error> {
    let mut command = Command::new(env_vars::started_from().map_err(Error::failed)?);
    command.args(["--instance", instance]);
    Ok(command)
}

fn exit_code(command: &mut Command) -> Result<u8, Error> {
    let status = command.status().map_err(Error::failed)?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// The folder's name in the letters that an instance's name may have.
fn instance_name(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let name: String = name.chars().map(allowed).collect();
    name.trim_matches(['-', '_']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_has_the_name_of_the_folder() {
        let name = |folder: &str| instance_name(Path::new(folder));
        assert_eq!(
            [name("/src/Sales.Data"), name("/src/sales_2"), name("/src/.feature")],
            ["sales-data", "sales_2", "feature"]
        );
    }
}
