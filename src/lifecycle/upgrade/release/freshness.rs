//! `upgrade/seen.json`: the newest manifest seen so far. A signature proves who wrote a manifest, not that it is the
//! newest: a stale or replayed copy carries a valid signature too.

use super::manifest::Manifest;
use jiff::{SignedDuration, Timestamp};
use leoflow_base::home::Home;
use leoflow_base::sys::fs::files;
use serde::{Deserialize, Serialize};
use std::io;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub issued_at: Timestamp,
    /// The release host or folder of the manifest.
    pub place: String,
}

/// Size limit of the file, in bytes; it has about a hundred.
const SIZE_LIMIT: u64 = 64 * 1024;
/// Tolerated difference between the clocks of publisher and machine.
const CLOCK_DIFFERENCE: SignedDuration = SignedDuration::from_hours(24);

/// Reads the record of the newest manifest; `None` if the file is missing or unreadable.
pub fn seen(home: &Home) -> Option<Seen> {
    files::read_json(&home.newest_manifest(), SIZE_LIMIT).ok()?
}

/// True for a manifest that has expired or is older than one seen before. An upgrade from such a manifest needs the
/// user's confirmation.
pub(crate) fn is_outdated(manifest: &Manifest, seen: Option<&Seen>, now: Timestamp) -> bool {
    manifest.expires_at.is_some_and(|expires| expires < now) || is_old_copy(manifest, seen, now)
}

/// Returns the reasons why a manifest may not be the newest, one line each. `place` is the release host or folder.
pub(crate) fn staleness_warnings(manifest: &Manifest, place: &str, seen: Option<&Seen>, now: Timestamp) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(expired) = manifest.expires_at.filter(|expires| *expires < now) {
        warnings.push(format!(
            "the manifest of {place} expired on {expired} and was not renewed: there may be newer releases on another \
             host, or this machine's clock is wrong"
        ));
    }
    if let Some(issued) = manifest.issued_at.filter(|issued| is_in_the_future(*issued, now)) {
        warnings.push(format!(
            "the manifest of {place} is dated {issued}, in the future: this machine's clock is wrong, or the publisher's was"
        ));
    }
    if let Some(seen) = seen.filter(|_| is_old_copy(manifest, seen, now)) {
        let issued = manifest.issued_at.map_or("without a date".to_owned(), |issued| format!("of {issued}"));
        warnings.push(format!(
            "the manifest of {place} is {issued}, but {} had a newer one on {}: it is an old copy, or newer releases are \
             held back",
            seen.place, seen.issued_at
        ));
    }
    warnings
}

/// True when a newer manifest was seen before.
pub(crate) fn is_old_copy(manifest: &Manifest, seen: Option<&Seen>, now: Timestamp) -> bool {
    let seen = seen.filter(|seen| !is_in_the_future(seen.issued_at, now));
    seen.is_some_and(|seen| manifest.issued_at.is_none_or(|issued| issued < seen.issued_at))
}

/// True for a date more than `CLOCK_DIFFERENCE` after `now`. If it were recorded, all correct manifests would count as
/// old.
fn is_in_the_future(issued: Timestamp, now: Timestamp) -> bool {
    issued.duration_since(now) > CLOCK_DIFFERENCE
}

/// Records the manifest if it is newer than the recorded one; a date in the future is not recorded.
pub fn remember(home: &Home, manifest: &Manifest, place: &str, now: Timestamp) -> io::Result<()> {
    let Some(issued_at) = manifest.issued_at.filter(|issued| !is_in_the_future(*issued, now)) else { return Ok(()) };
    // A recorded date in the future is kept, because this machine's clock may be wrong. `is_old_copy` ignores it until
    // then.
    if seen(home).is_some_and(|seen| seen.issued_at >= issued_at) {
        return Ok(());
    }
    files::create_private_dir(&home.upgrade())?;
    let text = serde_json::to_string_pretty(&Seen { issued_at, place: place.to_owned() })?;
    files::write_atomic(&home.newest_manifest(), text.as_bytes(), 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timestamp(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn manifest(issued: Option<&str>, expires: Option<&str>) -> Manifest {
        let mut manifest = Manifest::new(Vec::new());
        (manifest.issued_at, manifest.expires_at) = (issued.map(timestamp), expires.map(timestamp));
        manifest
    }

    #[test]
    fn warns_about_a_stale_or_replayed_manifest() {
        let now = timestamp("2026-11-21T00:00:00Z");
        let seen = Seen { issued_at: timestamp("2026-10-01T00:00:00Z"), place: "https://there/".into() };
        let warnings_of = |issued, expires| staleness_warnings(&manifest(issued, expires), "here", Some(&seen), now);
        assert!(warnings_of(Some("2026-10-01T00:00:00Z"), Some("2027-01-01T00:00:00Z")).is_empty());
        assert!(warnings_of(Some("2026-11-01T00:00:00Z"), None).is_empty());
        let frozen = warnings_of(Some("2026-10-01T00:00:00Z"), Some("2026-11-01T00:00:00Z"));
        assert!(frozen.len() == 1 && frozen[0].contains("expired on 2026-11-01T00:00:00Z"), "{frozen:?}");
        let older = warnings_of(Some("2026-09-01T00:00:00Z"), None);
        assert!(older.len() == 1 && older[0].contains("https://there/ had a newer one"), "{older:?}");
        assert!(warnings_of(None, None)[0].contains("without a date"));
        let is_outdated = |issued, expires| is_outdated(&manifest(issued, expires), Some(&seen), now);
        assert!(!is_outdated(Some("2026-10-01T00:00:00Z"), Some("2027-01-01T00:00:00Z")));
        assert!(is_outdated(Some("2026-10-01T00:00:00Z"), Some("2026-11-01T00:00:00Z")) && is_outdated(None, None));
    }

    #[test]
    fn warns_about_a_manifest_from_the_future() {
        let now = timestamp("2026-11-21T00:00:00Z");
        let future = manifest(Some("2027-11-21T00:00:00Z"), None);
        let warnings = staleness_warnings(&future, "here", None, now);
        assert!(warnings.len() == 1 && warnings[0].contains("in the future"), "{warnings:?}");
        assert!(staleness_warnings(&manifest(Some("2026-11-21T20:00:00Z"), None), "here", None, now).is_empty());
        // A future date recorded by an older release does not make today's manifest old.
        let seen = Seen { issued_at: timestamp("2027-11-21T00:00:00Z"), place: "there".into() };
        assert!(staleness_warnings(&manifest(Some("2026-11-20T00:00:00Z"), None), "here", Some(&seen), now).is_empty());
    }

    #[test]
    fn the_newest_manifest_is_recorded() {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&folder.path().join("home"))).unwrap();
        home.create().unwrap();
        assert_eq!(seen(&home), None);
        let now = timestamp("2026-11-21T00:00:00Z");
        for issued in ["2026-10-01T00:00:00Z", "2026-09-01T00:00:00Z"] {
            remember(&home, &manifest(Some(issued), None), "here", now).unwrap();
            assert_eq!(seen(&home).unwrap().issued_at, timestamp("2026-10-01T00:00:00Z"));
        }
        remember(&home, &manifest(Some("2028-01-01T00:00:00Z"), None), "here", now).unwrap();
        assert_eq!(seen(&home).unwrap().issued_at, timestamp("2026-10-01T00:00:00Z"), "a date in the future");
        // Setting the clock back keeps the newest.
        remember(&home, &manifest(Some("2028-01-01T00:00:00Z"), None), "here", timestamp("2028-01-01T00:00:00Z"))
            .unwrap();
        remember(&home, &manifest(Some("2026-11-01T00:00:00Z"), None), "here", now).unwrap();
        assert_eq!(seen(&home).unwrap().issued_at, timestamp("2028-01-01T00:00:00Z"));
        std::fs::write(home.newest_manifest(), "no").unwrap();
        assert_eq!(seen(&home), None);
    }
}
