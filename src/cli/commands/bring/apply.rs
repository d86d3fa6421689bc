//! Does what the plan says, and undoes it.

use super::plan::{NewFile, ProjectPlan};
use super::repository::{Repository, top_folder};
use super::{Bring, other_instance_of};
use crate::airflow::airflow_content::AirflowContent;
use crate::airflow::data_files::{connections, pools, variables};
use crate::airflow::import;
use crate::api_client::{Api, encode};
use crate::args::OnExisting;
use crate::context::{Confirmation, Context};
use crate::error::Error;
use leoflow_base::home::Home;
use leoflow_base::sys::env_vars;
use leoflow_base::sys::fs::files;
use leoflow_engine::store::secret::connections::Connection;
use leoflow_engine::store::secret::variables::Variable;
use leoflow_python::linked_venv;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Size limit of a record, in bytes.
const LIMIT: u64 = 4 * 1024 * 1024;

/// What the command has made for a repository, so that `--undo` removes that and nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The folder that was brought.
    folder: PathBuf,
    /// The links, each with its target.
    links: BTreeMap<PathBuf, PathBuf>,
    /// The files, each with the sha256 of its text; of two texts while the command runs.
    files: BTreeMap<PathBuf, BTreeSet<String>>,
    /// The variables, connections and pools, as `(kind, name)`, each with the sha256 of its values.
    entries: BTreeMap<String, BTreeMap<String, String>>,
}

impl Record {
    fn path(context: &Context<'_>, folder: &Path) -> PathBuf {
        context.home.brought().join(format!("{}.json", &sum(folder.as_os_str().as_encoded_bytes())[..16]))
    }

    /// Reads all records of the instance.
    fn all(context: &Context<'_>) -> Result<Vec<Self>, Error> {
        let read = |path: PathBuf| {
            let text = files::read_text(&path, LIMIT).map_err(Error::cannot("read", &path))?.unwrap_or_default();
            serde_json::from_str(&text).map_err(|error| {
                Error::failed(format!("the record {} cannot be read: {error}", path.display()))
                    .hint("nothing was changed; move it away: what it lists then stays until you remove it yourself")
            })
        };
        record_paths(&context.home).map(read).collect()
    }

    fn write(&self, context: &Context<'_>) -> Result<(), Error> {
        let path = Self::path(context, &self.folder);
        context
            .home
            .create_folder(&context.home.brought())
            .map_err(Error::cannot("create", &context.home.brought()))?;
        let text = serde_json::to_vec_pretty(self).map_err(Error::failed)?;
        files::write_atomic(&path, &text, 0o600).map_err(Error::cannot("write", &path))
    }

    /// True if the file has a text that the command wrote.
    fn is_unchanged(&self, path: &Path) -> bool {
        fs::read(path).is_ok_and(|text| self.files.get(path).is_some_and(|sums| sums.contains(&sum(&text))))
    }

    /// The links that still lead where the command let them lead.
    fn own_links(&self) -> impl Iterator<Item = &PathBuf> {
        let is_own = |(link, target): &(&PathBuf, &PathBuf)| fs::read_link(link).is_ok_and(|path| path == **target);
        self.links.iter().filter(is_own).map(|(link, _)| link)
    }
}

fn record_paths(home: &Home) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(home.brought()).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "json"))
}

/// The folders that were brought into an instance. Unreadable records are left out.
pub fn brought_folders(home: &Home) -> Vec<PathBuf> {
    let records = record_paths(home).filter_map(|path| files::read_json::<Record>(&path, LIMIT).ok().flatten());
    let mut folders: Vec<PathBuf> = records.map(|record| record.folder).collect();
    folders.sort();
    folders
}

fn new_files(plan: &ProjectPlan) -> impl Iterator<Item = &NewFile> {
    plan.settings.iter().chain(&plan.variables)
}

fn sum(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Refuses plans whose place in the workspace is taken, also by one another.
pub fn check_places(context: &Context<'_>, plans: &[ProjectPlan], repository: &Repository) -> Result<(), Error> {
    let records = Record::all(context)?;
    let hint = format!("choose another name: leoflow bring {} --name NAME", repository.folder.display());
    for (index, plan) in plans.iter().enumerate() {
        let Some(link) = &plan.link else { continue };
        if let Some(other) = plans[..index].iter().find(|other| other.name == plan.name) {
            let (first, second) = (other.folder.display(), plan.folder.display());
            return Err(Error::refused(format!("{first} and {second} would both be the project {}", plan.name))
                .hint("bring them one by one, each with --name NAME"));
        }
        let leads_there = fs::canonicalize(link).is_ok_and(|target| target == plan.folder);
        // The repository of a link of ours may have moved.
        let is_moved = !link.exists() && records.iter().any(|record| record.own_links().any(|own| own == link));
        if fs::symlink_metadata(link).is_ok() && !leads_there && !is_moved {
            return Err(Error::refused(format!("{} already exists", link.display())).hint(hint));
        }
    }
    Ok(())
}

/// Does what the plans say; returns the files that were changed by hand, which stay. Safe to repeat after an
/// interruption: a record of all that may exist comes first, and the links, which start the import of the DAGs, come
/// last.
pub async fn apply(
    context: &Context<'_>,
    plans: &[ProjectPlan],
    repository: &Repository,
    content: AirflowContent,
) -> Result<Vec<PathBuf>, Error> {
    let records = Record::all(context)?;
    let earlier = records.into_iter().find(|record| record.folder == repository.folder).unwrap_or_default();
    let (kept, written): (Vec<&NewFile>, Vec<&NewFile>) = plans.iter().flat_map(new_files).partition(|file| {
        let has_new_text = fs::read(&file.path).is_ok_and(|text| text == file.text.as_bytes());
        file.path.exists() && !earlier.is_unchanged(&file.path) && !has_new_text
    });
    let mut record =
        Record { folder: repository.folder.clone(), entries: earlier.entries.clone(), ..Record::default() };
    for (link, folder) in plans.iter().filter_map(|plan| Some((plan.link.clone()?, &plan.folder))) {
        // A link that the user made is not ours to remove.
        if earlier.links.contains_key(&link) || fs::symlink_metadata(&link).is_err() || !link.exists() {
            record.links.insert(link, folder.clone());
        }
    }
    for file in &written {
        record.files.insert(file.path.clone(), BTreeSet::from([sum(file.text.as_bytes())]));
    }
    let mut before = record.clone();
    before.links.extend(earlier.links.clone());
    for (path, sums) in &earlier.files {
        before.files.entry(path.clone()).or_default().extend(sums.clone());
    }
    before.write(context)?;
    if !content.has_no_entries() {
        let api = context.api();
        import::import_entries(&api, &content, OnExisting::Skip).await?;
        let mut stored = stored_entries(&api).await?;
        for (kind, names) in names_of(&content) {
            let all = stored.remove(kind).unwrap_or_default();
            let new = all.into_iter().filter(|(name, _)| names.contains(name));
            record.entries.entry(kind.to_owned()).or_default().extend(new);
        }
    }
    for link in earlier.own_links().filter(|link| !record.links.contains_key(*link)) {
        fs::remove_file(link).map_err(Error::cannot("remove", link))?;
    }
    let is_new = |path: &PathBuf| plans.iter().flat_map(new_files).any(|file| file.path == *path);
    for path in earlier.files.keys().filter(|path| !is_new(path) && earlier.is_unchanged(path)) {
        fs::remove_file(path).map_err(Error::cannot("remove", path))?;
    }
    for file in written {
        files::write_atomic(&file.path, file.text.as_bytes(), 0o600).map_err(Error::cannot("write", &file.path))?;
    }
    for (link, folder) in &record.links {
        if fs::symlink_metadata(link).is_ok() && !link.exists() {
            fs::remove_file(link).map_err(Error::cannot("remove", link))?;
        }
        if fs::symlink_metadata(link).is_err() {
            symlink(folder, link).map_err(Error::cannot("create", link))?;
        }
    }
    record.write(context)?;
    Ok(kept.into_iter().map(|file| file.path.clone()).collect())
}

/// The names of the variables, connections and pools in a content, by kind.
fn names_of(content: &AirflowContent) -> [(&'static str, BTreeSet<String>); 3] {
    [
        ("variables", content.variables.iter().map(|entry| entry.key.clone()).collect()),
        ("connections", content.connections.iter().map(|entry| entry.connection_id.clone()).collect()),
        ("pools", content.pools.iter().map(|entry| entry.name.clone()).collect()),
    ]
}

/// The stored variables, connections and pools, by kind and name, each with the sum of its values.
async fn stored_entries(api: &Api<'_>) -> Result<BTreeMap<&'static str, BTreeMap<String, String>>, Error> {
    let bulk = api.with_bulk_timeout();
    let of = |value: serde_json::Value| sum(value.to_string().as_bytes());
    let all: Vec<Variable> = bulk.get(variables::LOCAL).await?;
    let variables = all.into_iter().map(|entry| (entry.key.clone(), of(json!([entry.value, entry.description]))));
    let all: Vec<Connection> = bulk.get(connections::LOCAL).await?;
    let connections = all.into_iter().map(|entry| (entry.connection_id.clone(), of(json!(entry))));
    let all = api.all(pools::POOLS, "", "pools").await?;
    let pool = |entry: serde_json::Value| {
        Some((entry["name"].as_str()?.to_owned(), of(json!([entry["slots"], entry["description"]]))))
    };
    let pools = all.into_iter().filter_map(pool);
    Ok([("variables", variables.collect()), ("connections", connections.collect()), ("pools", pools.collect())].into())
}

/// Removes what the command has made for a folder, which may no longer exist.
pub async fn undo(context: &Context<'_>, args: &Bring) -> Result<u8, Error> {
    let path = env_vars::absolute(&args.path)?;
    let folders: Vec<PathBuf> = [Some(path.clone()), path.canonicalize().ok()].into_iter().flatten().collect();
    let is_meant = |record: &Record| {
        folders.iter().any(|folder| {
            record.folder == top_folder(folder) || record.links.iter().any(|(link, to)| link == folder || to == folder)
        })
    };
    let Some(record) = Record::all(context)?.into_iter().find(is_meant) else {
        let error = Error::failed(format!("{} was not brought into this instance", path.display()));
        return Err(match other_instance_of(&context.home, &path) {
            Some(name) => error.hint(format!("leoflow --instance {name} bring {} --undo", path.display())),
            None => error,
        });
    };
    let has_entries = record.entries.values().any(|entries| !entries.is_empty());
    let stored = if has_entries { stored_entries(&context.api()).await? } else { BTreeMap::new() };
    let links: Vec<&PathBuf> = record.own_links().collect();
    let projects: Vec<PathBuf> = links.iter().filter_map(|link| link.canonicalize().ok()).collect();
    let mut venvs = linked_venv::all(&context.home);
    venvs.retain(|venv| projects.iter().any(|project| venv.parent() == Some(project)));
    let (files, mut kept): (Vec<PathBuf>, Vec<PathBuf>) =
        record.files.keys().filter(|path| path.exists()).cloned().partition(|path| record.is_unchanged(path));
    let mut entries: Vec<(&str, &String)> = Vec::new();
    for (kind, names) in &record.entries {
        for (name, values) in names {
            match stored.get(kind.as_str()).and_then(|stored| stored.get(name)) {
                Some(now) if now == values => entries.push((kind, name)),
                Some(_) => kept.push(format!("{kind} {name}").into()),
                None => {}
            }
        }
    }
    let paths = links.iter().copied().chain(&files).chain(&venvs).map(|path| path.display().to_string());
    let lines: Vec<String> = paths.chain(entries.iter().map(|(kind, name)| format!("{kind} {name}"))).collect();
    if !args.dry_run {
        context.printer.note("This is removed; runs of its DAGs and their logs stay:");
        lines.iter().for_each(|line| context.printer.note(format!("  {line}")));
        context.require_confirmation("Remove it?", Confirmation::from(args.yes))?;
        for (kind, name) in &entries {
            context.api().delete(&format!("/api/v2/{kind}/{}", encode(name))).await?;
        }
        for project in venvs.iter().filter_map(|venv| venv.parent()) {
            if let Err(error) = linked_venv::unlink(&context.home, project) {
                context.printer.warning(format!("{error}; remove it by hand"));
            }
        }
        for path in links.iter().copied().chain(&files) {
            fs::remove_file(path).map_err(Error::cannot("remove", path))?;
        }
        let path = Record::path(context, &record.folder);
        fs::remove_file(&path).map_err(Error::cannot("remove", &path))?;
    }
    let report = json!({"removed": lines, "kept": kept, "dry_run": args.dry_run});
    context.printer.show(&report, |printer| {
        let verb = if args.dry_run { "Would remove" } else { "Removed" };
        lines.iter().for_each(|line| printer.line(format!("{verb} {line}")));
        kept.iter().for_each(|what| printer.note(format!("Kept {}, which was changed since", what.display())));
    })
}
