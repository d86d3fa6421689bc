//! Finds the release that the user requested, on this machine or on a release host, and plans the upgrade to it. The
//! command and its worker both use this module.

use super::plan::{Target, UpgradeFacts, UpgradePlan, UpgradeRefusal, plan, plan_retained};
use super::release::manifest::{Manifest, Migration};
use super::release::program::{self, About};
use super::release::source::{FetchError, Source};
use super::release::{freshness, signature, stage, version_order};
use super::rollback::history;
use super::run::ReleaseSource;
use super::{UpgradeError, facts};
use crate::contract::Contract;
use crate::setup::{self, InstallError, PackageOwner};
use jiff::Timestamp;
use leoflow_base::build_info::build_info;
use leoflow_base::config::{self, Config};
use leoflow_base::home::lock::LockError;
use leoflow_base::home::progress::Reporter;
use leoflow_base::home::{Home, failed_release};
use leoflow_base::protocol::child::{HANDED_OVER, RELEASE_SOURCE};
use leoflow_base::sys::env_vars;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::process::replace;
use semver::Version;
use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::process::Command;

/// Size limit of a contract, in bytes.
const CONTRACT_LIMIT: u64 = 16 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error("{0:?} is not a channel or a version")]
    Unparsable(String),
    #[error("this build does not know where to find releases")]
    NoHost,
    #[error("this is a development build: it has no key to verify releases, so it cannot be upgraded to one")]
    DevelopmentBuild,
    #[error("Leoflow is already installed in this home")]
    AlreadyInstalled,
    /// A package manager upgrades the program; nothing newer is here.
    #[error("leoflow {own} belongs to {}, which upgrades it; nothing was changed", .owner.name())]
    Owned { own: Version, owner: PackageOwner },
    /// `program` is the one of the installed release.
    #[error("this is leoflow {own}, but {installed} is running here; nothing was changed")]
    OlderProgram { own: Version, installed: Version, program: PathBuf },
    #[error("the manifest of the release host has expired or is an old copy; nothing was changed")]
    Outdated,
    #[error("leoflow {earlier} has handed the upgrade to {to} over to {own}, which cannot plan it either")]
    HandedOver { earlier: String, to: Version, own: String },
    #[error("cannot run {program}: {source}")]
    Run { program: PathBuf, source: io::Error },
    #[error(transparent)]
    Refused(#[from] UpgradeRefusal),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
}

/// The user's request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request<'a> {
    /// A channel or a version; by default the newest of the configured channel.
    pub version: Option<&'a str>,
    /// A folder or URL with releases.
    pub from: Option<&'a str>,
    /// True with `--no-rollback`: a failed release stays for inspection.
    pub no_rollback: bool,
}

/// The requested release and its origin.
pub struct TargetRelease {
    target: Target,
    origin: Origin,
}

enum Origin {
    /// A newer release whose program is on this machine and lists its migrations: one that is still in `versions/`, or
    /// with `is_own` that of this program, which a package manager brought.
    Local {
        version: Version,
        migrations: Vec<Migration>,
        is_own: bool,
    },
    Host {
        source: Source,
        manifest: Box<Manifest>,
    },
}

/// Whether the upgrade is applied; then the host's manifest is recorded as seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Apply,
    Show,
}

impl TargetRelease {
    /// Finds the release. Reads the manifest of the release host unless the release is still in `versions/`.
    pub async fn find(
        home: &Home,
        config: Option<&Config>,
        own_version: &str,
        request: Request<'_>,
    ) -> Result<Self, TargetError> {
        let target = target(request.version, config)?;
        if let Some(about) = find_retained(home, &target, request.from, &facts::installed_version(home, own_version)?) {
            let version = version_of(&about)?;
            let origin = Origin::Local { version, migrations: about.migrations, is_own: false };
            return Ok(Self { target, origin });
        }
        if build_info().public_key.is_none() {
            return Err(TargetError::DevelopmentBuild);
        }
        let source = source(request.from, config)?;
        let manifest = Box::new(source.manifest(&signature::trusted(home, build_info().public_key)).await?);
        Ok(Self { target, origin: Origin::Host { source, manifest } })
    }

    /// The release of this program, for a home with an older one.
    pub fn own() -> Result<Self, TargetError> {
        let program = env_vars::current_exe()
            .map_err(|source| UpgradeError::Write { path: env_vars::running_program().to_owned(), source })?;
        let about = program::about(&program).map_err(UpgradeError::from)?;
        let version = version_of(&about)?;
        let target = Target::Version(version.clone());
        Ok(Self { target, origin: Origin::Local { version, migrations: about.migrations, is_own: true } })
    }

    /// Puts the program where the upgrade expects it, if this is the release of this program.
    pub fn add_own_program(&self, home: &Home) -> Result<(), InstallError> {
        match &self.origin {
            Origin::Local { version, is_own: true, .. } => setup::add_version(home, &version.to_string()),
            Origin::Local { .. } | Origin::Host { .. } => Ok(()),
        }
    }

    /// Plans the upgrade to the release.
    pub fn plan(&self, facts: &UpgradeFacts) -> Result<UpgradePlan, UpgradeRefusal> {
        match &self.origin {
            Origin::Local { version, migrations, .. } => plan_retained(facts, migrations, version),
            Origin::Host { manifest, .. } => plan(facts, manifest, &self.target),
        }
    }

    /// The release host; `None` for a release that is still in `versions/`.
    pub fn host(&self) -> Option<&Source> {
        match &self.origin {
            Origin::Local { .. } => None,
            Origin::Host { source, .. } => Some(source),
        }
    }

    /// The contract of the release `version`; `None` if it has none or cannot be read.
    pub async fn contract(&self, version: &Version) -> Option<Contract> {
        let Origin::Host { source, manifest } = &self.origin else { return None };
        let file = manifest.release(version)?.contract.as_ref().filter(|file| file.size <= CONTRACT_LIMIT)?;
        let text = source.read_verified(&file.url, &file.sha256, file.size).await.ok()?;
        Contract::parse(&text).ok()
    }

    /// Downloads the release's own program and execs it with this process's arguments: it plans and performs the
    /// upgrade. Returns only on failure.
    pub async fn hand_over(
        &self,
        home: &Home,
        own_version: &str,
        plan: &UpgradePlan,
        reporter: &dyn Reporter,
    ) -> Result<Infallible, TargetError> {
        if let Some(earlier) = env_vars::text(HANDED_OVER) {
            return Err(TargetError::HandedOver { earlier, to: plan.to.clone(), own: own_version.to_owned() });
        }
        let text = format!("leoflow {} plans this upgrade itself; downloading it", plan.to);
        reporter.note(text);
        let source = self.host().ok_or(TargetError::NoHost)?;
        let downloads = home.upgrade().join("download");
        let write_error = |source| UpgradeError::Write { path: downloads.clone(), source };
        files::create_private_dir(&downloads).map_err(write_error)?;
        // Keep the archive: the upgrade itself needs it too.
        let archive = source.fetch(&plan.program, &downloads, reporter).await?;
        let program = stage::upgrader(home, &archive, &plan.to).map_err(UpgradeError::from)?;
        let mut command = Command::new(&program);
        command.args(env_vars::arguments().into_iter().skip(1)).env(HANDED_OVER, own_version);
        // The source may contain a password, so it is not an argument.
        command.env(RELEASE_SOURCE, source.with_secrets());
        let source = replace::replace_self_by(command);
        Err(TargetError::Run { program, source })
    }

    pub fn source(&self) -> ReleaseSource<'_> {
        self.host().map_or(ReleaseSource::RetainedNewer, ReleaseSource::Fetched)
    }

    /// Refuses a release host whose manifest has expired or is older than one that this home has seen, for an upgrade
    /// whose plan and warnings no user reads.
    pub fn refuse_outdated(&self, home: &Home) -> Result<(), TargetError> {
        match &self.origin {
            Origin::Host { manifest, .. }
                if freshness::is_outdated(manifest, freshness::seen(home).as_ref(), Timestamp::now()) =>
            {
                Err(TargetError::Outdated)
            }
            _ => Ok(()),
        }
    }

    /// Returns reasons to doubt that the host's manifest is current, see [`doubts`].
    pub(crate) fn doubts(&self, home: &Home, purpose: Purpose, reporter: &dyn Reporter) -> Vec<String> {
        match &self.origin {
            Origin::Local { .. } => Vec::new(),
            Origin::Host { source, manifest } => doubts(home, manifest, source, purpose, reporter),
        }
    }
}

/// The requested release; by default the newest of the configured channel.
pub fn target(version: Option<&str>, config: Option<&Config>) -> Result<Target, TargetError> {
    let Some(text) = version else {
        return Ok(Target::Newest(config.map(|config| config.upgrade.channel).unwrap_or(config::Channel::Stable)));
    };
    Target::parse(text).ok_or_else(|| TargetError::Unparsable(text.to_owned()))
}

/// The release host: from `--from`, the environment, the configuration or the build.
pub fn source(from: Option<&str>, config: Option<&Config>) -> Result<Source, TargetError> {
    let inherited_source = env_vars::text(RELEASE_SOURCE);
    let text = from.or(inherited_source.as_deref()).or_else(|| config::release_host(config));
    text.map(Source::parse).ok_or(TargetError::NoHost)
}

/// Finds a newer release that is requested by version and still in `versions/`, so that no release host is needed.
fn find_retained(home: &Home, target: &Target, from: Option<&str>, installed: &Version) -> Option<About> {
    let Target::Version(version) = target else { return None };
    let is_source_named = from.is_some() || env_vars::text(RELEASE_SOURCE).is_some();
    let program = stage::program_of(home, version);
    if is_source_named || !version_order::compare(version, installed).is_gt() || !program.is_file() {
        return None;
    }
    // A damaged program counts as missing, so that it is downloaded again.
    stage::check(&program, version).ok()
}

fn version_of(about: &About) -> Result<Version, UpgradeError> {
    let text = about.version.clone();
    Version::parse(&text).map_err(|source| UpgradeError::NotAVersion { text, source })
}

/// Warnings about a release that failed in this home or was rolled back.
pub fn earlier_failures(home: &Home, to: &Version) -> Vec<String> {
    let changes = history::history(home);
    let rolled_back = history::rolled_back_at(&changes, to)
        .map(|time| format!("{to} was rolled back on {time}; the reason may still apply"));
    let failed = failed_release::read(home).filter(|failed| failed.version == *to);
    let failed = failed.map(|failed| format!("the upgrade to {to} failed on {}: {}", failed.at, failed.reason));
    rolled_back.into_iter().chain(failed).collect()
}

/// Returns reasons to doubt that the host's manifest is current. With [`Purpose::Apply`], records the manifest's date and
/// the next key that it announces; a failed write is a warning.
pub(crate) fn doubts(
    home: &Home,
    manifest: &Manifest,
    source: &Source,
    purpose: Purpose,
    reporter: &dyn Reporter,
) -> Vec<String> {
    let source_name = source.to_string();
    let seen = freshness::seen(home);
    let now = Timestamp::now();
    let doubts = freshness::staleness_warnings(manifest, &source_name, seen.as_ref(), now);
    let record = || {
        freshness::remember(home, manifest, &source_name, now)?;
        // Do not trust a key from an old copy. An expired manifest or a wrong clock does not prevent the next key.
        match freshness::is_old_copy(manifest, seen.as_ref(), now) {
            true => Ok(()),
            false => signature::remember(home, manifest, build_info().public_key),
        }
    };
    if purpose == Purpose::Apply
        && let Err(error) = record()
    {
        reporter.warn(format!("cannot write {}: {error}", home.upgrade().display()));
    }
    doubts
}
