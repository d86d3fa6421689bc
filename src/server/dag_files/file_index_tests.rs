//! Tests which files a scan causes to be parsed.

use super::super::dag_file::{MAX_RESTARTS, pause_before_repeat};
use super::super::parse_file::NoOutput;
use super::super::stamps::stamps;
use super::*;
use crate::dag_code::slot_policy::Pace;
use leoflow_python::NoResult;
use std::fs;
use tempfile::TempDir;

impl FileIndex {
    /// Returns an index of DAG files that have been parsed.
    pub fn with_dag_files(paths: &[&str]) -> Self {
        let dag_files = paths.iter().map(|path| (PathBuf::from(path), DagFile::default())).collect();
        Self { dag_files, ..Self::default() }
    }

    pub fn set_outcome(&mut self, path: &str, outcome: Outcome) {
        self.dag_files.get_mut(Path::new(path)).unwrap().outcome = outcome;
    }
}

/// A workspace and its index.
struct TestWorkspace {
    folder: TempDir,
    index: FileIndex,
}

impl TestWorkspace {
    fn new(files: &[&str]) -> Self {
        let workspace = Self { folder: tempfile::tempdir().unwrap(), index: FileIndex::default() };
        files.iter().for_each(|name| workspace.save(name, "1"));
        workspace
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn save(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn scan(&self) -> Scan {
        let entries = fs::read_dir(self.folder.path()).unwrap().flatten();
        let files = entries.map(|entry| (entry.path(), Stamp::of_path(&entry.path()).unwrap())).collect();
        Scan { files, ..Scan::default() }
    }

    /// Returns the names of files to parse, and whether something was removed. DAG files are those named `dag*`.
    fn apply_scan(&mut self, scan: Scan) -> (Vec<String>, bool) {
        let is_dag_file = |path: &&PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("dag");
        let dag_files = scan.files.keys().filter(is_dag_file).cloned().collect();
        let outside = stamps(self.index.outside(&scan));
        let Change { to_parse, removed } = self.index.apply(scan, &dag_files, &outside);
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        (to_parse.into_iter().map(name).collect(), removed)
    }

    fn scan_and_apply(&mut self) -> (Vec<String>, bool) {
        self.apply_scan(self.scan())
    }

    /// Starts a parse that never ends by itself.
    fn begin_parse(&mut self, name: &str) {
        let path = self.path(name);
        self.set_parsing(&path, tokio::spawn(std::future::pending()));
    }

    /// Registers a parse; returns its number.
    fn set_parsing(&mut self, path: &Path, task: JoinHandle<()>) -> u64 {
        let number = self.index.next_parse_number();
        self.index.set_parsing(path, number, task);
        number
    }

    /// Runs a parse that reads these files.
    fn parse(&mut self, name: &str, sources: &[&str], failed: bool) -> bool {
        self.begin_parse(name);
        self.end_parse(name, sources, failed)
    }

    /// Ends a parse that read these files.
    fn end_parse(&mut self, name: &str, sources: &[&str], failed: bool) -> bool {
        let sources: Vec<PathBuf> = sources.iter().map(|name| self.path(name)).collect();
        let absent = sources.iter().filter(|path| !path.exists()).cloned().collect();
        let outside = stamps(sources.clone());
        let inputs = ParseInputs { sources, absent, uses_store: false, have_changed: false };
        let path = self.path(name);
        let is_current = self.index.end_parse(&path, inputs, &outside);
        if failed {
            self.index.record(&failed_parse(path));
        } else {
            self.index.set_outcome(path.to_str().unwrap(), Outcome::Imported(DagOwner::ThisFile));
        }
        is_current
    }

    fn failed(&self) -> Vec<PathBuf> {
        self.index.select(|file| file.failed_since().is_some())
    }

    fn recency(&mut self, name: &str) -> Recency {
        let path = self.path(name);
        self.index.next_parse(&path).unwrap().0.recency
    }

    fn pause_before_parse(&mut self, path: &Path) -> Option<Duration> {
        self.index.next_parse(path).map(|(_, pause)| pause)
    }
}

fn failed_parse(path: PathBuf) -> Parsed {
    Parsed {
        path,
        number: 0,
        began: SystemTime::now(),
        duration: Duration::ZERO,
        output: Err(NoOutput::NoResult(NoResult::Permanent("No module named x".to_owned()))),
        environment: None,
        adjacent_files: Stamps::new(),
        pace: Pace::Quick,
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn parses_only_new_and_changed_files() {
    let mut workspace = TestWorkspace::new(&["dag_a.py", "dag_b.py", "helper.py"]);
    assert_eq!(workspace.scan_and_apply(), (names(&["dag_a.py", "dag_b.py"]), false));
    assert_eq!(workspace.scan_and_apply(), (names(&[]), false));
    workspace.save("dag_b.py", "22");
    assert_eq!(workspace.scan_and_apply(), (names(&["dag_b.py"]), false));
    fs::remove_file(workspace.path("dag_a.py")).unwrap();
    assert_eq!(workspace.scan_and_apply(), (names(&[]), true));
    assert!(!workspace.index.knows(&workspace.path("dag_a.py")) && workspace.index.knows(&workspace.path("dag_b.py")));
    workspace.index.forget();
    assert_eq!(workspace.scan_and_apply().0, ["dag_b.py"]);
}

#[tokio::test(flavor = "current_thread")]
async fn parses_again_when_an_input_changes_appears_or_goes() {
    let mut workspace = TestWorkspace::new(&["dag_a.py", "dag_b.py", "helper.py"]);
    workspace.scan_and_apply();
    assert!(workspace.parse("dag_a.py", &["dag_a.py", "helper.py", "later.py"], false));
    assert!(workspace.parse("dag_b.py", &["dag_b.py"], false));
    assert_eq!(workspace.scan_and_apply().0, [""; 0]);
    workspace.save("helper.py", "22");
    assert_eq!(workspace.scan_and_apply().0, ["dag_a.py"]);
    workspace.parse("dag_a.py", &["dag_a.py", "helper.py", "later.py"], false);
    workspace.save("later.py", "1");
    assert_eq!(workspace.scan_and_apply().0, ["dag_a.py"]);
    workspace.parse("dag_a.py", &["dag_a.py", "helper.py", "later.py"], false);
    fs::remove_file(workspace.path("helper.py")).unwrap();
    assert_eq!(workspace.scan_and_apply().0, ["dag_a.py"]);
}

#[tokio::test(flavor = "current_thread")]
async fn checks_inputs_outside_the_workspace() {
    let mut workspace = TestWorkspace::new(&["dag_a.py"]);
    let elsewhere = tempfile::tempdir().unwrap();
    let data = elsewhere.path().join("data.csv");
    fs::write(&data, "1").unwrap();
    workspace.scan_and_apply();
    workspace.parse("dag_a.py", &["dag_a.py", data.to_str().unwrap()], false);
    assert_eq!(workspace.index.outside(&workspace.scan()), [data.as_path()]);
    assert_eq!(workspace.scan_and_apply().0, [""; 0]);
    fs::write(&data, "22").unwrap();
    assert_eq!(workspace.scan_and_apply().0, ["dag_a.py"]);
}

#[tokio::test(flavor = "current_thread")]
async fn retries_failed_files_after_any_change() {
    let mut workspace = TestWorkspace::new(&["dag_a.py", "dag_b.py"]);
    workspace.scan_and_apply();
    workspace.parse("dag_a.py", &["dag_a.py"], true);
    workspace.parse("dag_b.py", &["dag_b.py"], false);
    assert!(workspace.index.failed_since().is_some());
    assert_eq!(workspace.failed(), [workspace.path("dag_a.py")]);
    assert_eq!(workspace.scan_and_apply().0, [""; 0], "nothing has changed");
    workspace.save("new_module.py", "1");
    assert_eq!(workspace.scan_and_apply().0, ["dag_a.py"]);
    workspace.parse("dag_a.py", &["dag_a.py"], false);
    assert!(workspace.failed().is_empty());
}

#[test]
fn unreadable_files_are_not_removed() {
    let mut workspace = TestWorkspace::new(&["dag_a.py", "dag_b.py"]);
    workspace.scan_and_apply();
    let mut blind = Scan::default();
    blind.unscanned.insert(workspace.folder.path().to_owned(), Unscanned::NoAnswer(Duration::ZERO));
    let (to_parse, unseen_changed) = workspace.apply_scan(blind);
    assert!(to_parse.is_empty() && unseen_changed);
    assert!(workspace.index.knows(&workspace.path("dag_a.py")));
    assert_eq!(workspace.scan_and_apply(), (names(&[]), true), "it is readable again and unchanged");
}

#[tokio::test(flavor = "current_thread")]
async fn retries_a_conflicting_file_when_the_owner_is_gone() {
    let mut workspace = TestWorkspace::new(&["dag_a.py", "dag_b.py"]);
    workspace.scan_and_apply();
    workspace.parse("dag_a.py", &["dag_a.py"], false);
    workspace.parse("dag_b.py", &["dag_b.py"], false);
    workspace.index.set_owner(&workspace.path("dag_b.py"), DagOwner::OtherFile);
    assert_eq!(workspace.index.conflicting(&workspace.path("dag_a.py")), [workspace.path("dag_b.py")]);
    assert!(workspace.index.conflicting(&workspace.path("dag_b.py")).is_empty());
    fs::remove_file(workspace.path("dag_a.py")).unwrap();
    assert_eq!(workspace.scan_and_apply(), (names(&["dag_b.py"]), true));
}

#[tokio::test(flavor = "current_thread")]
async fn repeats_a_parse_whose_input_changed_meanwhile() {
    let mut workspace = TestWorkspace::new(&["dag_a.py", "helper.py"]);
    workspace.scan_and_apply();
    workspace.begin_parse("dag_a.py");
    workspace.save("helper.py", "22");
    workspace.scan_and_apply();
    assert!(!workspace.end_parse("dag_a.py", &["dag_a.py", "helper.py"], false));
}

#[tokio::test(flavor = "current_thread")]
async fn repeated_requests_let_a_parse_end_and_are_delayed() {
    let mut workspace = TestWorkspace::new(&["dag_a.py"]);
    workspace.scan_and_apply();
    let path = workspace.path("dag_a.py");
    assert_eq!(workspace.pause_before_parse(&path), Some(Duration::ZERO));
    for _ in 0..MAX_RESTARTS {
        workspace.set_parsing(&path, tokio::spawn(std::future::pending()));
        assert_eq!(workspace.pause_before_parse(&path), Some(Duration::ZERO), "aborted for a newer one");
    }
    workspace.set_parsing(&path, tokio::spawn(std::future::pending()));
    assert_eq!(workspace.pause_before_parse(&path), None, "now it must complete");
    assert!(!workspace.end_parse("dag_a.py", &["dag_a.py"], false), "and is repeated afterwards");
    for _ in 0..5 {
        workspace.parse("dag_a.py", &["dag_a.py"], false);
    }
    workspace.set_parsing(&path, tokio::spawn(async {}));
    tokio::task::yield_now().await;
    assert!(workspace.pause_before_parse(&path) >= Some(Duration::from_secs(1)));
    assert_eq!(
        (pause_before_repeat(4), pause_before_repeat(5), pause_before_repeat(6), pause_before_repeat(100)),
        (Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8), Duration::from_secs(8))
    );
}

#[tokio::test(flavor = "current_thread")]
async fn only_the_newest_parse_of_a_file_counts() {
    let mut workspace = TestWorkspace::new(&["dag_a.py", "dag_b.py"]);
    workspace.scan_and_apply();
    let (a, b) = (workspace.path("dag_a.py"), workspace.path("dag_b.py"));
    let ended = workspace.set_parsing(&a, tokio::spawn(async {}));
    let other = workspace.set_parsing(&b, tokio::spawn(async {}));
    let is_newest =
        |workspace: &TestWorkspace, path, number| workspace.index.get(path).unwrap().is_newest_parse(number);
    assert!(is_newest(&workspace, &a, ended) && is_newest(&workspace, &b, other));
    let newest = workspace.set_parsing(&a, tokio::spawn(std::future::pending()));
    assert!(!is_newest(&workspace, &a, ended), "its result waits while the next parse runs");
    assert!(is_newest(&workspace, &a, newest));
}

#[tokio::test(flavor = "current_thread")]
async fn a_parse_whose_settings_changed_meanwhile_is_repeated() {
    let mut workspace = TestWorkspace::new(&["dag_a.py"]);
    workspace.scan_and_apply();
    let path = workspace.path("dag_a.py");
    for (have_changed, is_always_outdated) in [(true, false), (true, true), (false, false)] {
        workspace.begin_parse("dag_a.py");
        let inputs = ParseInputs { sources: vec![path.clone()], absent: Vec::new(), uses_store: false, have_changed };
        assert_eq!(workspace.index.end_parse(&path, inputs, &Stamps::new()), !have_changed);
        assert_eq!(workspace.index.get(&path).unwrap().is_always_outdated(), is_always_outdated);
    }
}

#[test]
fn a_new_dags_folder_excludes_files_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let (workspace, mut index) = (folder.path(), FileIndex::default());
    let (file, stamp) = (workspace.join("p/dag.py"), Stamp::of_path(workspace).unwrap());
    // Calls the index as the loop of `dag_files` does.
    let mut scan_and_apply = |folders: &[PathBuf]| {
        let files = BTreeMap::from([(file.clone(), stamp)]);
        let scan = Scan { files, dag_places: DagPlaces::new(workspace, folders), ..Scan::default() };
        let places = index.dag_places(&scan);
        let dag_files = index.changed(&scan).into_iter().filter(|path| places.allows(path)).collect();
        let Change { to_parse, removed } = index.apply(scan, &dag_files, &Stamps::new());
        (to_parse, removed)
    };
    let dags = [workspace.join("p/dags")];
    assert_eq!(scan_and_apply(&[]), (vec![file.clone()], false));
    assert_eq!(scan_and_apply(&dags), (vec![], true));
    assert_eq!(scan_and_apply(&dags), (vec![], false));
    assert_eq!(scan_and_apply(&[]), (vec![file.clone()], false));
}

#[tokio::test(flavor = "current_thread")]
async fn a_parse_has_the_recency_of_the_last_change() {
    let mut workspace = TestWorkspace::new(&["dag_a.py", "dag_b.py", "dag_c.py", "dag_d.py", "helper.py"]);
    workspace.scan_and_apply();
    workspace.parse("dag_a.py", &["dag_a.py", "helper.py"], false);
    workspace.parse("dag_b.py", &["dag_b.py"], true);
    let first = workspace.recency("dag_b.py");
    workspace.save("helper.py", "changed");
    assert_eq!(workspace.scan_and_apply().0, ["dag_a.py", "dag_b.py"]);
    assert_eq!(workspace.recency("dag_b.py"), first, "a failed file is only tried again");
    let imports_helper = workspace.recency("dag_a.py");
    workspace.save("dag_c.py", "changed");
    workspace.scan_and_apply();
    let saved = workspace.recency("dag_c.py");
    workspace.index.set_changed(&[workspace.path("dag_d.py")]);
    assert!(first < imports_helper && imports_helper < saved && saved < workspace.recency("dag_d.py"));
    assert_eq!(workspace.recency("dag_b.py"), first);
}

#[tokio::test(flavor = "current_thread")]
async fn counts_the_files_that_are_being_imported() {
    let mut workspace = TestWorkspace::new(&["dag_a.py", "dag_b.py", "helper.py"]);
    workspace.scan_and_apply();
    workspace.begin_parse("dag_a.py");
    let ImportProgress { remaining, total } = workspace.index.progress();
    assert_eq!((remaining, total), (1, 2));
}
