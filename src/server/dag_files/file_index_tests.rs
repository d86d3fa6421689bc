//! What a look at the workspace leads to.

use super::*;
use std::fs;
use tempfile::TempDir;

/// A workspace, and what is known of it.
struct Play {
    folder: TempDir,
    index: FileIndex,
}

impl Play {
    fn new(files: &[&str]) -> Self {
        let play = Self { folder: tempfile::tempdir().unwrap(), index: FileIndex::default() };
        files.iter().for_each(|name| play.save(name, "1"));
        play
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

    /// Names of what is to be parsed, and whether something is gone. DAG files are those whose name begins so.
    fn look_at(&mut self, scan: Scan) -> (Vec<String>, bool) {
        let is_dag_file = |path: &&PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("dag");
        let dag_files = scan.files.keys().filter(is_dag_file).cloned().collect();
        let outside = stamps(self.index.outside(&scan));
        let Change { to_parse, removed } = self.index.compare(scan, &dag_files, &outside);
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        (to_parse.into_iter().map(name).collect(), removed)
    }

    fn look(&mut self) -> (Vec<String>, bool) {
        self.look_at(self.scan())
    }

    /// A parse of it begins.
    fn begins(&mut self, name: &str) {
        let path = self.path(name);
        self.index.dag_files.get_mut(&path).unwrap().since = self.index.look;
    }

    /// A parse of it that read these files begins and ends.
    fn parse(&mut self, name: &str, sources: &[&str], failed: bool) -> bool {
        self.begins(name);
        self.parsed(name, sources, failed)
    }

    /// A parse of it that read these files ends.
    fn parsed(&mut self, name: &str, sources: &[&str], failed: bool) -> bool {
        let sources: Vec<PathBuf> = sources.iter().map(|name| self.path(name)).collect();
        let absent = sources.iter().filter(|path| !path.exists()).cloned().collect();
        let outside = stamps(sources.clone());
        let read = Read { sources, absent, asks: false };
        let path = self.path(name);
        self.index.was_parsed(&path, read, failed.then(SystemTime::now), &outside)
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn what_is_new_or_changed_is_parsed_and_what_is_as_it_was_is_not() {
    let mut play = Play::new(&["dag_a.py", "dag_b.py", "helper.py"]);
    assert_eq!(play.look(), (names(&["dag_a.py", "dag_b.py"]), false));
    assert_eq!(play.look(), (names(&[]), false));
    play.save("dag_b.py", "22");
    assert_eq!(play.look(), (names(&["dag_b.py"]), false));
    fs::remove_file(play.path("dag_a.py")).unwrap();
    assert_eq!(play.look(), (names(&[]), true));
    assert!(!play.index.knows(&play.path("dag_a.py")) && play.index.knows(&play.path("dag_b.py")));
    play.index.forget();
    assert_eq!(play.look().0, ["dag_b.py"]);
}

#[test]
fn a_file_is_parsed_again_when_what_it_read_has_changed_come_or_gone() {
    let mut play = Play::new(&["dag_a.py", "dag_b.py", "helper.py"]);
    play.look();
    assert!(play.parse("dag_a.py", &["dag_a.py", "helper.py", "later.py"], false));
    assert!(play.parse("dag_b.py", &["dag_b.py"], false));
    assert_eq!(play.look().0, [""; 0]);
    play.save("helper.py", "22");
    assert_eq!(play.look().0, ["dag_a.py"]);
    play.parse("dag_a.py", &["dag_a.py", "helper.py", "later.py"], false);
    play.save("later.py", "1");
    assert_eq!(play.look().0, ["dag_a.py"]);
    play.parse("dag_a.py", &["dag_a.py", "helper.py", "later.py"], false);
    fs::remove_file(play.path("helper.py")).unwrap();
    assert_eq!(play.look().0, ["dag_a.py"]);
}

#[test]
fn what_lies_outside_is_asked_for() {
    let mut play = Play::new(&["dag_a.py"]);
    let elsewhere = tempfile::tempdir().unwrap();
    let data = elsewhere.path().join("data.csv");
    fs::write(&data, "1").unwrap();
    play.look();
    play.parse("dag_a.py", &["dag_a.py", data.to_str().unwrap()], false);
    assert_eq!(play.index.outside(&play.scan()), [data.as_path()]);
    assert_eq!(play.look().0, [""; 0]);
    fs::write(&data, "22").unwrap();
    assert_eq!(play.look().0, ["dag_a.py"]);
}

#[test]
fn a_file_that_failed_may_heal_with_any_change() {
    let mut play = Play::new(&["dag_a.py", "dag_b.py"]);
    play.look();
    play.parse("dag_a.py", &["dag_a.py"], true);
    play.parse("dag_b.py", &["dag_b.py"], false);
    assert!(play.index.failed_since().is_some());
    assert_eq!(play.index.failed(), [play.path("dag_a.py")]);
    assert_eq!(play.look().0, [""; 0], "nothing has changed");
    play.save("new_module.py", "1");
    assert_eq!(play.look().0, ["dag_a.py"]);
    play.parse("dag_a.py", &["dag_a.py"], false);
    assert!(play.index.failed().is_empty());
}

#[test]
fn what_cannot_be_seen_is_not_gone() {
    let mut play = Play::new(&["dag_a.py", "dag_b.py"]);
    play.look();
    let mut blind = Scan::default();
    blind.unseen.insert(play.folder.path().to_owned(), "it does not answer".to_owned());
    let (to_parse, told_otherwise) = play.look_at(blind);
    assert!(to_parse.is_empty() && told_otherwise);
    assert!(play.index.knows(&play.path("dag_a.py")));
    assert_eq!(play.look(), (names(&[]), true), "it is seen again, and is as it was");
}

#[test]
fn a_file_that_was_refused_a_dag_is_tried_again_when_another_is_gone() {
    let mut play = Play::new(&["dag_a.py", "dag_b.py"]);
    play.look();
    play.parse("dag_a.py", &["dag_a.py"], false);
    play.parse("dag_b.py", &["dag_b.py"], false);
    play.index.set_conflicts(&play.path("dag_b.py"), true);
    assert_eq!(play.index.conflicting(&play.path("dag_a.py")), [play.path("dag_b.py")]);
    assert!(play.index.conflicting(&play.path("dag_b.py")).is_empty());
    fs::remove_file(play.path("dag_a.py")).unwrap();
    assert_eq!(play.look(), (names(&["dag_b.py"]), true));
}

#[test]
fn a_parse_that_read_what_has_changed_meanwhile_is_done_again() {
    let mut play = Play::new(&["dag_a.py", "helper.py"]);
    play.look();
    play.begins("dag_a.py");
    play.save("helper.py", "22");
    play.look();
    assert!(!play.parsed("dag_a.py", &["dag_a.py", "helper.py"], false));
}

#[tokio::test(flavor = "current_thread")]
async fn one_that_is_asked_for_again_and_again_gets_its_end_and_waits_longer_each_time() {
    let mut play = Play::new(&["dag_a.py"]);
    play.look();
    let path = play.path("dag_a.py");
    assert_eq!(play.index.pause_for(&path), Some(Duration::ZERO));
    for _ in 0..MOST_RESTARTS {
        play.index.is_being_parsed(path.clone(), tokio::spawn(std::future::pending()));
        assert_eq!(play.index.pause_for(&path), Some(Duration::ZERO), "it is ended for a newer one");
    }
    play.index.is_being_parsed(path.clone(), tokio::spawn(std::future::pending()));
    assert_eq!(play.index.pause_for(&path), None, "now it goes on");
    assert!(!play.parse("dag_a.py", &["dag_a.py"], false), "and is done again after that");
    for _ in 0..5 {
        play.parse("dag_a.py", &["dag_a.py"], false);
    }
    play.index.is_being_parsed(path.clone(), tokio::spawn(async {}));
    tokio::task::yield_now().await;
    assert!(play.index.pause_for(&path) >= Some(Duration::from_secs(1)));
    assert_eq!(
        (pause(4), pause(5), pause(6), pause(100)),
        (Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8), Duration::from_secs(8))
    );
}

#[test]
fn files_beside_a_new_folder_of_dags_are_dag_files_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let (workspace, mut index) = (folder.path(), FileIndex::default());
    let (file, stamp) = (workspace.join("p/dag.py"), Stamp::of_path(workspace).unwrap());
    // As the loop does.
    let mut look = |folders: &[PathBuf]| {
        let files = BTreeMap::from([(file.clone(), stamp)]);
        let scan = Scan { files, dag_places: DagPlaces::new(workspace, folders), ..Scan::default() };
        let places = index.dag_places(&scan);
        let dag_files = index.changed(&scan).into_iter().filter(|path| places.hold(path)).collect();
        let Change { to_parse, removed } = index.compare(scan, &dag_files, &Stamps::new());
        (to_parse, removed)
    };
    let dags = [workspace.join("p/dags")];
    assert_eq!(look(&[]), (vec![file.clone()], false));
    assert_eq!(look(&dags), (vec![], true));
    assert_eq!(look(&dags), (vec![], false));
    assert_eq!(look(&[]), (vec![file.clone()], false));
}
