//! What a project pins beyond versions: hashes of files and commits of git addresses. uv writes hashes of its own into a
//! lock whatever the requirements say, so the pins are compared with the lock here.

/// The hashes that uv checks, with the digits of each. pip refuses md5 and sha1 for pins, too.
const ALGORITHMS: [(&str, usize); 4] = [("sha256", 64), ("sha384", 96), ("sha512", 128), ("blake2b", 128)];
const WEAK: [&str; 3] = ["md5", "sha1", "sha224"];
/// Digits of a whole commit, and the fewest that git abbreviates one to.
const COMMIT: usize = 40;
const SHORTEST_COMMIT: usize = 7;

/// One requirement that pins something, or says that it pins no file.
#[derive(Debug, PartialEq, Eq)]
struct Pin {
    name: String,
    version: Option<String>,
    /// `sha256:…`, in small letters.
    hashes: Vec<String>,
    commit: Option<String>,
}

/// What is wrong with the pins of one requirement.
pub fn check(requirement: &str) -> Result<(), String> {
    pin(requirement).map(drop)
}

/// A lock with only the files that the requirements and constraints allow; the same text where that is all of them. The
/// error names what differs.
pub fn applied<'a>(lock: &str, requirements: impl IntoIterator<Item = &'a String>) -> Result<String, String> {
    let pins = requirements.into_iter().map(|one| pin(one)).collect::<Result<Vec<_>, _>>()?;
    let (entries, mut text, mut is_same) = (entries(lock), String::new(), true);
    for entry in entries {
        let pinned = entry.pinned(&pins)?;
        is_same &= pinned == entry;
        text.push_str(&pinned.text());
    }
    Ok(if is_same { lock.to_owned() } else { text })
}

/// Whether a lock has files without hashes: those of git addresses with their whole commits, which pin them, too.
pub fn has_commits(lock: &str) -> bool {
    let entries = entries(lock);
    let is_pinned = |entry: &Entry| !entry.hashes.is_empty() || entry.commit().is_some();
    entries.iter().all(is_pinned) && entries.iter().any(|entry| entry.hashes.is_empty())
}

fn pin(requirement: &str) -> Result<Pin, String> {
    let mut words = requirement.split_whitespace();
    let (mut stated, mut hashes) = (Vec::new(), Vec::new());
    while let Some(word) = words.next() {
        match word.strip_prefix("--hash") {
            Some("") => hashes.extend(words.next()),
            Some(value) => hashes.extend(value.strip_prefix('=')),
            None => stated.push(word),
        }
    }
    let stated = stated.join(" ");
    let name = name_of(&stated);
    // In an address a semicolon begins a marker behind a blank alone.
    let marker = if stated.contains("://") { " ;" } else { ";" };
    let stated = stated.split(marker).next().unwrap_or_default().trim();
    let address = stated.split_once('@').map(|(_, address)| address.trim()).filter(|address| address.contains("://"));
    let (place, fragment) =
        address.and_then(|address| address.split_once('#')).unwrap_or((address.unwrap_or_default(), ""));
    let in_address = fragment.split('&').filter_map(|part| part.split_once('='));
    let is_hash = |key: &str| WEAK.contains(&key) || ALGORITHMS.iter().any(|(known, _)| *known == key);
    let of_address = in_address.filter(|(key, _)| is_hash(key)).map(|(key, value)| format!("{key}:{value}"));
    let hashes: Vec<String> =
        hashes.into_iter().map(|hash| hash.trim_matches(['"', '\'']).to_owned()).chain(of_address).collect();
    for hash in &hashes {
        check_hash(hash).map_err(|why| format!("{name}: {why}"))?;
    }
    let is_git = place.starts_with("git+");
    if is_git && !hashes.is_empty() {
        return Err(format!(
            "{name}: a git address has no files with hashes; pin its commit, as in `{name} @ git+https://…@COMMIT`"
        ));
    }
    let commit = if is_git { reference(place).filter(|name| is_commit(name)).map(str::to_lowercase) } else { None };
    let version = stated.split_once("==").map(|(_, version)| version.trim_start_matches('='));
    let version = version.map(|version| version.trim_end_matches(')').trim().to_owned());
    let version = version.filter(|version| address.is_none() && !version.contains(['*', ',']));
    Ok(Pin { name, version, hashes: hashes.iter().map(|hash| hash.to_lowercase()).collect(), commit })
}

/// True for a hash, as `sha256:…`, by an algorithm that pins a file.
pub fn is_strong(hash: &str) -> bool {
    let algorithm = hash.split_once(':').map(|(algorithm, _)| algorithm);
    ALGORITHMS.iter().any(|(known, _)| algorithm.is_some_and(|algorithm| algorithm.eq_ignore_ascii_case(known)))
}

fn check_hash(hash: &str) -> Result<(), String> {
    let known: Vec<&str> = ALGORITHMS.iter().map(|(name, _)| *name).collect();
    let (algorithm, digits) = hash.split_once(':').unwrap_or((hash, ""));
    let Some((_, length)) = ALGORITHMS.iter().find(|(name, _)| algorithm.eq_ignore_ascii_case(name)) else {
        return Err(format!("a hash of {algorithm:?} pins no file; use {}", known.join(", ")));
    };
    if digits.len() != *length || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(format!("{hash:?} is no hash: {algorithm} has {length} hexadecimal digits"));
    }
    Ok(())
}

/// Normalized, <https://packaging.python.org/en/latest/specifications/name-normalization/>.
pub fn name_of(requirement: &str) -> String {
    let is_in_name = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    let name: String = requirement.trim().chars().take_while(|c| is_in_name(*c)).collect();
    let parts = name.split(['-', '_', '.']).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("-").to_lowercase()
}

/// What stands behind the `@` of a git address: a branch, a tag or a commit.
fn reference(address: &str) -> Option<&str> {
    let path = address.split_once("://")?.1.split_once('/')?.1;
    path.rsplit_once('@').map(|(_, reference)| reference)
}

/// A branch may be called `20260131` or `decade`, so an abbreviated commit has letters and digits.
fn is_commit(reference: &str) -> bool {
    let has = |kind: fn(&u8) -> bool| reference.as_bytes().iter().any(kind);
    let is_whole = reference.len() == COMMIT || (has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic));
    (SHORTEST_COMMIT..=COMMIT).contains(&reference.len())
        && is_whole
        && reference.bytes().all(|b| b.is_ascii_hexdigit())
}

/// One package of a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// `name==1.0 ; marker` or `name @ address ; marker`.
    stated: String,
    hashes: Vec<String>,
}

fn entries(lock: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in lock.lines().map(|line| line.trim_end_matches('\\').trim_end()) {
        match (line.trim_start().strip_prefix("--hash="), entries.last_mut()) {
            (Some(hash), Some(entry)) => entry.hashes.push(hash.to_owned()),
            _ if line.is_empty() || line.starts_with([' ', '#', '-']) => {}
            _ => entries.push(Entry { stated: line.to_owned(), hashes: Vec::new() }),
        }
    }
    entries
}

impl Entry {
    fn text(&self) -> String {
        let hashes: String = self.hashes.iter().map(|hash| format!(" \\\n    --hash={hash}")).collect();
        format!("{}{hashes}\n", self.stated)
    }

    /// The name with the version or address, for messages.
    fn shown(&self) -> &str {
        self.stated.split(" ;").next().unwrap_or_default().trim()
    }

    fn version(&self) -> Option<&str> {
        self.shown().split_once("==").map(|(_, version)| version)
    }

    fn commit(&self) -> Option<&str> {
        let (_, address) = self.shown().split_once(" @ git+")?;
        reference(address.split('#').next().unwrap_or_default()).filter(|name| name.len() == COMMIT)
    }

    /// With the hashes that are pinned alone: uv takes a file that has any one of them.
    fn pinned(&self, pins: &[Pin]) -> Result<Self, String> {
        let name = name_of(&self.stated);
        let of_name: Vec<&Pin> = pins.iter().filter(|pin| pin.name == name).collect();
        for wanted in of_name.iter().filter_map(|pin| pin.commit.as_deref()) {
            if !self.commit().is_some_and(|found| found.starts_with(wanted)) {
                return Err(format!("{name}: commit {wanted} is pinned, and its address leads to {}", self.shown()));
            }
        }
        // Of two pins for different Pythons each is for its version.
        let is_of_version = |pin: &&&Pin| pin.version.is_some() && pin.version.as_deref() == self.version();
        let of_version: Vec<&Pin> = of_name.iter().copied().filter(|pin| is_of_version(&pin)).collect();
        let pins = if of_version.is_empty() { of_name } else { of_version };
        let pinned: Vec<&String> = pins.iter().flat_map(|pin| &pin.hashes).collect();
        if pinned.is_empty() {
            return if self.hashes.is_empty() && self.commit().is_none() {
                Err(format!("{}: its files have no hashes, so it cannot be locked", self.shown()))
            } else {
                Ok(self.clone())
            };
        }
        let algorithm = |hash: &str| hash.split(':').next().unwrap_or_default().to_owned();
        let is_known = |hash: &&&String| self.hashes.iter().any(|other| algorithm(other) == algorithm(hash));
        // What the index does not tell is computed when the file is installed.
        let (comparable, unknown): (Vec<&String>, Vec<&String>) =
            pinned.iter().copied().partition(|hash| is_known(&hash));
        let mut kept: Vec<String> = comparable.into_iter().filter(|hash| self.hashes.contains(hash)).cloned().collect();
        if kept.is_empty() {
            kept = unknown.into_iter().cloned().collect();
        }
        if kept.is_empty() {
            let all = |hashes: &[String]| hashes.join(", ");
            let pinned: Vec<String> = pinned.into_iter().cloned().collect();
            return Err(format!(
                "{}: hash mismatch: the files of the index have other hashes than the pinned ones\n  pinned: {}\n  index:  {}",
                self.shown(),
                all(&pinned),
                all(&self.hashes)
            ));
        }
        kept.sort();
        kept.dedup();
        Ok(Self { hashes: kept, ..self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sha(digit: char) -> String {
        format!("sha256:{}", digit.to_string().repeat(64))
    }

    fn lock(stated: &str, hashes: &[String]) -> String {
        Entry { stated: stated.to_owned(), hashes: hashes.to_vec() }.text()
    }

    fn with(lock: &str, requirements: &[String]) -> Result<String, String> {
        applied(lock, requirements)
    }

    fn hold(lock: &str, requirements: &[String]) -> bool {
        with(lock, requirements).is_ok_and(|text| text == lock)
    }

    #[test]
    fn only_pinned_files_stay_in_a_lock() {
        let other = lock("other==2.0 ; sys_platform == 'linux'", &[sha('c')]);
        let text = lock("h4-one==1.0", &[sha('a'), sha('b')]) + &other;
        let pinned = with(&text, &[format!("H4_One==1.0  --hash={} --hash {}", sha('A'), sha('f'))]).unwrap();
        assert_eq!(pinned, lock("h4-one==1.0", &[sha('a')]) + &other);
        assert!(!hold(&text, &[format!("h4.one==1.0 --hash={}", sha('a'))]), "a stored lock may hold more files");
    }

    #[test]
    fn a_hash_that_the_index_does_not_have_is_a_mismatch_by_name() {
        let text = lock("h4one==1.0", &[sha('a')]);
        for requirement in ["h4one==1.0", "H4One", "h4one (==1.0)", "h4one[x]==1.0;python_version>'3'"] {
            let refused = with(&text, &[format!("{requirement} --hash={}", sha('0'))]).unwrap_err();
            assert!(refused.starts_with("h4one==1.0: hash mismatch"), "{refused}");
        }
        assert!(!hold(&text, &[format!("h4one==1.0 --hash={}", sha('0'))]));
        assert!(!hold(&(lock("h4one==1.0", &[sha('a'), sha('b')])), &[format!("h4one==1.0 --hash={}", sha('a'))]));
        assert!(hold(&text, &["h4one".to_owned(), "unlocked".to_owned()]));
    }

    #[test]
    fn each_of_two_versions_has_its_own_pins() {
        let old = lock("n==2.4 ; python_full_version < '3.12'", &[sha('a')]);
        let text = format!("{old}{}", lock("n==2.5 ; python_full_version >= '3.12'", &[sha('b')]));
        let pins =
            [format!("n==2.4 ; python_version<'3.12' --hash={}", sha('a')), "n==2.5 ; python_version>='3.12'".into()];
        assert_eq!(with(&text, &pins).unwrap(), text);
        let swapped = [pins[0].clone(), format!("n==2.5 ; python_version>='3.12' --hash={}", sha('a'))];
        assert!(with(&text, &swapped).unwrap_err().starts_with("n==2.5: hash mismatch"));
        // A local version is none of the pinned, and its files are compared all the same.
        let local = lock("n==2.4+cpu", &[sha('c')]);
        assert!(with(&local, &[format!("n==2.4 --hash={}", sha('a'))]).is_err());
    }

    #[test]
    fn a_hash_of_another_kind_is_left_to_the_installer() {
        let long = format!("sha512:{}", "1".repeat(128));
        let text = lock("n==1", &[sha('a')]);
        assert_eq!(with(&text, &[format!("n==1 --hash={long}")]).unwrap(), lock("n==1", &[long]));
    }

    #[test]
    fn pins_that_cannot_be_checked_are_refused() {
        for (requirement, why) in [
            ("n==1 --hash=md5:00", "\"md5\" pins no file"),
            ("n==1 --hash=sha256:ab", "64 hexadecimal digits"),
            ("n==1 --hash=foo:ab", "\"foo\" pins no file"),
            ("n==1 --hash=", "pins no file"),
            ("n @ https://e.example/n-1-py3-none-any.whl#md5=00", "\"md5\" pins no file"),
            (&format!("n @ git+https://e.example/n.git --hash={}", sha('a')), "pin its commit"),
        ] {
            let refused = check(requirement).unwrap_err();
            assert!(refused.starts_with("n: ") && refused.contains(why), "{refused}");
        }
        let address = "n @ https://e.example/n-1-py3-none-any.whl#egg=n&subdirectory=x";
        assert_eq!(check(address), Ok(()));
    }

    #[test]
    fn an_address_has_the_hash_that_is_pinned_in_it_or_beside_it() {
        let text = lock("n @ https://e.example/n-1-py3-none-any.whl", &[sha('a')]);
        for pinned in ["#sha256=", " --hash=sha256:"] {
            let requirement =
                |digit: &str| format!("n @ https://e.example/n-1-py3-none-any.whl{pinned}{}", digit.repeat(64));
            assert_eq!(with(&text, &[requirement("a")]).unwrap(), text);
            assert!(with(&text, &[requirement("0")]).unwrap_err().contains("hash mismatch"));
        }
    }

    #[test]
    fn a_commit_is_the_one_that_is_pinned() {
        let commit = "710d33d506324d1eff550c8135487b333d26b494";
        let text = lock(&format!("n @ git+http://127.0.0.1:1/n.git@{commit}#subdirectory=x"), &[]);
        for reference in ["", "@main", "@v1.0", "@20260131", "@710d33d", &format!("@{commit}")] {
            let requirement = format!("n @ git+http://127.0.0.1:1/n.git{reference}");
            assert_eq!(with(&text, &[requirement]).as_ref(), Ok(&text), "{reference}");
        }
        assert!(has_commits(&text) && !has_commits(&lock("n==1.0", &[])) && !has_commits(&lock("n==1.0", &[sha('a')])));
        let login = format!("n @ git+ssh://git@e.example/n.git@{commit}");
        assert_eq!(with(&text, &[login]).as_ref(), Ok(&text));
        // A branch with the name of a commit leads elsewhere.
        let refused = with(&text, &["n @ git+http://127.0.0.1:1/n.git@810d33d".to_owned()]).unwrap_err();
        assert!(refused.starts_with("n: commit 810d33d is pinned"), "{refused}");
        assert!(with(&lock("n==1.0", &[]), &["n".to_owned()]).unwrap_err().contains("no hashes"));
    }
}
