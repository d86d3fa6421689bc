//! Which release is asked for, and where it is to come from.

use crate::build_info::build_info;
use crate::cli::upgrade_args::From;
use crate::commands::context::Context;
use crate::config::{self, Config};
use crate::error::Error;
use crate::upgrade::freshness;
use crate::upgrade::manifest::Manifest;
use crate::upgrade::plan::Target;
use crate::upgrade::source::Source;
use jiff::Timestamp;

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
    let text = from.from.as_deref().or(configured).or(build_info().releases_url).ok_or_else(|| {
        Error::failed("this build does not know where releases are")
            .hint("leoflow upgrade --from DIR_OR_URL")
            .hint("or set it once, in config.yaml:  upgrade: {from: URL}")
    })?;
    Ok(Source::parse(text))
}

/// Why the host may not say what is newest; what it says is remembered, unless this only looks.
pub fn doubts(context: &Context<'_>, manifest: &Manifest, source: &Source, look_only: bool) -> Vec<String> {
    let (home, place) = (&context.home, source.to_string());
    let seen = freshness::seen(home);
    let doubts = freshness::doubts(manifest, &place, seen.as_ref(), Timestamp::now());
    if !look_only && let Err(error) = freshness::remember(home, manifest, &place) {
        context.printer.warning(format!("cannot write {}: {error}", home.upgrade().display()));
    }
    doubts
}
