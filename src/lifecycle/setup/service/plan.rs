//! Plans the installation of the service. Pure: `--dry-run` prints the plan.

use std::fmt;
use std::path::PathBuf;

/// State of the service's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileState {
    Absent,
    Ours { is_current: bool },
    OtherHome(PathBuf),
    Foreign,
}

#[derive(Debug, Clone)]
pub struct Facts {
    pub file: PathBuf,
    pub unit: String,
    pub file_state: FileState,
    pub is_enabled: bool,
    /// True when the service is running.
    pub is_active: bool,
    /// How an instance runs without the service.
    pub instance: Instance,
    /// True when the service should also start now.
    pub now: bool,
}

/// How an instance runs that no service manager started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instance {
    NotRunning,
    InBackground,
    InTerminal,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Write(PathBuf),
    Load,
    Enable(String),
    /// Stops the instance that runs without the service; its tasks keep running.
    StopInstance,
    Start(String),
}

pub type Plan = Vec<Step>;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{file} belongs to another home, {home}")]
    OfAnotherHome { file: PathBuf, home: PathBuf },
    #[error("{0} was not created by Leoflow")]
    NotOurs(PathBuf),
    #[error("Leoflow is running in a terminal")]
    InTerminal,
}

/// Returns the missing steps, or the reason for a refusal.
pub fn plan(facts: &Facts) -> Result<Plan, Refusal> {
    let mut steps = Plan::new();
    match &facts.file_state {
        FileState::OtherHome(home) => {
            return Err(Refusal::OfAnotherHome { file: facts.file.clone(), home: home.clone() });
        }
        FileState::Foreign => return Err(Refusal::NotOurs(facts.file.clone())),
        FileState::Ours { is_current: true } => {}
        FileState::Ours { is_current: false } | FileState::Absent => {
            steps.push(Step::Write(facts.file.clone()));
        }
    }
    let starts = facts.now && !facts.is_active;
    // A killed install may have written a file that the manager has not read.
    if !steps.is_empty() || !facts.is_enabled || starts {
        steps.push(Step::Load);
    }
    if !facts.is_enabled {
        steps.push(Step::Enable(facts.unit.clone()));
    }
    if starts {
        match facts.instance {
            Instance::InTerminal => return Err(Refusal::InTerminal),
            Instance::InBackground => steps.push(Step::StopInstance),
            Instance::NotRunning => {}
        }
        steps.push(Step::Start(facts.unit.clone()));
    }
    Ok(steps)
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(file) => write!(f, "write {}", file.display()),
            Self::Load => f.write_str("reload the service manager"),
            Self::Enable(unit) => write!(f, "enable {unit}, which starts Leoflow automatically"),
            Self::StopInstance => f.write_str("stop Leoflow, which runs without the service; its tasks keep running"),
            Self::Start(unit) => write!(f, "start {unit}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(file_state: FileState, now: bool) -> Facts {
        Facts {
            file: "/u/leoflow.service".into(),
            unit: "leoflow.service".into(),
            is_enabled: matches!(file_state, FileState::Ours { .. }),
            file_state,
            is_active: false,
            instance: Instance::NotRunning,
            now,
        }
    }

    #[test]
    fn plans_only_missing_steps() {
        let write = Step::Write("/u/leoflow.service".into());
        let (enable, start) = (Step::Enable("leoflow.service".into()), Step::Start("leoflow.service".into()));
        let first = plan(&facts(FileState::Absent, true)).unwrap();
        assert_eq!(first, [write.clone(), Step::Load, enable.clone(), start.clone()]);
        assert_eq!(plan(&facts(FileState::Absent, false)).unwrap(), [write.clone(), Step::Load, enable]);
        assert_eq!(plan(&facts(FileState::Ours { is_current: true }, false)).unwrap(), []);
        assert_eq!(plan(&facts(FileState::Ours { is_current: false }, false)).unwrap(), [write, Step::Load]);
        let active = Facts { is_active: true, ..facts(FileState::Ours { is_current: true }, true) };
        assert_eq!(plan(&active).unwrap(), []);
        let background =
            Facts { instance: Instance::InBackground, ..facts(FileState::Ours { is_current: true }, true) };
        assert_eq!(plan(&background).unwrap(), [Step::Load, Step::StopInstance, start]);
    }

    #[test]
    fn refuses_foreign_files_and_terminals() {
        let other = facts(FileState::OtherHome("/other".into()), false);
        assert!(matches!(plan(&other), Err(Refusal::OfAnotherHome { .. })));
        assert!(matches!(plan(&facts(FileState::Foreign, false)), Err(Refusal::NotOurs(_))));
        let terminal = Facts { instance: Instance::InTerminal, ..facts(FileState::Absent, true) };
        assert_eq!(plan(&terminal), Err(Refusal::InTerminal));
        assert!(plan(&Facts { now: false, ..terminal }).is_ok());
    }
}
