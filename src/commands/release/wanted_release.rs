//! Which release is asked for, and where it is to come from.

use crate::build_info::build_info;
use crate::cli::upgrade_args::From;
use crate::commands::context::Context;
use crate::config::{self, Config};
use crate::error::Error;
use crate::protocol::child::RELEASE_SOURCE;
use crate::sys::env_vars;
use crate::upgrade::manifest::Manifest;
use crate::upgrade::plan::Target;
use crate::upgrade::program::About;
use crate::upgrade::source::Source;
use crate::upgrade::{failed_release, freshness, history, signature, stage, version_order};
use jiff::Timestamp;
use semver::Version;

pub fn target(version: Option<&str>, config: Option<&Config>) -> Result<Target, Error> {
    let Some(text) = version else {
        return Ok(Target::Newest(config.map(|config| config.upgrade.channel).unwrap_or(config::Channel::Stable)));
    };
    Target::parse(text).ok_or_else(|| {
        Error::usage(format!("{text:?} is neither a channel nor a version"))
            .hint("leoflow upgrade stable")
            .hint("leoflow upgrade 0.3.0")
    })
}

pub fn source(from: &From, config: Option<&Config>) -> Result<Source, Error> {
    let configured = config.and_then(|config| config.upgrade.from.as_deref());
    let handed_on = env_vars::text(RELEASE_SOURCE);
    let text = from.from.as_deref().or(handed_on.as_deref()).or(configured).or(build_info().releases_url).ok_or_else(
        || {
            Error::failed("this build does not know where releases are")
                .hint("leoflow upgrade --from DIR_OR_URL")
                .hint("or set it once, in config.yaml:  upgrade: {from: URL}")
        },
    )?;
    Ok(Source::parse(text))
}

/// The program of a newer release that is asked for by its version and kept on this machine: no host is needed for it.
pub fn kept(context: &Context<'_>, target: &Target, from: &From, installed: &Version) -> Option<About> {
    let Target::Version(version) = target else { return None };
    let is_named = from.from.is_some() || env_vars::text(RELEASE_SOURCE).is_some();
    let program = stage::program_of(&context.home, version);
    if is_named || !version_order::compare(version, installed).is_gt() || !program.is_file() {
        return None;
    }
    // One that is damaged is fetched anew.
    stage::check(&program, version).ok()
}

pub fn version_of(about: &About) -> Result<Version, Error> {
    Version::parse(&about.version).map_err(|error| Error::bug(format!("{:?} is no version: {error}", about.version)))
}

/// Warns about a release that failed here or was rolled back.
pub fn was_left(context: &Context<'_>, to: &Version) -> Vec<String> {
    let changes = history::history(&context.home);
    let left = history::left_at(&changes, to)
        .map(|at| format!("you went back from {to} on {at}; what was wrong with it then may still be wrong"));
    let failed = failed_release::read(&context.home).filter(|failed| failed.version == *to);
    let failed = failed.map(|failed| format!("{to} failed here on {}: {}", failed.at, failed.reason));
    left.into_iter().chain(failed).collect()
}

/// Why the host may not say what is newest; what it says is remembered, unless this only looks.
pub fn doubts(context: &Context<'_>, manifest: &Manifest, source: &Source, look_only: bool) -> Vec<String> {
    let (home, place) = (&context.home, source.to_string());
    let seen = freshness::seen(home);
    let now = Timestamp::now();
    let doubts = freshness::doubts(manifest, &place, seen.as_ref(), now);
    let remember = || {
        freshness::remember(home, manifest, &place, now)?;
        // An old copy announces nothing; one that has only expired, or a wrong clock, does not keep the next key away.
        match freshness::is_old_copy(manifest, seen.as_ref(), now) {
            true => Ok(()),
            false => signature::remember(home, manifest, build_info().public_key),
        }
    };
    if !look_only && let Err(error) = remember() {
        context.printer.warning(format!("cannot write {}: {error}", home.upgrade().display()));
    }
    doubts
}
