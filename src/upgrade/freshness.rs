//! `upgrade/seen.json`: the newest manifest that was seen. A signature says who wrote a manifest, not that it is the
//! newest: a host that stands still, or goes back, serves an old one that is signed as well as any.

use super::manifest::Manifest;
use crate::home::Home;
use crate::sys::files;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub issued_at: Timestamp,
    /// Where it was.
    pub place: String,
}

/// It is a hundred bytes.
const SIZE_LIMIT: u64 = 64 * 1024;
/// How far clocks of publishers and machines may differ.
const CLOCK_DIFFERENCE: SignedDuration = SignedDuration::from_hours(24);

fn path(home: &Home) -> PathBuf {
    home.upgrade().join("seen.json")
}

/// What cannot be read has been lost.
pub fn seen(home: &Home) -> Option<Seen> {
    let text = files::read_text(&path(home), SIZE_LIMIT).ok().flatten()?;
    serde_json::from_str(&text).ok()
}

/// Why what a host says may not be the newest there is, for people, a line each.
pub fn doubts(manifest: &Manifest, place: &str, seen: Option<&Seen>, now: Timestamp) -> Vec<String> {
    let mut doubts = Vec::new();
    if let Some(expired) = manifest.expires_at.filter(|expires| *expires < now) {
        doubts.push(format!(
            "what {place} says was good until {expired}: nobody has renewed it, and there may be newer releases \
             elsewhere; or this machine's clock is wrong"
        ));
    }
    if let Some(issued) = manifest.issued_at.filter(|issued| is_in_the_future(*issued, now)) {
        doubts.push(format!(
            "what {place} says is dated {issued}, in the future: this machine's clock is wrong, or the publisher's was"
        ));
    }
    if let Some(seen) = seen.filter(|_| is_old_copy(manifest, seen, now)) {
        let issued = manifest.issued_at.map_or("without a date".to_owned(), |issued| format!("of {issued}"));
        doubts.push(format!(
            "what {place} says is {issued}, and {} said more on {}: it is an old copy, or newer releases are held back",
            seen.place, seen.issued_at
        ));
    }
    doubts
}

/// Whether a newer one was seen before.
pub fn is_old_copy(manifest: &Manifest, seen: Option<&Seen>, now: Timestamp) -> bool {
    let seen = seen.filter(|seen| !is_in_the_future(seen.issued_at, now));
    seen.is_some_and(|seen| manifest.issued_at.is_none_or(|issued| issued < seen.issued_at))
}

/// Dated so that every later manifest would count as an old copy.
fn is_in_the_future(issued: Timestamp, now: Timestamp) -> bool {
    issued.duration_since(now) > CLOCK_DIFFERENCE
}

/// Keeps the newer one; a date in the future is not remembered.
pub fn remember(home: &Home, manifest: &Manifest, place: &str, now: Timestamp) -> io::Result<()> {
    let Some(issued_at) = manifest.issued_at.filter(|issued| !is_in_the_future(*issued, now)) else { return Ok(()) };
    // Also one from the future, which counts for nothing until then: this machine's clock may be the one that is wrong.
    if seen(home).is_some_and(|seen| seen.issued_at >= issued_at) {
        return Ok(());
    }
    files::create_private_dir(&home.upgrade())?;
    let text = serde_json::to_string_pretty(&Seen { issued_at, place: place.to_owned() })?;
    files::write_atomic(&path(home), text.as_bytes(), 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn manifest(issued: Option<&str>, expires: Option<&str>) -> Manifest {
        let mut manifest = Manifest::new(Vec::new());
        (manifest.issued_at, manifest.expires_at) = (issued.map(at), expires.map(at));
        manifest
    }

    #[test]
    fn a_host_that_stands_still_or_goes_back_is_doubted() {
        let now = at("2026-11-21T00:00:00Z");
        let seen = Seen { issued_at: at("2026-10-01T00:00:00Z"), place: "https://there/".into() };
        let doubts = |issued, expires| doubts(&manifest(issued, expires), "here", Some(&seen), now);
        assert!(doubts(Some("2026-10-01T00:00:00Z"), Some("2027-01-01T00:00:00Z")).is_empty());
        assert!(doubts(Some("2026-11-01T00:00:00Z"), None).is_empty());
        let frozen = doubts(Some("2026-10-01T00:00:00Z"), Some("2026-11-01T00:00:00Z"));
        assert!(frozen.len() == 1 && frozen[0].contains("until 2026-11-01T00:00:00Z"), "{frozen:?}");
        let back = doubts(Some("2026-09-01T00:00:00Z"), None);
        assert!(back.len() == 1 && back[0].contains("https://there/ said more"), "{back:?}");
        assert!(doubts(None, None)[0].contains("without a date"));
    }

    #[test]
    fn a_manifest_from_the_future_is_doubted_and_outlived() {
        let now = at("2026-11-21T00:00:00Z");
        let future = manifest(Some("2027-11-21T00:00:00Z"), None);
        let found = doubts(&future, "here", None, now);
        assert!(found.len() == 1 && found[0].contains("in the future"), "{found:?}");
        assert!(doubts(&manifest(Some("2026-11-21T20:00:00Z"), None), "here", None, now).is_empty());
        // One that an older release remembered says nothing against today's.
        let seen = Seen { issued_at: at("2027-11-21T00:00:00Z"), place: "there".into() };
        assert!(doubts(&manifest(Some("2026-11-20T00:00:00Z"), None), "here", Some(&seen), now).is_empty());
    }

    #[test]
    fn the_newest_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let home = crate::home::resolve(Some(&folder.path().join("home"))).unwrap();
        home.create().unwrap();
        assert_eq!(seen(&home), None);
        let now = at("2026-11-21T00:00:00Z");
        for issued in ["2026-10-01T00:00:00Z", "2026-09-01T00:00:00Z"] {
            remember(&home, &manifest(Some(issued), None), "here", now).unwrap();
            assert_eq!(seen(&home).unwrap().issued_at, at("2026-10-01T00:00:00Z"));
        }
        remember(&home, &manifest(Some("2028-01-01T00:00:00Z"), None), "here", now).unwrap();
        assert_eq!(seen(&home).unwrap().issued_at, at("2026-10-01T00:00:00Z"), "a date in the future");
        // A clock that is set back does not forget the newest.
        remember(&home, &manifest(Some("2028-01-01T00:00:00Z"), None), "here", at("2028-01-01T00:00:00Z")).unwrap();
        remember(&home, &manifest(Some("2026-11-01T00:00:00Z"), None), "here", now).unwrap();
        assert_eq!(seen(&home).unwrap().issued_at, at("2028-01-01T00:00:00Z"));
        std::fs::write(path(&home), "no").unwrap();
        assert_eq!(seen(&home), None);
    }
}
