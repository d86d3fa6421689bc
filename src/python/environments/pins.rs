//! Pins: hashes of files, and commits of git addresses. uv writes the hashes of all files of a version into a lock,
//! even if the requirements pin one of them, so this module removes the other hashes from the lock.

/// The hash algorithms that uv checks, with their number of hexadecimal digits.
const ALGORITHMS: [(&str, usize); 4] = [("sha256", 64), ("sha384", 96), ("sha512", 128), ("blake2b", 128)];
/// Algorithms that are refused for pins; pip refuses md5 and sha1, too.
const WEAK: [&str; 3] = ["md5", "sha1", "sha224"];
/// Hexadecimal digits of a full commit id, and of the shortest abbreviation that counts as a commit id.
const COMMIT: usize = 40;
const SHORTEST_COMMIT: usize = 7;

/// The pins of one requirement; it may have none.
#[derive(Debug, PartialEq, Eq)]
struct Pin {
    name: String,
    version: Option<String>,
    /// As `sha256:…`, lower-case.
    hashes: Vec<String>,
    commit: Option<String>,
}

/// Checks the pins of one requirement. The error is a message for the user.
pub fn check(requirement: &str) -> Result<(), String> {
    pin(requirement).map(drop)
}

/// Restricts a lock to the files that requirements and constraints pin; returns the same text if nothing changes. The
/// error names a pin that no file of the lock matches.
pub fn restrict<'a>(lock: &str, requirements: impl IntoIterator<Item = &'a String>) -> Result<String, String> {
    let pins = requirements.into_iter().map(|line| pin(line)).collect::<Result<Vec<_>, _>>()?;
    let (entries, mut text, mut is_same) = (entries(lock), String::new(), true);
    for entry in entries {
        let restricted = entry.restricted(&pins)?;
        is_same &= restricted == entry;
        text.push_str(&restricted.text());
    }
    Ok(if is_same { lock.to_owned() } else { text })
}

/// Checks that the requirements pin every package of a lock, by the hash of a file or by the commit of a repository.
/// The error names the packages that are not pinned.
pub fn check_all_pinned<'a>(lock: &str, requirements: impl IntoIterator<Item = &'a String>) -> Result<(), String> {
    let pins = requirements.into_iter().map(|line| pin(line)).collect::<Result<Vec<_>, _>>()?;
    let is_pinned = |entry: &Entry| {
        let name = name_of(&entry.specifier);
        pins.iter().any(|pin| pin.name == name && (!pin.hashes.is_empty() || pin.commit.is_some()))
    };
    let entries = entries(lock);
    let unpinned: Vec<&str> = entries.iter().filter(|entry| !is_pinned(entry)).map(Entry::label).collect();
    if unpinned.is_empty() {
        return Ok(());
    }
    Err(format!("--require-hashes: no hash is given for {}; add --hash=sha256:… to each of them", unpinned.join(", ")))
}

/// True if a lock has packages without hashes, and all of these are git addresses with full commit ids.
pub fn pins_by_commit(lock: &str) -> bool {
    let entries = entries(lock);
    let is_pinned = |entry: &Entry| !entry.hashes.is_empty() || entry.commit().is_some();
    entries.iter().all(is_pinned) && entries.iter().any(|entry| entry.hashes.is_empty())
}

/// Parses the pins of a requirement. The error is a message for the user.
fn pin(requirement: &str) -> Result<Pin, String> {
    let mut parts = requirement.split_whitespace();
    let (mut specifier, mut hashes) = (Vec::new(), Vec::new());
    while let Some(part) = parts.next() {
        match part.strip_prefix("--hash") {
            Some("") => hashes.extend(parts.next()),
            Some(value) => hashes.extend(value.strip_prefix('=')),
            None => specifier.push(part),
        }
    }
    let specifier = specifier.join(" ");
    let name = name_of(&specifier);
    // A semicolon starts an environment marker; in an address it does so only after a blank.
    let marker = if specifier.contains("://") { " ;" } else { ";" };
    let specifier = specifier.split(marker).next().unwrap_or_default().trim();
    let address =
        specifier.split_once('@').map(|(_, address)| address.trim()).filter(|address| address.contains("://"));
    let (address_path, fragment) =
        address.and_then(|address| address.split_once('#')).unwrap_or((address.unwrap_or_default(), ""));
    let fragment_pairs = fragment.split('&').filter_map(|part| part.split_once('='));
    let is_hash = |key: &str| WEAK.contains(&key) || ALGORITHMS.iter().any(|(known, _)| *known == key);
    let address_hashes = fragment_pairs.filter(|(key, _)| is_hash(key)).map(|(key, value)| format!("{key}:{value}"));
    let hashes: Vec<String> =
        hashes.into_iter().map(|hash| hash.trim_matches(['"', '\'']).to_owned()).chain(address_hashes).collect();
    for hash in &hashes {
        check_hash(hash).map_err(|reason| format!("{name}: {reason}"))?;
    }
    let is_git = address_path.starts_with("git+");
    if is_git && !hashes.is_empty() {
        return Err(format!(
            "{name}: a git address has no files with hashes; pin its commit, as in `{name} @ git+https://…@COMMIT`"
        ));
    }
    let commit =
        if is_git { reference(address_path).filter(|name| is_commit(name)).map(str::to_lowercase) } else { None };
    let version = specifier.split_once("==").map(|(_, version)| version.trim_start_matches('='));
    let version = version.map(|version| version.trim_end_matches(')').trim().to_owned());
    let version = version.filter(|version| address.is_none() && !version.contains(['*', ',']));
    Ok(Pin { name, version, hashes: hashes.iter().map(|hash| hash.to_lowercase()).collect(), commit })
}

/// True for a hash such as `sha256:…` whose algorithm is strong enough to pin a file.
pub fn is_strong(hash: &str) -> bool {
    let algorithm = hash.split_once(':').map(|(algorithm, _)| algorithm);
    ALGORITHMS.iter().any(|(name, _)| algorithm.is_some_and(|algorithm| algorithm.eq_ignore_ascii_case(name)))
}

fn check_hash(hash: &str) -> Result<(), String> {
    let supported: Vec<&str> = ALGORITHMS.iter().map(|(name, _)| *name).collect();
    let (algorithm, digits) = hash.split_once(':').unwrap_or((hash, ""));
    let Some((_, length)) = ALGORITHMS.iter().find(|(name, _)| algorithm.eq_ignore_ascii_case(name)) else {
        return Err(format!("a hash of {algorithm:?} does not pin a file; use {}", supported.join(", ")));
    };
    if digits.len() != *length || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(format!("{hash:?} is not a valid hash: {algorithm} has {length} hexadecimal digits"));
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
    let path = address.split_once("://")?.1.split_once('/')?.1;
    path.rsplit_once('@').map(|(_, reference)| reference)
}

/// True for a commit id, full or abbreviated. An abbreviated one must have letters and digits: a branch may be called
/// `20260131` or `decade`.
fn is_commit(reference: &str) -> bool {
    let has_any = |is_of_kind: fn(&u8) -> bool| reference.as_bytes().iter().any(is_of_kind);
    let is_whole = reference.len() == COMMIT || (has_any(u8::is_ascii_digit) && has_any(u8::is_ascii_alphabetic));
    (SHORTEST_COMMIT..=COMMIT).contains(&reference.len())
        && is_whole
        && reference.bytes().all(|b| b.is_ascii_hexdigit())
}

/// One package of a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// `name==1.0 ; marker` or `name @ address ; marker`.
    specifier: String,
    hashes: Vec<String>,
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
        reference(address.split('#').next().unwrap_or_default()).filter(|name| name.len() == COMMIT)
    }

    /// Restricts the hashes to the pinned ones, because uv accepts a file with any hash of an entry.
    fn restricted(&self, pins: &[Pin]) -> Result<Self, String> {
        let name = name_of(&self.specifier);
        let package_pins: Vec<&Pin> = pins.iter().filter(|pin| pin.name == name).collect();
        for commit in package_pins.iter().filter_map(|pin| pin.commit.as_deref()) {
            if !self.commit().is_some_and(|resolved| resolved.starts_with(commit)) {
                return Err(format!("{name}: commit {commit} is pinned, but its address resolves to {}", self.label()));
            }
        }
        // If requirements pin several versions, for different Pythons, only the pins of this version apply.
        let is_for_this_version = |pin: &&&Pin| pin.version.is_some() && pin.version.as_deref() == self.version();
        let version_pins: Vec<&Pin> = package_pins.iter().copied().filter(|pin| is_for_this_version(&pin)).collect();
        let pins = if version_pins.is_empty() { package_pins } else { version_pins };
        let pinned: Vec<&String> = pins.iter().flat_map(|pin| &pin.hashes).collect();
        if pinned.is_empty() {
            return if self.hashes.is_empty() && self.commit().is_none() {
                Err(format!("{}: its files have no hashes, so it cannot be locked", self.label()))
            } else {
                Ok(self.clone())
            };
        }
        let algorithm = |hash: &str| hash.split(':').next().unwrap_or_default().to_owned();
        let has_comparable_hash = |hash: &&&String| self.hashes.iter().any(|other| algorithm(other) == algorithm(hash));
        // A pinned hash whose algorithm the index does not list cannot be compared here: uv checks it at installation.
        let (comparable, unknown): (Vec<&String>, Vec<&String>) =
            pinned.iter().copied().partition(|hash| has_comparable_hash(&hash));
        let mut allowed: Vec<String> =
            comparable.into_iter().filter(|hash| self.hashes.contains(hash)).cloned().collect();
        if allowed.is_empty() {
            allowed = unknown.into_iter().cloned().collect();
        }
        if allowed.is_empty() {
            let list = |hashes: &[String]| hashes.join(", ");
            let pinned: Vec<String> = pinned.into_iter().cloned().collect();
            return Err(format!(
                "{}: hash mismatch: its files do not have the pinned hashes\n  pinned: {}\n  found:  {}",
                self.label(),
                list(&pinned),
                list(&self.hashes)
            ));
        }
        allowed.sort();
        allowed.dedup();
        Ok(Self { hashes: allowed, ..self.clone() })
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

    fn restricted(lock: &str, requirements: &[String]) -> Result<String, String> {
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
        let refused = check_all_pinned(&text, &[one]).unwrap_err();
        assert!(refused.starts_with("--require-hashes: no hash is given for two==2.0;"), "{refused}");
    }

    #[test]
    fn a_hash_missing_from_the_index_is_a_mismatch() {
        let text = lock("h4one==1.0", &[sha('a')]);
        for requirement in ["h4one==1.0", "H4One", "h4one (==1.0)", "h4one[x]==1.0;python_version>'3'"] {
            let refused = restricted(&text, &[format!("{requirement} --hash={}", sha('0'))]).unwrap_err();
            assert!(refused.starts_with("h4one==1.0: hash mismatch"), "{refused}");
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
        assert!(restricted(&text, &swapped).unwrap_err().starts_with("n==2.5: hash mismatch"));
        // The pin of 2.4 also applies to the local version 2.4+cpu.
        let local = lock("n==2.4+cpu", &[sha('c')]);
        assert!(restricted(&local, &[format!("n==2.4 --hash={}", sha('a'))]).is_err());
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
            let refused = check(requirement).unwrap_err();
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
            assert!(restricted(&text, &[requirement("0")]).unwrap_err().contains("hash mismatch"));
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
        let refused = restricted(&text, &["n @ git+http://127.0.0.1:1/n.git@810d33d".to_owned()]).unwrap_err();
        assert!(refused.starts_with("n: commit 810d33d is pinned"), "{refused}");
        assert!(restricted(&lock("n==1.0", &[]), &["n".to_owned()]).unwrap_err().contains("no hashes"));
    }
}
