//! A folder's part of an exchange, the workspace's and the task logs': its entries move, the folder itself stays, with
//! whatever is mounted there, the link that leads there, and whoever works in it.

use super::exchange_error::{ExchangeError, io_error};
use super::left_out::OWN_FOLDER;
use super::own_backups::OwnBackups;
use super::selection::{unheld_in_task_logs, unheld_in_workspace};
use crate::sys::beneath::Folder;
use crate::sys::files;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Which folder it is.
#[derive(Clone, Copy)]
pub enum Tree<'a> {
    Workspace(&'a OwnBackups),
    /// Private.
    TaskLogs,
}

/// Each of its steps finds from what is on the disk how far it came.
pub struct TreeExchange<'a> {
    pub tree: Tree<'a>,
    /// The folder in force, real; `None` when it is left alone.
    pub root: Option<&'a Path>,
    /// Where its other content is: folders `in` and `out`.
    pub beside: &'a Path,
    /// The file that lists the names that come in.
    pub names: PathBuf,
    /// The file that lists what is carried over.
    pub carried: PathBuf,
    /// Where in the folder goes what is in the way.
    pub conflicts: PathBuf,
    /// What the backup does not have by its own account.
    pub stays: &'a BTreeSet<String>,
}

/// What is carried over, written down before the first of it moves. Names are bytes: not each of them is text.
#[derive(Debug, Default, Serialize, Deserialize)]
struct CarryPlan {
    /// Folders that are made for it, each after its parent.
    folders: Vec<OsString>,
    moves: Vec<Carry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Carry {
    /// Relative to what went out.
    from: OsString,
    /// Relative to the folder in force. Another path than `from` where that is taken.
    to: OsString,
}

/// Writes down what is in a folder that is to come in, before anything moves.
pub fn write_names(incoming: &Path, list: &Path) -> Result<(), ExchangeError> {
    let text = serde_json::to_vec(&names(incoming)?).map_err(|error| ExchangeError::Plan(error.to_string()))?;
    files::write_atomic(list, &text, 0o600).map_err(|source| io_error("write", list, source))
}

fn read_names(list: &Path) -> Result<Vec<OsString>, ExchangeError> {
    let text = files::read_text(list, LIST_LIMIT).map_err(|source| io_error("read", list, source))?;
    serde_json::from_str(&text.unwrap_or_else(|| "[]".to_owned()))
        .map_err(|error| ExchangeError::Plan(error.to_string()))
}

/// A list of as many names as a backup may have, in bytes.
const LIST_LIMIT: u64 = 256 * 1024 * 1024;

/// The prefix of folders for what was in the way of an exchange. The user's, from then on.
pub const CONFLICTS: &str = ".leoflow-conflicts-";

fn is_own(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with(OWN_FOLDER) || name.starts_with(CONFLICTS)
}

/// The names in a folder; none when it is not there.
fn names(folder: &Path) -> Result<Vec<OsString>, ExchangeError> {
    let failed = |source| io_error("read", folder, source);
    match fs::read_dir(folder) {
        Ok(entries) => {
            entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<_>>().map_err(failed)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
    }
}

fn is_there(path: &Path) -> Result<bool, ExchangeError> {
    files::is_there(path).map_err(|source| io_error("read", path, source))
}

fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
}

impl TreeExchange<'_> {
    fn incoming(&self) -> PathBuf {
        self.beside.join("in")
    }

    fn out(&self) -> PathBuf {
        self.beside.join("out")
    }

    fn make(&self, folder: &Path) -> Result<(), ExchangeError> {
        let made = match self.tree {
            Tree::Workspace(_) => fs::create_dir_all(folder),
            Tree::TaskLogs => files::create_private_dir(folder),
        };
        made.map_err(|source| io_error("make", folder, source))
    }

    pub fn move_out(&self) -> Result<(), ExchangeError> {
        let Some(root) = self.root else { return Ok(()) };
        self.make(root)?;
        self.make(&self.out())?;
        for name in names(root)?.iter().filter(|name| !is_own(name)) {
            self.shift(&root.join(name), &self.out().join(name))?;
        }
        Ok(())
    }

    pub fn move_in(&self) -> Result<(), ExchangeError> {
        let Some(root) = self.root else { return Ok(()) };
        for name in names(&self.incoming())? {
            self.shift(&self.incoming().join(&name), &root.join(&name))?;
        }
        Ok(())
    }

    /// Only what has come from there: whatever else has appeared meanwhile is the user's.
    pub fn move_back_in(&self) -> Result<(), ExchangeError> {
        let Some(root) = self.root else { return Ok(()) };
        let incoming = self.incoming();
        self.make(&incoming)?;
        for name in read_names(&self.names)? {
            let (from, to) = (root.join(&name), incoming.join(&name));
            if !is_there(&to)? && is_there(&from)? {
                self.shift(&from, &to)?;
            }
        }
        Ok(())
    }

    /// Takes back that everything was moved out.
    pub fn move_back_out(&self) -> Result<(), ExchangeError> {
        let Some(root) = self.root else { return Ok(()) };
        for name in names(&self.out())? {
            self.shift(&self.out().join(&name), &root.join(&name))?;
        }
        Ok(())
    }

    /// Moves one entry, and never over another: what has appeared in the folder while an exchange was interrupted goes
    /// into a folder of its own there.
    fn shift(&self, from: &Path, to: &Path) -> Result<(), ExchangeError> {
        let failed = |source| io_error("move", from, source);
        match files::rename_to_new(from, to) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.map_err(failed),
        }
        let newcomer = if self.root.is_some_and(|root| to.parent() == Some(root)) { to } else { from };
        files::create_private_dir(&self.conflicts).map_err(failed)?;
        let name = newcomer.file_name().unwrap_or_default();
        let free = (0..).map(|number: u32| match number {
            0 => self.conflicts.join(name),
            number => self.conflicts.join(format!("{}.{number}", name.to_string_lossy())),
        });
        for place in free {
            match files::rename_to_new(newcomer, &place) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => {
                    other.map_err(failed)?;
                    break;
                }
            }
        }
        if newcomer == to { files::rename_to_new(from, to).map_err(failed) } else { Ok(()) }
    }

    /// What no backup holds goes on in the place where it was: `.git`, virtual environments, what the backup could not
    /// take. Where its place is taken now, it goes to the conflicts.
    pub fn carry_over(&self) -> Result<(), ExchangeError> {
        let Some(root) = self.root else { return Ok(()) };
        let plan = self.carry_plan(root)?;
        for folder in &plan.folders {
            make_like(&self.out().join(folder), &root.join(folder))?;
        }
        for Carry { from, to } in &plan.moves {
            let (from, to) = (self.out().join(from), root.join(to));
            if !is_there(&from)? {
                continue;
            }
            if is_folder(&from) && is_folder(&to) {
                // An empty folder gives way; of one that has got something meanwhile this says no.
                match fs::remove_dir(&to) {
                    Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                    other => other.map_err(|source| io_error("remove", &to, source))?,
                }
            }
            self.shift(&from, &to)?;
        }
        Ok(())
    }

    pub fn carry_back(&self) -> Result<(), ExchangeError> {
        let Some(root) = self.root else { return Ok(()) };
        if !is_there(&self.carried)? {
            return Ok(());
        }
        let plan = self.carry_plan(root)?;
        for Carry { from, to } in &plan.moves {
            let (place, out) = (root.join(to), self.out().join(from));
            if !is_there(&out)? && is_there(&place)? {
                fs::rename(&place, &out).map_err(|source| io_error("move", &place, source))?;
            }
        }
        for folder in plan.folders.iter().rev() {
            let folder = root.join(folder);
            match fs::remove_dir(&folder) {
                Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
                    return Err(io_error("remove", &folder, error));
                }
                _ => {}
            }
        }
        files::remove_any(&self.carried).map_err(|source| io_error("remove", &self.carried, source))
    }

    fn carry_plan(&self, root: &Path) -> Result<CarryPlan, ExchangeError> {
        let failed = |source| io_error("read or write", &self.carried, source);
        let plan = |error: serde_json::Error| ExchangeError::Plan(error.to_string());
        if let Some(text) = files::read_text(&self.carried, LIST_LIMIT).map_err(failed)? {
            return serde_json::from_str(&text).map_err(plan);
        }
        let found = self.find_carried(root)?;
        files::write_atomic(&self.carried, &serde_json::to_vec(&found).map_err(plan)?, 0o600).map_err(failed)?;
        Ok(found)
    }

    fn find_carried(&self, root: &Path) -> Result<CarryPlan, ExchangeError> {
        let out = self.out();
        let failed = |source| io_error("read", &out, source);
        let outgoing = Folder::open(&out).map_err(failed)?;
        let unheld = match self.tree {
            Tree::Workspace(own) => unheld_in_workspace(&outgoing, own),
            Tree::TaskLogs => unheld_in_task_logs(&outgoing),
        };
        let mut paths: BTreeSet<PathBuf> = unheld.map_err(failed)?.into_iter().collect();
        for path in self.stays {
            self.add_lacking(root, &outgoing, Path::new(path), &mut paths)?;
        }
        let (mut plan, mut folders, mut above) = (CarryPlan::default(), BTreeSet::new(), None::<PathBuf>);
        for path in paths {
            // What is below another goes with it.
            if above.as_ref().is_some_and(|above| path.starts_with(above)) {
                continue;
            }
            let (to, missing) = self.place_for(root, &path, &plan.moves)?;
            folders.extend(missing);
            plan.moves.push(Carry { from: path.clone().into(), to: to.into() });
            above = Some(path);
        }
        plan.folders = folders.into_iter().map(PathBuf::into_os_string).collect();
        Ok(plan)
    }

    /// What went out at `path` and did not come in.
    fn add_lacking(
        &self,
        root: &Path,
        outgoing: &Folder,
        path: &Path,
        found: &mut BTreeSet<PathBuf>,
    ) -> Result<(), ExchangeError> {
        if found.contains(path) {
            // It stays as a whole.
            return Ok(());
        }
        let (from, to) = (self.out().join(path), root.join(path));
        // No link is followed.
        if outgoing.below(path.parent().unwrap_or(Path::new(""))).is_err() || !is_there(&from)? {
            return Ok(());
        }
        if missing_folders(root, path)?.is_none() || !is_there(&to)? {
            found.insert(path.to_owned());
        } else if is_folder(&from) && is_folder(&to) {
            match names(&from) {
                Ok(names) => {
                    for name in names {
                        self.add_lacking(root, outgoing, &path.join(name), found)?;
                    }
                }
                Err(ExchangeError::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
                    found.insert(path.to_owned());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Its own place, or one among the conflicts; and the folders that are missing for it.
    fn place_for(&self, root: &Path, path: &Path, taken: &[Carry]) -> Result<(PathBuf, Vec<PathBuf>), ExchangeError> {
        let gives_way = is_folder(&self.out().join(path)) && is_empty_folder(&root.join(path))?;
        if let Some(missing) = missing_folders(root, path)?
            && (gives_way || !is_there(&root.join(path))?)
        {
            return Ok((path.to_owned(), missing));
        }
        let conflicts = PathBuf::from(self.conflicts.file_name().unwrap_or_default());
        for number in 0u32.. {
            let place = match number {
                0 => conflicts.join(path),
                number => conflicts.join(number.to_string()).join(path),
            };
            let is_taken = is_there(&root.join(&place))? || taken.iter().any(|one| one.to == place.as_os_str());
            if let Some(missing) = missing_folders(root, &place)?
                && !is_taken
            {
                return Ok((place, missing));
            }
        }
        Err(io_error("find a place in", &self.conflicts, io::ErrorKind::AlreadyExists.into()))
    }

    /// What was in force becomes what is kept.
    pub fn settle(&self) -> Result<(), ExchangeError> {
        let (incoming, out) = (self.incoming(), self.out());
        if is_there(&out)? {
            if let Err(error) = fs::remove_dir(&incoming)
                && error.kind() != io::ErrorKind::NotFound
            {
                // Nothing should be left there; if something is, it is not in the way.
                let rest = self.beside.join("rest");
                files::remove_any(&rest)
                    .and_then(|()| fs::rename(&incoming, &rest))
                    .map_err(|source| io_error("move", &incoming, source))?;
            }
            fs::rename(&out, &incoming).map_err(|source| io_error("move", &out, source))?;
        }
        files::remove_any(&self.carried).map_err(|source| io_error("remove", &self.carried, source))
    }
}

/// The folders above `path` that `root` lacks, each after its parent; `None` where something else is in their place.
fn missing_folders(root: &Path, path: &Path) -> Result<Option<Vec<PathBuf>>, ExchangeError> {
    let mut above: Vec<&Path> = path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()).collect();
    above.reverse();
    let mut missing = Vec::new();
    for folder in above {
        if !is_there(&root.join(folder))? {
            missing.push(folder.to_owned());
        } else if !is_folder(&root.join(folder)) {
            return Ok(None);
        }
    }
    Ok(Some(missing))
}

fn is_empty_folder(path: &Path) -> Result<bool, ExchangeError> {
    Ok(is_folder(path) && names(path)?.is_empty())
}

/// Makes a folder with the rights of another, its owner's among them; private where there is no other.
fn make_like(model: &Path, folder: &Path) -> Result<(), ExchangeError> {
    let failed = |source| io_error("make", folder, source);
    files::create_private_dir(folder).map_err(failed)?;
    match fs::symlink_metadata(model) {
        Ok(meta) if meta.is_dir() => {
            fs::set_permissions(folder, Permissions::from_mode(meta.permissions().mode() & 0o7777 | 0o700))
                .map_err(failed)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    struct Folders {
        place: tempfile::TempDir,
        own: OwnBackups,
        stays: BTreeSet<String>,
    }

    impl Folders {
        fn new() -> Self {
            let folders =
                Self { place: tempfile::tempdir().unwrap(), own: OwnBackups::default(), stays: BTreeSet::new() };
            for name in ["workspace", "beside/in"] {
                fs::create_dir_all(folders.at(name)).unwrap();
            }
            folders
        }

        fn at(&self, name: &str) -> PathBuf {
            self.place.path().join(name)
        }

        fn write(&self, name: impl AsRef<Path>) {
            let path = self.place.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, path.as_os_str().as_bytes()).unwrap();
        }

        /// Every file and link in the workspace.
        fn workspace(&self) -> Vec<PathBuf> {
            let (root, mut found, mut folders) = (self.at("workspace"), Vec::new(), vec![self.at("workspace")]);
            while let Some(folder) = folders.pop() {
                for entry in fs::read_dir(folder).unwrap().flatten() {
                    match entry.file_type().unwrap().is_dir() {
                        true => folders.push(entry.path()),
                        false => found.push(entry.path().strip_prefix(&root).unwrap().to_owned()),
                    }
                }
            }
            found.sort();
            found
        }

        fn exchange(&self, steps: impl FnOnce(&TreeExchange<'_>) -> Result<(), ExchangeError>) {
            let (root, beside) = (self.at("workspace"), self.at("beside"));
            let exchange = TreeExchange {
                tree: Tree::Workspace(&self.own),
                root: Some(&root),
                beside: &beside,
                names: self.at("names.json"),
                carried: self.at("carried.json"),
                conflicts: root.join(".leoflow-conflicts-1"),
                stays: &self.stays,
            };
            steps(&exchange).unwrap();
        }

        fn forward(&self) {
            write_names(&self.at("beside/in"), &self.at("names.json")).unwrap();
            self.exchange(|tree| tree.move_out().and_then(|()| tree.move_in()).and_then(|()| tree.carry_over()));
        }
    }

    fn paths(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn what_no_backup_holds_stays_there_and_back_again() {
        let mut folders = Folders::new();
        folders.stays = ["data/db.sqlite".to_owned()].into();
        for name in ["dag.py", "later.py", "data/db.sqlite", "new/.git/HEAD", "leoflow-backup-1.tar.zst"] {
            folders.write(Path::new("workspace").join(name));
        }
        let odd = Path::new(OsStr::from_bytes(b"data/caf\xe9.csv"));
        folders.write(Path::new("workspace").join(odd));
        symlink("/etc", folders.at("workspace/outside")).unwrap();
        let before = folders.workspace();
        folders.write("beside/in/dag.py");
        folders.forward();
        let mut expected = paths(&["dag.py", "data/db.sqlite", "leoflow-backup-1.tar.zst", "new/.git/HEAD", "outside"]);
        expected.push(odd.to_owned());
        expected.sort();
        assert_eq!(folders.workspace(), expected);
        // A step that fails takes all of it back.
        folders
            .exchange(|tree| tree.carry_back().and_then(|()| tree.move_back_in()).and_then(|()| tree.move_back_out()));
        assert_eq!(folders.workspace(), before);
        assert!(!folders.at("workspace/.leoflow-conflicts-1").exists());
        // In force, and undone by the same exchange.
        folders.forward();
        folders.exchange(|tree| tree.settle());
        assert_eq!(folders.workspace(), expected);
        folders.forward();
        assert_eq!(folders.workspace(), before);
    }

    #[test]
    fn what_has_its_place_taken_goes_to_the_conflicts() {
        let folders = Folders::new();
        folders.write("workspace/cache/CACHEDIR.TAG");
        folders.write("workspace/data/.git/HEAD");
        folders.write("beside/in/cache/file");
        folders.write("beside/in/data");
        folders.forward();
        let expected =
            [".leoflow-conflicts-1/cache/CACHEDIR.TAG", ".leoflow-conflicts-1/data/.git/HEAD", "cache/file", "data"];
        assert_eq!(folders.workspace(), paths(&expected));
        folders
            .exchange(|tree| tree.carry_back().and_then(|()| tree.move_back_in()).and_then(|()| tree.move_back_out()));
        assert_eq!(folders.workspace(), paths(&["cache/CACHEDIR.TAG", "data/.git/HEAD"]));
    }

    #[test]
    fn an_interrupted_carry_goes_on() {
        let folders = Folders::new();
        folders.write("workspace/a/.git/HEAD");
        folders.write("workspace/b/.git/HEAD");
        folders.forward();
        // Killed after the first of two.
        fs::create_dir_all(folders.at("beside/out/b")).unwrap();
        fs::rename(folders.at("workspace/b/.git"), folders.at("beside/out/b/.git")).unwrap();
        folders.exchange(|tree| tree.carry_over());
        assert_eq!(folders.workspace(), paths(&["a/.git/HEAD", "b/.git/HEAD"]));
    }
}
