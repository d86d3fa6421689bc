//! Resolves a declaration to a lock: first for this machine, then for all platforms. uv reads the requirements as the
//! project's files have them.

use super::build::Staging;
use super::declaration::declared::Declared;
use super::declaration::requirements::Role;
use super::error::EnvironmentError;
use super::error::UvError;
use super::fetched::{self, Lines};
use super::install_packages::text_lines;
use super::lock::Lock;
use super::uv::{Call, Uv};
use super::{airflow_versions, pins, uv_messages};
use crate::Python;
use crate::io_error::{unreadable, unwritable};
use leoflow_base::home::Home;
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::sys::checkpoint::checkpoint;
use leoflow_base::sys::env_vars;
use leoflow_base::sys::fs::files;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Time limit for resolving the requirements once.
const RESOLVE_LIMIT: Duration = Duration::from_secs(300);

/// The platforms that a lock is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Platforms {
    /// This machine's, with this Python.
    Here,
    /// Every platform, with this Python version or a newer one.
    All,
}

/// Which index uv uses for a package that several indexes have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IndexOrder {
    /// The first index that has the package. uv's default: a stranger who publishes the name of a private package on a
    /// later index cannot replace the package.
    OnlyFirst,
    /// The first index that has a matching version.
    FirstThatFits,
}

/// Resolves a declaration to the newest matching versions.
pub fn lock(
    uv: &Uv,
    home: &Home,
    declared: &Declared,
    python: &Python,
    reporter: &dyn Reporter,
) -> Result<Lock, EnvironmentError> {
    reporter.report(Progress::Started(format!("Resolving {}", shown(&declared.requirements))));
    let lines = fetched::included(declared)?;
    let staging = Staging::new(home)?;
    let resolution =
        Resolution::new(uv, declared, python, &staging, &lines).map_err(unwritable(&home.environments()))?;
    let text = resolution.text(reporter)?;
    checkpoint("environment.locked");
    let pin_lines = || lines.iter().map(|(_, line)| line);
    let text = pins::restrict(&text, pin_lines())?;
    if declared.index.require_hashes {
        pins::check_all_pinned(&text, pin_lines())?;
    }
    Lock { declared: declared.clone(), python: declared.python_of_lock(python), text }.allowed()
}

/// The requirements in a message: the first of them, if there are many.
fn shown(requirements: &[String]) -> String {
    const MOST: usize = 12;
    match requirements.len().checked_sub(MOST) {
        None | Some(0) => requirements.join(", "),
        Some(more) => format!("{} and {more} more", requirements[..MOST].join(", ")),
    }
}

/// Warning for `IndexOrder::FirstThatFits`: a later index may provide a package that an earlier one has, too.
fn index_order_warning(declared: &Declared) -> String {
    format!(
        "{}: no versions fit if each package comes from the first index that has it, so the next indexes are asked, \
         where anybody may use the name of a private package; set UV_INDEX_STRATEGY=first-index in the environment \
         that starts Leoflow to refuse this",
        shown(&declared.requirements)
    )
}

/// Resolves a declaration for this machine; returns the text of the lock. uv keeps the versions in `preferred`, lines
/// `NAME==VERSION`, that match.
pub fn resolve_here(
    uv: &Uv,
    home: &Home,
    declared: &Declared,
    python: &Python,
    preferred: &[String],
    reporter: &dyn Reporter,
) -> Result<String, EnvironmentError> {
    let lines = fetched::included(declared)?;
    let staging = Staging::new(home)?;
    let in_environments = unwritable(&home.environments());
    let resolution = Resolution::new(uv, declared, python, &staging, &lines).map_err(&in_environments)?;
    files::write_atomic(&resolution.locked, text_lines(preferred).as_bytes(), 0o600).map_err(&in_environments)?;
    resolution.here(reporter).map(|(text, _)| text)
}

struct Resolution<'a> {
    uv: &'a Uv,
    declared: &'a Declared,
    python: &'a Python,
    /// The requirements and the constraints file, with their texts.
    requirements: (PathBuf, String),
    constraints: (PathBuf, String),
    /// Output file.
    locked: PathBuf,
}

impl<'a> Resolution<'a> {
    fn new(
        uv: &'a Uv,
        declared: &'a Declared,
        python: &'a Python,
        staging: &Staging,
        lines: &Lines,
    ) -> io::Result<Self> {
        let of_role = |role| text_lines(lines.iter().filter(|(of, _)| *of == role).map(|(_, line)| line));
        let requirements = text_lines(&declared.index.lines()) + &of_role(Role::Requirements);
        let pre_release = lines.iter().flat_map(|(_, line)| airflow_versions::pre_release_parts(line));
        let bounds: Vec<String> = airflow_versions::bounds().into_iter().chain(pre_release).collect();
        let constraints = of_role(Role::Constraints) + &text_lines(&bounds);
        let write = |name: &str, text: String| {
            let file = staging.0.join(name);
            files::write_atomic(&file, text.as_bytes(), 0o600).map(|()| (file, text))
        };
        Ok(Self {
            uv,
            declared,
            python,
            requirements: write("requirements.in", requirements)?,
            constraints: write("constraints.txt", constraints)?,
            locked: staging.0.join("lock.txt"),
        })
    }

    /// Returns the text of the lock. Resolves for this machine first: a lock for all platforms may contain a version
    /// without files for this machine. Both calls write the same output file, from which uv keeps versions that match;
    /// the lock for all platforms is returned only if it contains every version of the first.
    fn text(&self, reporter: &dyn Reporter) -> Result<String, EnvironmentError> {
        let (here, order) = self.here(reporter)?;
        let Ok(everywhere) = self.resolved(Platforms::All, order, reporter) else { return Ok(here) };
        let is_the_same_here = pins::labels(&here).is_subset(&pins::labels(&everywhere));
        Ok(if is_the_same_here { everywhere } else { here })
    }

    /// Resolves for this machine; returns the text of the lock and the order of the indexes.
    fn here(&self, reporter: &dyn Reporter) -> Result<(String, IndexOrder), EnvironmentError> {
        let mut order = IndexOrder::OnlyFirst;
        let mut here = self.resolved(Platforms::Here, order, reporter);
        let has_no_solution = matches!(here, Err(EnvironmentError::Uv(UvError::NoSolution(_))));
        if has_no_solution && self.may_try_other_indexes() {
            order = IndexOrder::FirstThatFits;
            reporter.report(Progress::Warning(index_order_warning(self.declared)));
            // If the second attempt fails too, the first failure is reported: it names the index that uv used.
            here = self.resolved(Platforms::Here, order, reporter).or(here);
        }
        let here = here.map_err(|error| match error {
            EnvironmentError::Uv(UvError::NoSolution(message) | UvError::Failed(message)) => {
                EnvironmentError::Unresolvable(airflow_versions::add_advice(self.with_origins(message), self.declared))
            }
            other => other,
        })?;
        Ok((here, order))
    }

    /// uv's message with the project's files and lines in place of the staged ones.
    fn with_origins(&self, message: String) -> String {
        [&self.requirements, &self.constraints].into_iter().fold(message, |message, (file, text)| {
            uv_messages::with_origin(&message, file, text, &self.declared.origins).unwrap_or(message)
        })
    }

    /// True if several indexes are configured and the user has not set their order.
    fn may_try_other_indexes(&self) -> bool {
        let has_several = !self.declared.index.extra.is_empty()
            || ["UV_INDEX", "UV_EXTRA_INDEX_URL"].iter().any(|name| env_vars::is_set(name));
        has_several && !env_vars::is_set("UV_INDEX_STRATEGY")
    }

    fn resolved(
        &self,
        platforms: Platforms,
        order: IndexOrder,
        reporter: &dyn Reporter,
    ) -> Result<String, EnvironmentError> {
        let variables = &self.declared.variables;
        let texts = [&self.requirements.1, &self.constraints.1];
        let environment = self.declared.index.environment(variables, texts)?;
        let arguments = self.arguments(platforms, order);
        self.uv.run(&Call { arguments, limit: RESOLVE_LIMIT, environment, variables }, reporter)?;
        Ok(std::fs::read_to_string(&self.locked).map_err(unreadable(&self.locked))?)
    }

    fn arguments(&self, platforms: Platforms, order: IndexOrder) -> Vec<OsString> {
        let fixed = ["pip", "compile", "--generate-hashes", "--no-header", "--no-annotate"];
        let mut arguments: Vec<OsString> = fixed.map(Into::into).into();
        if platforms == Platforms::All {
            let version = self.declared.python_of_lock(self.python);
            arguments.extend(["--universal".into(), "--python-version".into(), version.into()]);
        }
        let files =
            [("--constraints", &self.constraints.0), ("--python", &self.python.path), ("--output-file", &self.locked)];
        arguments.extend(files.into_iter().flat_map(|(name, path)| [name.into(), path.into()]));
        let index = &self.declared.index;
        let pairs = index.exclude_newer.iter().map(|date| ["--exclude-newer", date.as_str()]);
        let pairs = pairs.chain(index.prereleases.then_some(["--prerelease", "allow"]));
        let pairs =
            pairs.chain((order == IndexOrder::FirstThatFits).then_some(["--index-strategy", "unsafe-first-match"]));
        arguments.extend(pairs.flatten().map(Into::into));
        arguments.extend(index.arguments());
        arguments.push(self.requirements.0.clone().into());
        arguments
    }
}
