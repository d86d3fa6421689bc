//! What an install of the service does. Pure: `--dry-run` prints it.

use std::fmt;
use std::path::PathBuf;

/// What is where the service's file belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Nothing,
    Ours { is_current: bool },
    OfAnotherHome(PathBuf),
    NotOurs,
}

#[derive(Debug, Clone)]
pub struct Facts {
    pub file: PathBuf,
    pub unit: String,
    pub found: Found,
    pub is_enabled: bool,
    /// Whether the service runs.
    pub is_active: bool,
    /// The instance that runs without it.
    pub instance: Instance,
    /// Whether it is to run from now on.
    pub now: bool,
}

/// An instance that no service manager has started.
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
    /// What was started by hand; its tasks run on.
    StopInstance,
    Start(String),
}

pub type Plan = Vec<Step>;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{file} is the service of another home, {home}")]
    OfAnotherHome { file: PathBuf, home: PathBuf },
    #[error("{0} was not made by Leoflow")]
    NotOurs(PathBuf),
    #[error("Leoflow runs in a terminal")]
    InTerminal,
}

pub fn plan(facts: &Facts) -> Result<Plan, Refusal> {
    let mut steps = Plan::new();
    match &facts.found {
        Found::OfAnotherHome(home) => {
            return Err(Refusal::OfAnotherHome { file: facts.file.clone(), home: home.clone() });
        }
        Found::NotOurs => return Err(Refusal::NotOurs(facts.file.clone())),
        Found::Ours { is_current: true } => {}
        Found::Ours { is_current: false } | Found::Nothing => {
            steps.push(Step::Write(facts.file.clone()));
        }
    }
    let starts = facts.now && !facts.is_active;
    // An install that was killed may have written what was not read.
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
            Self::Load => f.write_str("have the service manager read it"),
            Self::Enable(unit) => write!(f, "enable {unit}, which starts Leoflow when you log in"),
            Self::StopInstance => f.write_str("stop Leoflow, which runs without the service; its tasks run on"),
            Self::Start(unit) => write!(f, "start {unit}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(found: Found, now: bool) -> Facts {
        Facts {
            file: "/u/leoflow.service".into(),
            unit: "leoflow.service".into(),
            is_enabled: matches!(found, Found::Ours { .. }),
            found,
            is_active: false,
            instance: Instance::NotRunning,
            now,
        }
    }

    #[test]
    fn an_install_does_only_what_is_not_done() {
        let write = Step::Write("/u/leoflow.service".into());
        let (enable, start) = (Step::Enable("leoflow.service".into()), Step::Start("leoflow.service".into()));
        let first = plan(&facts(Found::Nothing, true)).unwrap();
        assert_eq!(first, [write.clone(), Step::Load, enable.clone(), start.clone()]);
        assert_eq!(plan(&facts(Found::Nothing, false)).unwrap(), [write.clone(), Step::Load, enable]);
        assert_eq!(plan(&facts(Found::Ours { is_current: true }, false)).unwrap(), []);
        assert_eq!(plan(&facts(Found::Ours { is_current: false }, false)).unwrap(), [write, Step::Load]);
        let active = Facts { is_active: true, ..facts(Found::Ours { is_current: true }, true) };
        assert_eq!(plan(&active).unwrap(), []);
        let background = Facts { instance: Instance::InBackground, ..facts(Found::Ours { is_current: true }, true) };
        assert_eq!(plan(&background).unwrap(), [Step::Load, Step::StopInstance, start]);
    }

    #[test]
    fn what_is_somebody_elses_is_refused() {
        let other = facts(Found::OfAnotherHome("/other".into()), false);
        assert!(matches!(plan(&other), Err(Refusal::OfAnotherHome { .. })));
        assert!(matches!(plan(&facts(Found::NotOurs, false)), Err(Refusal::NotOurs(_))));
        let terminal = Facts { instance: Instance::InTerminal, ..facts(Found::Nothing, true) };
        assert_eq!(plan(&terminal), Err(Refusal::InTerminal));
        assert!(plan(&Facts { now: false, ..terminal }).is_ok());
    }
}
