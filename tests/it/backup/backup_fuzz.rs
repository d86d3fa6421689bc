//! Structure-aware fuzzing of manifests and archives: accepted input must match its manifest, and nothing may panic.
//! A test runs thousands of rounds; `scripts/fuzz` runs for a given time.

use crate::support::archive::hash;
use leoflow::backup::format::archive::{ArchiveWriter, Compression};
use leoflow::backup::format::archive_read::{ArchiveReader, Sink};
use leoflow::backup::format::manifest::{Content, Entry, Manifest};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::time::{Duration, Instant};

/// xorshift64*, <https://en.wikipedia.org/wiki/Xorshift>: the same seed gives the same rounds.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn choose<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Yields one seed per round: 1 to `default`, or new ones until LEOFLOW_FUZZ_SECONDS have passed.
fn seeds(default: u64) -> impl Iterator<Item = u64> {
    let seconds = std::env::var("LEOFLOW_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let first = end
        .map_or(1, |_| std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64);
    (0..).map(move |round| first.wrapping_add(round)).take_while(move |seed| match end {
        Some(end) => Instant::now() < end,
        None => *seed <= default,
    })
}

fn contents() -> BTreeMap<&'static str, Vec<u8>> {
    BTreeMap::from([
        ("config.yaml", b"port: 1\n".to_vec()),
        ("datastore.dump.zst", (0..=255).collect()),
        ("workspace/p/dag.py", b"print()\n".to_vec()),
        ("workspace/run.sh", Vec::new()),
    ])
}

fn seed_manifest() -> Value {
    let file = |path: &str| {
        let bytes = &contents()[path];
        json!({"path": path, "type": "file", "size": bytes.len(), "sha256": hash(bytes)})
    };
    let directory = |path: &str| json!({"path": path, "type": "directory"});
    json!({
        "manifest_version": 1, "leoflow_version": "0.1.0", "schema_version": 3, "postgres_version": "18.4",
        "created_at": "2026-11-20T00:00:00Z", "instance": "here", "database": {"bytes": 1000, "dump_bytes": 500},
        "tables": {"dag": 1}, "skipped": [], "left_out": [],
        "entries": [
            file("config.yaml"), file("datastore.dump.zst"), directory("task-logs"), directory("workspace"),
            directory("workspace/p"), file("workspace/p/dag.py"), file("workspace/run.sh"),
            {"path": "workspace/link", "type": "symlink", "target": "p/dag.py"},
        ],
    })
}

const WORDS: &[&str] = &[
    "..",
    ".",
    "/",
    "../",
    "a/../b",
    "\u{0}",
    "\n",
    "workspace",
    "task-logs",
    "config.yaml",
    "",
    "MANIFEST.json",
    "workspace/link/x",
    "/etc/passwd",
    "ü",
    "file",
    "symlink",
    "directory",
];

fn damage_value(value: &mut Value, random: &mut Random) {
    match value {
        Value::Object(fields) if random.below(3) > 0 && !fields.is_empty() => {
            let key = fields.keys().nth(random.below(fields.len())).unwrap().clone();
            match random.below(8) {
                0 => drop(fields.remove(&key)),
                1 => drop(fields.insert((*random.choose(WORDS)).to_owned(), json!(1))),
                _ => damage_value(fields.get_mut(&key).unwrap(), random),
            }
        }
        Value::Array(items) if random.below(4) > 0 && !items.is_empty() => {
            let index = random.below(items.len());
            match random.below(6) {
                0 => drop(items.remove(index)),
                1 => items.push(items[index].clone()),
                2 => {
                    let other = random.below(items.len());
                    items.swap(index, other);
                }
                _ => damage_value(&mut items[index], random),
            }
        }
        Value::String(text) if random.below(2) > 0 => {
            let word = random.choose(WORDS);
            *text = match random.below(3) {
                0 => format!("{text}/{word}"),
                1 => format!("{word}{text}"),
                _ => (*word).to_owned(),
            };
        }
        _ => {
            *value = random
                .choose(&[
                    json!(null),
                    json!(-1),
                    json!(0),
                    json!(u64::MAX),
                    json!(1.5),
                    json!("x"),
                    json!([]),
                    json!({}),
                    json!(true),
                ])
                .clone();
        }
    }
}

/// True if a path stays below its folder. Independent of the tested code's check.
fn is_harmless(path: &str) -> bool {
    use std::path::{Component, Path};
    !path.is_empty()
        && !path.contains('\0')
        && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
        && ["config.yaml", "setup.json", "datastore.dump.zst", "task-logs", "workspace"]
            .iter()
            .any(|top| Path::new(path).starts_with(top))
}

/// Asserts that no path occurs twice and that no path or link target leaves its folder.
fn assert_sound(manifest: &Manifest, seed: u64) {
    let mut before: Vec<&str> = Vec::new();
    for entry in &manifest.entries {
        assert!(is_harmless(&entry.path), "seed {seed}: {:?}", entry.path);
        assert!(!before.contains(&entry.path.as_str()), "seed {seed}: {:?} twice", entry.path);
        if let Content::Symlink { target } = &entry.content {
            let parent = std::path::Path::new("/w").join(entry.path.strip_prefix("workspace/").unwrap());
            let mut resolved: Vec<_> = parent.parent().unwrap().components().collect();
            for part in std::path::Path::new(target).components() {
                match part {
                    std::path::Component::ParentDir => drop(resolved.pop()),
                    std::path::Component::CurDir => {}
                    part => resolved.push(part),
                }
                assert!(resolved.len() >= 2, "seed {seed}: {target:?} leaves the workspace");
            }
        }
        before.push(&entry.path);
    }
}

#[test]
fn a_damaged_manifest_is_refused_or_sound() {
    let mut accepted = 0;
    for seed in seeds(20_000) {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut value = seed_manifest();
        for _ in 0..=random.below(3) {
            damage_value(&mut value, &mut random);
        }
        let mut text = serde_json::to_vec(&value).unwrap();
        if random.below(4) == 0 {
            let index = random.below(text.len());
            text[index] ^= 1 << random.below(8);
        }
        if let Ok(manifest) = Manifest::parse(&text) {
            accepted += 1;
            assert_sound(&manifest, seed);
            assert_eq!(Manifest::parse(&serde_json::to_vec(&manifest).unwrap()).unwrap(), manifest, "seed {seed}");
        }
    }
    assert!(accepted > 0, "everything was refused, so nothing was tested");
}

/// Collects the entries with their content.
#[derive(Default)]
struct Collecting(Vec<(Entry, Vec<u8>)>);

impl Sink for Collecting {
    fn entry(&mut self, entry: &Entry, _: u64, content: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        assert!(bytes.len() as u64 <= entry.size(), "more than was declared");
        self.0.push((entry.clone(), bytes));
        Ok(())
    }
}

fn seed_tar(compression: Compression) -> Vec<u8> {
    let manifest = Manifest::parse(&serde_json::to_vec(&seed_manifest()).unwrap()).unwrap();
    let text = serde_json::to_vec(&manifest).unwrap();
    let mut writer = ArchiveWriter::begin(Vec::new(), compression, &text, 1).unwrap();
    for entry in &manifest.entries {
        let bytes = contents().get(entry.path.as_str()).cloned().unwrap_or_default();
        writer.add(entry, 1, &bytes[..]).unwrap();
    }
    writer.finish().unwrap()
}

/// Damages blocks, a bit, or a field of a header, whose checksum is then corrected.
fn damage_tar(tar: &mut Vec<u8>, random: &mut Random) {
    if tar.len() < 512 {
        return;
    }
    let block = random.below(tar.len() / 512) * 512;
    match random.below(8) {
        0 => tar.truncate(random.below(tar.len()).max(512)),
        1 => {
            let copy = tar[block..block + 512].to_vec();
            tar.splice(block..block, copy);
        }
        2 => drop(tar.drain(block..block + 512)),
        3 => tar.extend([0; 700]),
        4 => {
            let index = random.below(tar.len());
            tar[index] ^= 1 << random.below(8);
        }
        _ => {
            // Name, mode, size, type, link, magic and prefix, as in tar(5).
            let (start, length) =
                *random.choose(&[(0, 100), (100, 8), (124, 12), (156, 1), (157, 100), (257, 8), (345, 155)]);
            let word = random.choose(WORDS).as_bytes();
            let field = &mut tar[block + start..block + start + length];
            match random.below(3) {
                0 => field.iter_mut().zip(word).for_each(|(old, new)| *old = *new),
                1 => field[random.below(length)] = *random.choose(b"0123456789LKxgVS\xff\x80\0"),
                _ => field.fill(*random.choose(b"07\xff\0")),
            }
            let mut header = tar::Header::new_old();
            header.as_mut_bytes().copy_from_slice(&tar[block..block + 512]);
            header.set_cksum();
            tar[block..block + 512].copy_from_slice(header.as_bytes());
        }
    }
}

#[test]
fn a_damaged_archive_is_refused_or_matches_its_manifest() {
    let (zstd, gzip) = (seed_tar(Compression::Zstd), seed_tar(Compression::Gzip));
    let plain = zstd::decode_all(&zstd[..]).unwrap();
    let mut accepted = 0;
    for seed in seeds(6_000) {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let bytes = match random.below(4) {
            0 => {
                let mut bytes = random.choose(&[&zstd, &gzip]).to_vec();
                let index = random.below(bytes.len());
                bytes[index] ^= 1 << random.below(8);
                bytes
            }
            _ => {
                let mut tar = plain.clone();
                for _ in 0..=random.below(3) {
                    damage_tar(&mut tar, &mut random);
                }
                zstd::encode_all(&tar[..], 1).unwrap()
            }
        };
        let mut sink = Collecting::default();
        let Ok(manifest) = ArchiveReader::new(&bytes[..]).and_then(|reader| reader.read(&mut sink)) else { continue };
        accepted += 1;
        assert_sound(&manifest, seed);
        assert_eq!(sink.0.len(), manifest.entries.len(), "seed {seed}");
        for (expected, (entry, bytes)) in manifest.entries.iter().zip(&sink.0) {
            assert_eq!(expected, entry, "seed {seed}");
            if let Content::File { size, sha256, .. } = &entry.content {
                assert_eq!((*size, sha256.to_string()), (bytes.len() as u64, hash(bytes)), "seed {seed}");
            }
        }
    }
    assert!(accepted > 0, "everything was refused, so nothing was tested");
}
