//! Tests of the manifest's checks.

use super::*;

pub fn file(path: &str, size: u64) -> Entry {
    Entry {
        path: path.into(),
        content: Content::File { size, sha256: Sha256Hex([7; 32]), executable: false, private: false, stored: None },
    }
}

fn directory(path: &str) -> Entry {
    Entry { path: path.into(), content: Content::Directory { private: false } }
}

fn link(path: &str, target: &str) -> Entry {
    Entry { path: path.into(), content: Content::Symlink { target: target.into() } }
}

pub fn manifest(entries_after_dump: Vec<Entry>) -> Manifest {
    let mut entries = vec![file(CONFIG, 10), file(DUMP, 100)];
    entries.extend(entries_after_dump);
    Manifest {
        manifest_version: MANIFEST_VERSION,
        leoflow_version: "0.1.0".into(),
        schema_version: 3,
        postgres_version: "18.4".into(),
        created_at: "2026-11-20T00:00:00Z".into(),
        instance: "here".into(),
        database: DatabaseFacts { bytes: 1000, dump_bytes: 500 },
        tables: BTreeMap::from([("dag".into(), 1)]),
        invariants: vec![Answer { name: "runs".into(), query: "SELECT 1".into(), answer: Some("1".into()) }],
        running: Vec::new(),
        skipped: vec![],
        left_out: vec![],
        entries,
    }
}

fn parsed(manifest: &Manifest) -> Result<Manifest, ManifestError> {
    Manifest::parse(&serde_json::to_vec(manifest).unwrap())
}

#[test]
fn a_manifest_round_trips() {
    let good = manifest(vec![
        directory("task-logs"),
        directory("task-logs/a"),
        file("task-logs/a/1.log", 3),
        directory("workspace"),
        directory("workspace/p"),
        file("workspace/p/dag.py", 5),
        link("workspace/p/same", "dag.py"),
        link("workspace/top", "p/dag.py"),
        link("workspace/p/up", "../p/dag.py"),
    ]);
    assert_eq!(parsed(&good).unwrap(), good);
    assert_eq!(good.total_size(), 118);
}

#[test]
fn holes_do_not_count_as_disk_space() {
    let mut entry = file("workspace/a", 3 << 30);
    let mut json = serde_json::to_value(&entry).unwrap();
    assert!(json.get("stored").is_none());
    json["stored"] = 4096.into();
    // A release ignores fields that it does not know, so `stored` needs no new version of the manifest.
    json["unknown"] = true.into();
    entry = serde_json::from_value(json).unwrap();
    let sparse = manifest(vec![directory("workspace"), entry.clone()]);
    assert_eq!((parsed(&sparse).unwrap(), sparse.total_size()), (sparse.clone(), 110 + 4096));
    assert_eq!((sparse.files_size(), entry.size()), (10 + 4096, 3 << 30));
    // More than the size counts as the size, so that no sum overflows.
    if let Content::File { stored, .. } = &mut entry.content {
        *stored = Some(u64::MAX);
    }
    assert_eq!(manifest(vec![directory("workspace"), entry]).total_size(), 110 + (3 << 30));
}

#[test]
fn refuses_paths_that_leave_their_folder() {
    for path in [
        "../x",
        "/etc/passwd",
        "workspace/../x",
        "workspace/./x",
        "workspace//x",
        "workspace/",
        "",
        "workspace/a\nb",
        "other",
        "run/journal.json",
        "config.yaml/x",
        "workspace/.leoflow-restore-01234567",
        "workspace/\u{0}",
    ] {
        let entries = vec![directory("workspace"), file(path, 1)];
        assert!(parsed(&manifest(entries)).is_err(), "{path:?}");
    }
}

#[test]
fn checks_types_parents_and_duplicates() {
    for (entries, why) in [
        (vec![file("workspace/a", 1)], "no parent"),
        (vec![directory("workspace"), file("workspace/a", 1), file("workspace/a/b", 1)], "a file as parent"),
        (vec![directory("workspace"), link("workspace/a", "b"), file("workspace/a/b", 1)], "a link as parent"),
        (vec![directory("workspace"), file("workspace/a", 1), file("workspace/a", 1)], "twice"),
        (vec![file(CONFIG, 1)], "the config twice"),
        (vec![directory(RECEIPT)], "a directory for a file"),
        (vec![file("workspace", 1)], "a file for a directory"),
        (vec![link("task-logs", "workspace")], "a link outside the workspace"),
        (vec![directory("workspace"), file("workspace/a", u64::MAX)], "sizes that overflow"),
    ] {
        assert!(parsed(&manifest(entries)).is_err(), "{why}");
    }
    let mut without_dump = manifest(vec![]);
    without_dump.entries.retain(|entry| entry.path != DUMP);
    assert!(matches!(parsed(&without_dump), Err(ManifestError::Missing(DUMP))));
}

#[test]
fn a_link_stays_in_the_workspace() {
    for (path, target, inside) in [
        ("a", "b", true),
        ("p/a", "../b", true),
        ("p/q/a", "../../b/c", true),
        ("a", "../b", false),
        ("p/a", "../../b", false),
        ("a", "/etc/passwd", false),
        ("a", "", false),
        ("p/a", "../q/../../../x", false),
        ("p/a", "q/../../x", false),
        ("a", "./b/./c/", true),
    ] {
        assert_eq!(link_stays_inside(path, target), inside, "{path} -> {target}");
    }
}

#[test]
fn distinguishes_newer_from_broken_manifests() {
    let newer = r#"{"manifest_version": 2, "everything": "else"}"#;
    assert!(matches!(Manifest::parse(newer.as_bytes()), Err(ManifestError::Newer(2))));
    for broken in ["", "{}", "[]", "{\"manifest_version\": 1}", "{\"manifest_version\": -1}", "\u{0}"] {
        assert!(matches!(Manifest::parse(broken.as_bytes()), Err(ManifestError::Unreadable(_))), "{broken}");
    }
}

#[test]
fn a_manifest_without_invariants_is_accepted() {
    let mut json = serde_json::to_value(manifest(vec![])).unwrap();
    json.as_object_mut().unwrap().remove("invariants");
    assert_eq!(Manifest::parse(json.to_string().as_bytes()).unwrap().invariants, []);
}

#[test]
fn refuses_invariants_that_a_message_cannot_show() {
    let with = |name: &str, query: &str, answer: &str| {
        let invariant = Answer { name: name.into(), query: query.into(), answer: Some(answer.into()) };
        parsed(&Manifest { invariants: vec![invariant], ..manifest(vec![]) })
    };
    assert!(with("paid orders", "SELECT\n 1", "1").is_ok());
    let long = "x".repeat(10_001);
    for (name, query, answer) in
        [("\u{1b}]0;x\u{7}", "SELECT 1", "1"), ("a", "", "1"), ("a", long.as_str(), "1"), ("a", "SELECT 1", &long)]
    {
        assert!(with(name, query, answer).is_err(), "{name:?}");
    }
    let one = manifest(vec![]).invariants.remove(0);
    assert!(parsed(&Manifest { invariants: vec![one; 101], ..manifest(vec![]) }).is_err());
}
