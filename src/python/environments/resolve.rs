//! Resolves a declaration to a lock: first for this machine, then for all platforms.

use super::build::{Staging, unwritable};
use super::declaration::declared::Declared;
use super::fetched::{self, Included};
use super::install_packages::text_lines;
use super::lock::Lock;
use super::uv::{Call, Failure, Reason, Uv};
use super::{airflow_versions, pins};
use crate::Python;
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

/// Resolves a declaration to the newest matching versions. The error is a message for the user.
pub fn lock(
    uv: &Uv,
    home: &Home,
    declared: &Declared,
    python: &Python,
    reporter: &dyn Reporter,
) -> Result<Lock, String> {
    reporter.report(Progress::Started(format!("Resolving {}", declared.requirements.join(", "))));
    let included = fetched::included(declared)?;
    let staging = Staging::new(home).map_err(|error| unwritable(home, &error))?;
    let resolution =
        Resolution::new(uv, declared, python, &staging, &included).map_err(|error| unwritable(home, &error))?;
    let text = resolution.text(reporter)?;
    checkpoint("environment.locked");
    let text = pins::restrict(&text, included.pin_lines())?;
    if declared.index.require_hashes {
        pins::check_all_pinned(&text, included.pin_lines())?;
    }
    Lock { declared: declared.clone(), python: declared.python_of_lock(python), text }.allowed()
}

/// Warning for `IndexOrder::FirstThatFits`: a later index may provide a package that an earlier one has, too.
fn index_order_warning(declared: &Declared) -> String {
    format!(
        "{}: no versions fit if each package comes from the first index that has it, so the next indexes are asked, \
         where anybody may use the name of a private package; set UV_INDEX_STRATEGY=first-index in the environment \
         that starts Leoflow to refuse this",
        declared.requirements.join(", ")
    )
}

struct Resolution<'a> {
    uv: &'a Uv,
    declared: &'a Declared,
    python: &'a Python,
    requirements_file: PathBuf,
    constraints_file: PathBuf,
    /// Output file.
    locked: PathBuf,
    /// The texts of the requirements and the constraints file.
    texts: Vec<String>,
}

impl<'a> Resolution<'a> {
    fn new(
        uv: &'a Uv,
        declared: &'a Declared,
        python: &'a Python,
        staging: &Staging,
        included: &Included,
    ) -> io::Result<Self> {
        let file = |name: &str| staging.0.join(name);
        let (requirements_file, constraints_file) = (file("requirements.in"), file("constraints.txt"));
        let requirements = text_lines(&declared.index.lines()) + &text_lines(&included.requirements);
        let constraints = text_lines(&included.constraints) + &text_lines(&airflow_versions::bounds());
        files::write_atomic(&requirements_file, requirements.as_bytes(), 0o600)?;
        files::write_atomic(&constraints_file, constraints.as_bytes(), 0o600)?;
        let texts = vec![requirements, constraints];
        Ok(Self { uv, declared, python, requirements_file, constraints_file, locked: file("lock.txt"), texts })
    }

    /// Returns the text of the lock. Resolves for this machine first: a lock for all platforms may contain a version
    /// without files for this machine. Both calls write the same output file, from which uv keeps versions that match;
    /// the lock for all platforms is returned only if it contains every version of the first.
    fn text(&self, reporter: &dyn Reporter) -> Result<String, String> {
        let mut order = IndexOrder::OnlyFirst;
        let mut here = self.resolved(Platforms::Here, order, reporter);
        if self.may_try_other_indexes() && here.as_ref().is_err_and(|failure| failure.reason == Reason::NoSolution) {
            order = IndexOrder::FirstThatFits;
            reporter.report(Progress::Warning(index_order_warning(self.declared)));
            // If the second attempt fails too, the first failure is reported: it names the index that uv used.
            here = self.resolved(Platforms::Here, order, reporter).or(here);
        }
        let here = here.map_err(|failure| airflow_versions::add_advice(failure.message))?;
        let Ok(everywhere) = self.resolved(Platforms::All, order, reporter) else { return Ok(here) };
        let lock = |text: &str| Lock { declared: Declared::default(), python: String::new(), text: text.to_owned() };
        let (lock_here, lock_everywhere) = (lock(&here), lock(&everywhere));
        let is_the_same_here = lock_here.labels().is_subset(&lock_everywhere.labels());
        Ok(if is_the_same_here { everywhere } else { here })
    }

    /// True if several indexes are configured and the user has not set their order.
    fn may_try_other_indexes(&self) -> bool {
        let has_several = !self.declared.index.extra.is_empty()
            || ["UV_INDEX", "UV_EXTRA_INDEX_URL"].iter().any(|name| env_vars::is_set(name));
        has_several && !env_vars::is_set("UV_INDEX_STRATEGY")
    }

    fn resolved(&self, platforms: Platforms, order: IndexOrder, reporter: &dyn Reporter) -> Result<String, Failure> {
        let failure = |message: String| Failure { reason: Reason::Other, message };
        let variables = &self.declared.variables;
        let index_variables = self.declared.index.environment(variables).map_err(failure)?;
        let named_variables = variables.required(&self.texts).map_err(failure)?;
        let environment = index_variables.into_iter().chain(named_variables).collect();
        let arguments = self.arguments(platforms, order);
        self.uv.run(&Call { arguments, limit: RESOLVE_LIMIT, environment, variables }, reporter)?;
        std::fs::read_to_string(&self.locked)
            .map_err(|error| failure(format!("failed to read {}: {error}", self.locked.display())))
    }

    fn arguments(&self, platforms: Platforms, order: IndexOrder) -> Vec<OsString> {
        let fixed = ["pip", "compile", "--generate-hashes", "--no-header", "--no-annotate"];
        let mut arguments: Vec<OsString> = fixed.map(Into::into).into();
        if platforms == Platforms::All {
            let version = self.declared.python_of_lock(self.python);
            arguments.extend(["--universal".into(), "--python-version".into(), version.into()]);
        }
        let files = [
            ("--constraints", &self.constraints_file),
            ("--python", &self.python.path),
            ("--output-file", &self.locked),
        ];
        arguments.extend(files.into_iter().flat_map(|(name, path)| [name.into(), path.into()]));
        let index = &self.declared.index;
        let pairs = index.exclude_newer.iter().map(|date| ["--exclude-newer", date.as_str()]);
        let pairs = pairs.chain(index.prereleases.then_some(["--prerelease", "allow"]));
        let pairs =
            pairs.chain((order == IndexOrder::FirstThatFits).then_some(["--index-strategy", "unsafe-first-match"]));
        arguments.extend(pairs.flatten().map(Into::into));
        arguments.extend(index.arguments());
        arguments.push(self.requirements_file.clone().into());
        arguments
    }
}
