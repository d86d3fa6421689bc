//! Pins: hashes of files, and commits of git addresses. uv writes the hashes of all files of a version into a lock,
//! even if the requirements pin one of them, so this module restricts the lock to the pinned ones. uv then refuses any
//! other file when it installs the lock.

use super::declaration::error::LineError;
use pep440_rs::VersionSpecifiers;
use regex::Regex;
use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::LazyLock;

/// The hash algorithms that uv checks, with their number of hexadecimal digits.
const ALGORITHMS: [(&str, usize); 4] = [("sha256", 64), ("sha384", 96), ("sha512", 128), ("blake2b", 128)];
/// Hexadecimal digits of a full commit id, and of the shortest abbreviation that counts as a commit id.
const COMMIT: usize = 40;
const SHORTEST_COMMIT: usize = 7;

/// Why a lock does not fit the pins of its requirements.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    #[error(transparent)]
    Line(#[from] LineError),
    #[error("{name}: commit {commit} is pinned, but its address resolves to {resolved}")]
    Commit { name: String, commit: String, resolved: String },
    #[error("{0}: its files have no hashes, so it cannot be locked")]
    Unhashed(String),
    #[error("--require-hashes: no hash is given for {0}; add --hash=sha256:… to each of them")]
    Unpinned(String),
}

/// The pins of one requirement; it may have none.
#[derive(Debug, PartialEq, Eq)]
struct Pin {
    name: String,
    version: Option<String>,
    /// As `sha256:…`, lower-case.
    hashes: Vec<String>,
    commit: Option<String>,
}

/// Checks the pins of one requirement.
pub fn check(requirement: &str) -> Result<(), LineError> {
    pin(requirement).map(drop)
}

/// The versions that a requirement accepts; `None` if it has an address, or accepts all.
pub fn specifiers_of(requirement: &str) -> Option<VersionSpecifiers> {
    let text = requirement.split(';').next()?.split(" --hash").next()?;
    if text.contains(['@', ':']) {
        return None;
    }
    let text = &text[text.find(['=', '<', '>', '!', '~'])?..];
    VersionSpecifiers::from_str(text.trim_matches([' ', ')', ','])).ok()
}

/// A requirement without its versions and hashes: `pandas[excel] ; sys_platform == 'linux'` for
/// `pandas[excel]==1.5.3 ; sys_platform == 'linux'`.
pub fn without_versions(requirement: &str) -> String {
    let (text, marker) = requirement.split_once(';').map_or((requirement, None), |(text, marker)| (text, Some(marker)));
    let end = text.find(['=', '<', '>', '!', '~', '(', '@']).unwrap_or(text.len());
    let package = text[..end].split(" --hash").next().unwrap_or_default().trim();
    let marker = marker.map(|marker| marker.split(" --hash").next().unwrap_or_default().trim());
    marker.map_or(package.to_owned(), |marker| format!("{package} ; {marker}"))
}

fn all_pins<'a>(requirements: impl IntoIterator<Item = &'a String>) -> Result<Vec<Pin>, LineError> {
    requirements.into_iter().map(|line| pin(line)).collect()
}

/// Restricts a lock to the files that requirements and constraints pin; returns the same text if nothing changes. If
/// none of a package's files is pinned, the lock gets the pinned hashes, which uv does not find.
pub fn restrict<'a>(lock: &str, requirements: impl IntoIterator<Item = &'a String>) -> Result<String, PinError> {
    let pins = all_pins(requirements)?;
    let (entries, mut text, mut is_same) = (entries(lock), String::new(), true);
    for entry in entries {
        let restricted = entry.restricted(&pins)?;
        is_same &= restricted == entry;
        text.push_str(&restricted.text());
    }
    Ok(if is_same { lock.to_owned() } else { text })
}

/// Checks that the requirements pin every package of a lock, by the hash of a file or by the commit of a repository.
pub fn check_all_pinned<'a>(lock: &str, requirements: impl IntoIterator<Item = &'a String>) -> Result<(), PinError> {
    let pins = all_pins(requirements)?;
    let is_pinned = |entry: &Entry| entry.pins(&pins).any(|pin| !pin.hashes.is_empty() || pin.commit.is_some());
    let entries = entries(lock);
    let unpinned: Vec<&str> = entries.iter().filter(|entry| !is_pinned(entry)).map(Entry::label).collect();
    if unpinned.is_empty() { Ok(()) } else { Err(PinError::Unpinned(unpinned.join(", "))) }
}

/// True if a lock has packages without hashes, and all of these are git addresses with full commit ids.
pub fn pins_by_commit(lock: &str) -> bool {
    let mut unhashed = entries(lock).into_iter().filter(|entry| entry.hashes.is_empty()).peekable();
    unhashed.peek().is_some() && unhashed.all(|entry| entry.commit().is_some())
}

/// Parses the pins of a requirement.
fn pin(requirement: &str) -> Result<Pin, LineError> {
    static HASH: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r#"\s--hash[=\s]*["']?([^\s"']*)["']?"#).expect("a valid expression"));
    static IN_ADDRESS: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new("[#&](md5|sha1|sha224|sha256|sha384|sha512|blake2b)=([^&]*)").expect("a valid expression")
    });
    let specifier = HASH.replace_all(requirement, "");
    let name = name_of(&specifier);
    // A semicolon starts an environment marker; in an address it does so only after a blank.
    let marker = if specifier.contains("://") { " ;" } else { ";" };
    let specifier = specifier.split(marker).next().unwrap_or_default().trim();
    let address = specifier.split_once('@').map(|(_, address)| address.trim()).filter(|text| text.contains("://"));
    let in_address =
        IN_ADDRESS.captures_iter(address.unwrap_or_default()).map(|hash| format!("{}:{}", &hash[1], &hash[2]));
    let hashes = HASH.captures_iter(requirement).map(|hash| hash[1].to_owned()).chain(in_address);
    let hashes: Vec<String> = hashes.map(|hash| hash.to_lowercase()).collect();
    hashes.iter().try_for_each(|hash| check_hash(hash)).map_err(LineError::about(&name))?;
    let git_address = address.filter(|address| address.starts_with("git+"));
    if git_address.is_some() && !hashes.is_empty() {
        return Err(LineError::about(&name)(LineError::GitHash(name.clone())));
    }
    let commit = git_address.and_then(reference).filter(|reference| is_commit(reference)).map(str::to_lowercase);
    let version = specifier.split_once("==").map(|(_, version)| version.trim_matches(['=', ')', ' ']).to_owned());
    let version = version.filter(|version| address.is_none() && !version.contains(['*', ',']));
    Ok(Pin { name, version, hashes, commit })
}

/// True for a hash such as `sha256:…` whose algorithm is strong enough to pin a file.
pub fn is_strong(hash: &str) -> bool {
    digits_of(hash).is_some()
}

/// The number of digits of a hash; `None` if its algorithm does not pin a file.
fn digits_of(hash: &str) -> Option<usize> {
    let (algorithm, _) = hash.split_once(':')?;
    ALGORITHMS.iter().find(|(name, _)| algorithm.eq_ignore_ascii_case(name)).map(|(_, digits)| *digits)
}

fn check_hash(hash: &str) -> Result<(), LineError> {
    let (algorithm, value) = hash.split_once(':').unwrap_or((hash, ""));
    let algorithm = algorithm.to_owned();
    let Some(digits) = digits_of(hash) else {
        return Err(LineError::WeakHash { algorithm, supported: ALGORITHMS.map(|(name, _)| name).join(", ") });
    };
    if value.len() != digits || !value.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(LineError::HashDigits { hash: hash.to_owned(), algorithm, digits });
    }
    Ok(())
}

/// The normalized package name of a requirement:
/// <https://packaging.python.org/en/latest/specifications/name-normalization/>.
pub fn name_of(requirement: &str) -> String {
    let is_in_name = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    let name: String = requirement.trim().chars().take_while(|c| is_in_name(*c)).collect();
    let parts = name.split(['-', '_', '.']).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("-").to_lowercase()
}

/// The reference after the `@` of a git address: a branch, a tag or a commit.
fn reference(address: &str) -> Option<&str> {
    let path = address.split('#').next()?.split_once("://")?.1.split_once('/')?.1;
    path.rsplit_once('@').map(|(_, reference)| reference)
}

/// True for a commit id, full or abbreviated. An abbreviated one must have letters and digits: a branch may be called
/// `20260131` or `decade`.
fn is_commit(reference: &str) -> bool {
    let has_both = reference.contains(|c: char| c.is_ascii_digit()) && reference.contains(char::is_alphabetic);
    let is_long_enough =
        reference.len() == COMMIT || (has_both && (SHORTEST_COMMIT..COMMIT).contains(&reference.len()));
    is_long_enough && reference.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// One package of a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// `name==1.0 ; marker` or `name @ address ; marker`.
    specifier: String,
    hashes: Vec<String>,
}

/// The packages of a lock with their versions or addresses, without markers.
pub fn labels(lock: &str) -> BTreeSet<String> {
    entries(lock).iter().map(|entry| entry.label().to_owned()).collect()
}

fn entries(lock: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in lock.lines().map(|line| line.trim_end_matches('\\').trim_end()) {
        match (line.trim_start().strip_prefix("--hash="), entries.last_mut()) {
            (Some(hash), Some(entry)) => entry.hashes.push(hash.to_owned()),
            _ if line.is_empty() || line.starts_with([' ', '#', '-']) => {}
            _ => entries.push(Entry { specifier: line.to_owned(), hashes: Vec::new() }),
        }
    }
    entries
}

impl Entry {
    fn text(&self) -> String {
        let hashes: String = self.hashes.iter().map(|hash| format!(" \\\n    --hash={hash}")).collect();
        format!("{}{hashes}\n", self.specifier)
    }

    /// The name with the version or address, for messages.
    fn label(&self) -> &str {
        self.specifier.split(" ;").next().unwrap_or_default().trim()
    }

    fn version(&self) -> Option<&str> {
        self.label().split_once("==").map(|(_, version)| version)
    }

    fn commit(&self) -> Option<&str> {
        let (_, address) = self.label().split_once(" @ git+")?;
        reference(address).filter(|name| name.len() == COMMIT)
    }

    /// The pins for this package. If they pin several versions, for different Pythons, only those of its version.
    fn pins<'a>(&'a self, pins: &'a [Pin]) -> impl Iterator<Item = &'a Pin> {
        let name = name_of(&self.specifier);
        let pins: Vec<&Pin> = pins.iter().filter(|pin| pin.name == name).collect();
        let is_of_version = |pin: &Pin| pin.version.is_some() && pin.version.as_deref() == self.version();
        let has_version = pins.iter().any(|pin| is_of_version(pin));
        pins.into_iter().filter(move |pin| !has_version || is_of_version(pin))
    }

    /// Restricts the hashes to the pinned ones, because uv accepts a file with any hash of an entry.
    fn restricted(&self, pins: &[Pin]) -> Result<Self, PinError> {
        let is_resolved = |commit: &String| self.commit().is_some_and(|resolved| resolved.starts_with(commit.as_str()));
        if let Some(commit) = self.pins(pins).filter_map(|pin| pin.commit.clone()).find(|commit| !is_resolved(commit)) {
            let (name, resolved) = (name_of(&self.specifier), self.label().to_owned());
            return Err(PinError::Commit { name, commit, resolved });
        }
        let pinned: BTreeSet<&String> = self.pins(pins).flat_map(|pin| &pin.hashes).collect();
        let known: Vec<String> =
            pinned.iter().filter(|hash| self.hashes.contains(hash)).map(|hash| (*hash).clone()).collect();
        let hashes = match (pinned.is_empty(), known.is_empty()) {
            (true, _) if self.hashes.is_empty() && self.commit().is_none() => {
                return Err(PinError::Unhashed(self.label().to_owned()));
            }
            (true, _) => self.hashes.clone(),
            (false, true) => pinned.into_iter().cloned().collect(),
            (false, false) => known,
        };
        Ok(Self { hashes, ..self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sha(digit: char) -> String {
        format!("sha256:{}", digit.to_string().repeat(64))
    }

    fn lock(specifier: &str, hashes: &[String]) -> String {
        Entry { specifier: specifier.to_owned(), hashes: hashes.to_vec() }.text()
    }

    fn restricted(lock: &str, requirements: &[String]) -> Result<String, PinError> {
        restrict(lock, requirements)
    }

    fn is_unchanged(lock: &str, requirements: &[String]) -> bool {
        restricted(lock, requirements).is_ok_and(|text| text == lock)
    }

    #[test]
    fn only_pinned_files_stay_in_a_lock() {
        let other = lock("other==2.0 ; sys_platform == 'linux'", &[sha('c')]);
        let text = lock("h4-one==1.0", &[sha('a'), sha('b')]) + &other;
        let pinned = restricted(&text, &[format!("H4_One==1.0  --hash={} --hash {}", sha('A'), sha('f'))]).unwrap();
        assert_eq!(pinned, lock("h4-one==1.0", &[sha('a')]) + &other);
        assert!(
            !is_unchanged(&text, &[format!("h4.one==1.0 --hash={}", sha('a'))]),
            "a stored lock may hold more files"
        );
    }

    #[test]
    fn require_hashes_applies_to_every_package() {
        let text = lock("one==1.0", &[sha('a')]) + &lock("two==2.0", &[sha('b')]);
        let one = format!("one==1.0 --hash={}", sha('a'));
        assert_eq!(check_all_pinned(&text, &[one.clone(), format!("two==2.0 --hash={}", sha('b'))]), Ok(()));
        let refused = check_all_pinned(&text, &[one]).unwrap_err().to_string();
        assert!(refused.starts_with("--require-hashes: no hash is given for two==2.0;"), "{refused}");
    }

    #[test]
    fn a_lock_gets_a_pinned_hash_that_the_index_lacks() {
        let text = lock("h4one==1.0", &[sha('a')]);
        for requirement in ["h4one==1.0", "H4One", "h4one (==1.0)", "h4one[x]==1.0;python_version>'3'"] {
            let refused_by_uv = restricted(&text, &[format!("{requirement} --hash={}", sha('0'))]).unwrap();
            assert_eq!(refused_by_uv, lock("h4one==1.0", &[sha('0')]), "{requirement}");
        }
        assert!(!is_unchanged(&text, &[format!("h4one==1.0 --hash={}", sha('0'))]));
        assert!(!is_unchanged(
            &(lock("h4one==1.0", &[sha('a'), sha('b')])),
            &[format!("h4one==1.0 --hash={}", sha('a'))]
        ));
        assert!(is_unchanged(&text, &["h4one".to_owned(), "unlocked".to_owned()]));
    }

    #[test]
    fn each_of_two_versions_has_its_own_pins() {
        let old = lock("n==2.4 ; python_full_version < '3.12'", &[sha('a')]);
        let text = format!("{old}{}", lock("n==2.5 ; python_full_version >= '3.12'", &[sha('b')]));
        let pins =
            [format!("n==2.4 ; python_version<'3.12' --hash={}", sha('a')), "n==2.5 ; python_version>='3.12'".into()];
        assert_eq!(restricted(&text, &pins).unwrap(), text);
        let swapped = [pins[0].clone(), format!("n==2.5 ; python_version>='3.12' --hash={}", sha('a'))];
        let refused_by_uv = lock("n==2.5 ; python_full_version >= '3.12'", &[sha('a')]);
        assert_eq!(restricted(&text, &swapped).unwrap(), old + &refused_by_uv);
        // The pin of 2.4 also applies to the local version 2.4+cpu.
        let local = lock("n==2.4+cpu", &[sha('c')]);
        let refused_by_uv = restricted(&local, &[format!("n==2.4 --hash={}", sha('a'))]).unwrap();
        assert_eq!(refused_by_uv, lock("n==2.4+cpu", &[sha('a')]));
    }

    #[test]
    fn a_hash_of_another_algorithm_is_left_to_uv() {
        let long = format!("sha512:{}", "1".repeat(128));
        let text = lock("n==1", &[sha('a')]);
        assert_eq!(restricted(&text, &[format!("n==1 --hash={long}")]).unwrap(), lock("n==1", &[long]));
    }

    #[test]
    fn pins_that_cannot_be_checked_are_refused() {
        for (requirement, expected) in [
            ("n==1 --hash=md5:00", "\"md5\" does not pin a file"),
            ("n==1 --hash=sha256:ab", "64 hexadecimal digits"),
            ("n==1 --hash=foo:ab", "\"foo\" does not pin a file"),
            ("n==1 --hash=", "does not pin a file"),
            ("n @ https://e.example/n-1-py3-none-any.whl#md5=00", "\"md5\" does not pin a file"),
            (&format!("n @ git+https://e.example/n.git --hash={}", sha('a')), "pin its commit"),
        ] {
            let refused = check(requirement).unwrap_err().to_string();
            assert!(refused.starts_with("n: ") && refused.contains(expected), "{refused}");
        }
        let address = "n @ https://e.example/n-1-py3-none-any.whl#egg=n&subdirectory=x";
        assert_eq!(check(address), Ok(()));
    }

    #[test]
    fn an_address_may_pin_its_hash_inside_or_outside() {
        let text = lock("n @ https://e.example/n-1-py3-none-any.whl", &[sha('a')]);
        for pinned in ["#sha256=", " --hash=sha256:"] {
            let requirement =
                |digit: &str| format!("n @ https://e.example/n-1-py3-none-any.whl{pinned}{}", digit.repeat(64));
            assert_eq!(restricted(&text, &[requirement("a")]).unwrap(), text);
            let refused_by_uv = lock("n @ https://e.example/n-1-py3-none-any.whl", &[sha('0')]);
            assert_eq!(restricted(&text, &[requirement("0")]).unwrap(), refused_by_uv);
        }
    }

    #[test]
    fn a_commit_must_be_the_pinned_one() {
        let commit = "710d33d506324d1eff550c8135487b333d26b494";
        let text = lock(&format!("n @ git+http://127.0.0.1:1/n.git@{commit}#subdirectory=x"), &[]);
        for reference in ["", "@main", "@v1.0", "@20260131", "@710d33d", &format!("@{commit}")] {
            let requirement = format!("n @ git+http://127.0.0.1:1/n.git{reference}");
            assert_eq!(restricted(&text, &[requirement]).as_ref(), Ok(&text), "{reference}");
        }
        assert!(
            pins_by_commit(&text)
                && !pins_by_commit(&lock("n==1.0", &[]))
                && !pins_by_commit(&lock("n==1.0", &[sha('a')]))
        );
        let login = format!("n @ git+ssh://git@e.example/n.git@{commit}");
        assert_eq!(restricted(&text, &[login]).as_ref(), Ok(&text));
        // A branch with the name of a commit resolves elsewhere.
        let refused =
            restricted(&text, &["n @ git+http://127.0.0.1:1/n.git@810d33d".to_owned()]).unwrap_err().to_string();
        assert!(refused.starts_with("n: commit 810d33d is pinned"), "{refused}");
        assert_eq!(restricted(&lock("n==1.0", &[]), &["n".to_owned()]), Err(PinError::Unhashed("n==1.0".to_owned())));
    }
}
