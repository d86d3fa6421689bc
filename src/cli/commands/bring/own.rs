//! `leoflow bring PATH --own`: an instance of its own for a repository, a branch's worktree or another folder.

use super::repository::Repository;
use super::{Bring, brought_folders, canonical_folder, without_dags};
use crate::context::{Confirmation, Context};
use crate::error::Error;
use leoflow_base::config::{self, SETTINGS};
use leoflow_base::home::{Home, all_instances, instances, lock, resolve};
use leoflow_base::protocol::control;
use leoflow_base::protocol::status::InstanceState;
use leoflow_base::sys::{env_vars, shell};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Time for a start that another command has begun.
const START_LIMIT: Duration = Duration::from_secs(120);

/// Creates and starts the instance if it does not exist or run, and brings the folder into it.
pub async fn run(context: &Context<'_>, args: &Bring) -> Result<u8, Error> {
    let folder = canonical_folder(&args.path)?;
    let count = Repository::find(&folder, None)?.projects.iter().map(|project| project.dag_files.len()).sum::<usize>();
    if count == 0 {
        return Err(without_dags(&folder));
    }
    let name = args.name.clone().unwrap_or_else(|| instance_name(&folder));
    let other_name =
        || format!("choose another name: leoflow bring {} --own --name NAME", shell::word(&folder.to_string_lossy()));
    if name == instances::DEFAULT {
        return Err(Error::refused("the default instance is not one of its own").hint(other_name()));
    }
    let root = instances::root(&name).map_err(|error| Error::from(error).hint(other_name()))?;
    let home = resolve(Some(&root))?;
    let brought = brought_folders(&home);
    if let Some(other) = brought.first().filter(|_| !brought.contains(&folder)) {
        return Err(
            Error::refused(format!("the instance {name} has the DAGs of {}", other.display())).hint(other_name())
        );
    }
    if !home.exists() {
        let (root, folder) = (root.display(), folder.display());
        context.printer.note(format!("Creates the instance {name} in {root}, and brings {folder} into it"));
        context.require_confirmation("Do this?", Confirmation::from(args.yes))?;
    }
    if !is_running(&home).await {
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
    bring.args(context.printer.json.then_some("--json")).arg("bring").arg(&folder).arg("--yes");
    exit_code(&mut bring)
}

/// Waits for a start in progress; then returns true if the instance runs.
async fn is_running(home: &Home) -> bool {
    let began = Instant::now();
    loop {
        match control::status_of(home).map(|status| status.state) {
            Some(InstanceState::Starting | InstanceState::Upgrading) => {}
            // Holds the lock before it answers.
            None if lock::is_held(home).unwrap_or(false) => {}
            state => return state.is_some_and(|state| state != InstanceState::Stopped),
        }
        if began.elapsed() > START_LIMIT {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The instance other than `home` that a folder was brought into, if it was not brought into `home`.
pub fn other_instance_of(home: &Home, folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let has_folder = |home: &Home| brought_folders(home).iter().any(|brought| folder.starts_with(brought));
    if has_folder(home) {
        return None;
    }
    all_instances().into_iter().find(|(_, home)| has_folder(home)).map(|(name, _)| name)
}

/// The program for an instance; it hands over to the installed one if that is of another release. Variables of settings,
/// such as LEOFLOW_PORT, apply to the current instance only.
fn leoflow(instance: &str) -> Result<Command, Error> {
    let program: PathBuf = env_vars::started_from().map_err(Error::failed)?;
    let mut command = Command::new(program);
    command.args(["--instance", instance]);
    for name in SETTINGS.iter().filter_map(config::variable_of) {
        command.env_remove(name);
    }
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
