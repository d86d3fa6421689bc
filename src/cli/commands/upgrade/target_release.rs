//! Resolves the requested release and its source.

use crate::context::Context;
use crate::error::Error;
use clap::Args;
use jiff::Timestamp;
use leoflow_base::build_info::build_info;
use leoflow_base::config::{self, Config};
use leoflow_base::protocol::child::RELEASE_SOURCE;
use leoflow_base::sys::env_vars;
use leoflow_lifecycle::upgrade::plan::Target;
use leoflow_lifecycle::upgrade::release::manifest::Manifest;
use leoflow_lifecycle::upgrade::release::program::About;
use leoflow_lifecycle::upgrade::release::source::Source;
use leoflow_lifecycle::upgrade::release::{freshness, signature, stage, version_order};
use leoflow_lifecycle::upgrade::rollback::{failed_release, history};
use semver::Version;

#[derive(Args, Debug, Clone, Default)]
pub struct From {
    /// Where to find releases: a folder, a URL, or a file in the folder [default: upgrade.from in config.yaml, or the
    /// source of the current release]
    #[arg(long, value_name = "DIR|FILE|URL")]
    pub from: Option<String>,
}

/// The requested release; by default the newest of the configured channel.
pub fn target(version: Option<&str>, config: Option<&Config>) -> Result<Target, Error> {
    let Some(text) = version else {
        return Ok(Target::Newest(config.map(|config| config.upgrade.channel).unwrap_or(config::Channel::Stable)));
    };
    Target::parse(text).ok_or_else(|| {
        Error::usage(format!("{text:?} is not a channel or a version"))
            .hint("leoflow upgrade stable")
            .hint("leoflow upgrade 0.3.0")
    })
}

/// The release host: from `--from`, the environment, the configuration or the build.
pub fn source(from: &From, config: Option<&Config>) -> Result<Source, Error> {
    let configured = config.and_then(|config| config.upgrade.from.as_deref());
    let inherited_source = env_vars::text(RELEASE_SOURCE);
    let text =
        from.from.as_deref().or(inherited_source.as_deref()).or(configured).or(build_info().releases_url).ok_or_else(
            || {
                Error::failed("this build does not know where to find releases")
                    .hint("leoflow upgrade --from DIR_OR_URL")
                    .hint("or set it permanently in config.yaml:  upgrade: {from: URL}")
            },
        )?;
    Ok(Source::parse(text))
}

/// Returns a newer release that is requested by version and kept on this machine, so that no release host is needed.
pub fn kept(context: &Context<'_>, target: &Target, from: &From, installed: &Version) -> Option<About> {
    let Target::Version(version) = target else { return None };
    let is_source_named = from.from.is_some() || env_vars::text(RELEASE_SOURCE).is_some();
    let program = stage::program_of(&context.home, version);
    if is_source_named || !version_order::compare(version, installed).is_gt() || !program.is_file() {
        return None;
    }
    // A damaged program is downloaded again.
    stage::check(&program, version).ok()
}

pub fn version_of(about: &About) -> Result<Version, Error> {
    Version::parse(&about.version).map_err(|error| Error::bug(format!("{:?} is not a version: {error}", about.version)))
}

/// Warnings about a release that failed here or was rolled back.
pub fn earlier_failures(context: &Context<'_>, to: &Version) -> Vec<String> {
    let changes = history::history(&context.home);
    let rolled_back = history::rolled_back_at(&changes, to)
        .map(|time| format!("{to} was rolled back on {time}; the reason may still apply"));
    let failed = failed_release::read(&context.home).filter(|failed| failed.version == *to);
    let failed = failed.map(|failed| format!("the upgrade to {to} failed on {}: {}", failed.at, failed.reason));
    rolled_back.into_iter().chain(failed).collect()
}

/// Returns reasons to doubt that the host's manifest is current. Records the manifest unless
/// `dry_run`.
pub fn doubts(context: &Context<'_>, manifest: &Manifest, source: &Source, dry_run: bool) -> Vec<String> {
    let (home, source_name) = (&context.home, source.to_string());
    let seen = freshness::seen(home);
    let now = Timestamp::now();
    let doubts = freshness::staleness_warnings(manifest, &source_name, seen.as_ref(), now);
    let remember = || {
        freshness::remember(home, manifest, &source_name, now)?;
        // An old copy must not announce a key; an expired manifest or a wrong clock must not prevent the next key.
        match freshness::is_old_copy(manifest, seen.as_ref(), now) {
            true => Ok(()),
            false => signature::remember(home, manifest, build_info().public_key),
        }
    };
    if !dry_run && let Err(error) = remember() {
        context.printer.warning(format!("cannot write {}: {error}", home.upgrade().display()));
    }
    doubts
}
