//! `upgrade/seen.json`: the newest manifest that was seen. A signature says who wrote a manifest, not that it is the
//! newest: a host that stands still, or goes back, serves an old one that is signed as well as any.

use super::manifest::Manifest;
use crate::home::Home;
use crate::sys::files;
use jiff::Timestamp;
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
    if let Some(seen) = seen.filter(|seen| manifest.issued_at.is_none_or(|issued| issued < seen.issued_at)) {
        let issued = manifest.issued_at.map_or("without a date".to_owned(), |issued| format!("of {issued}"));
        doubts.push(format!(
            "what {place} says is {issued}, and {} said more on {}: it is an old copy, or newer releases are held back",
            seen.place, seen.issued_at
        ));
    }
    doubts
}

/// Keeps the newer one.
pub fn remember(home: &Home, manifest: &Manifest, place: &str) -> io::Result<()> {
    let Some(issued_at) = manifest.issued_at else { return Ok(()) };
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
    fn the_newest_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let home = crate::home::resolve(Some(&folder.path().join("home"))).unwrap();
        home.create().unwrap();
        assert_eq!(seen(&home), None);
        for issued in ["2026-10-01T00:00:00Z", "2026-09-01T00:00:00Z"] {
            remember(&home, &manifest(Some(issued), None), "here").unwrap();
            assert_eq!(seen(&home).unwrap().issued_at, at("2026-10-01T00:00:00Z"));
        }
        std::fs::write(path(&home), "no").unwrap();
        assert_eq!(seen(&home), None);
    }
}
