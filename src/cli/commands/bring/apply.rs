//! Does what the plan says, and undoes it.

use super::Bring;
use super::plan::{NewFile, ProjectPlan};
use super::repository::Repository;
use crate::airflow::airflow_content::AirflowContent;
use crate::airflow::import;
use crate::api_client::encode;
use crate::args::OnExisting;
use crate::context::{Confirmation, Context};
use crate::error::Error;
use leoflow_base::sys::fs::files;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Size limit of a record and of the files that the command writes, in bytes.
const LIMIT: u64 = 4 * 1024 * 1024;

/// What the command has made for a repository, so that `--undo` removes that and nothing else.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Record {
    /// The folder that was brought.
    folder: PathBuf,
    /// The links, each with its target.
    links: BTreeMap<PathBuf, PathBuf>,
    /// The files, each with the sha256 of its text.
    files: BTreeMap<PathBuf, String>,
    variables: Vec<String>,
    connections: Vec<String>,
    pools: Vec<String>,
}

impl Record {
    pub fn new(repository: &Repository, plans: &[ProjectPlan], content: &AirflowContent) -> Self {
        let links = plans.iter().filter_map(|plan| Some((plan.link.clone()?, plan.folder.clone())));
        let files = plans.iter().flat_map(new_files).map(|file| (file.path.clone(), sum(file.text.as_bytes())));
        Self {
            folder: repository.folder.clone(),
            links: links.collect(),
            files: files.collect(),
            variables: content.variables.iter().map(|entry| entry.key.clone()).collect(),
            connections: content.connections.iter().map(|entry| entry.connection_id.clone()).collect(),
            pools: content.pools.iter().map(|entry| entry.name.clone()).collect(),
        }
    }

    /// The file of the record of a folder.
    fn path(context: &Context<'_>, folder: &Path) -> PathBuf {
        let name = sum(folder.as_os_str().as_encoded_bytes());
        context.home.brought().join(format!("{}.json", &name[..16]))
    }

    fn read(context: &Context<'_>, folder: &Path) -> Result<Option<Self>, Error> {
        let path = Self::path(context, folder);
        let Some(text) = files::read_text(&path, LIMIT).map_err(Error::cannot("read", &path))? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|error| Error::failed(format!("{}: {error}", path.display())))
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

    /// True if the file still has the text that the command wrote.
    fn is_unchanged(&self, path: &Path) -> bool {
        fs::read(path).is_ok_and(|text| self.files.get(path) == Some(&sum(&text)))
    }

    /// Adds what an earlier run has made.
    fn with_earlier(mut self, earlier: Self) -> Self {
        for (mine, other) in [
            (&mut self.variables, earlier.variables),
            (&mut self.connections, earlier.connections),
            (&mut self.pools, earlier.pools),
        ] {
            let new = other.into_iter().filter(|name| !mine.contains(name)).collect::<Vec<_>>();
            mine.extend(new);
        }
        self
    }
}

fn new_files(plan: &ProjectPlan) -> impl Iterator<Item = &NewFile> {
    plan.settings.iter().chain(&plan.variables)
}

fn sum(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Refuses a plan whose place in the workspace is taken.
pub fn check_place(plan: &ProjectPlan, repository: &Repository) -> Result<(), Error> {
    let Some(link) = &plan.link else { return Ok(()) };
    let is_ours = fs::canonicalize(link).is_ok_and(|target| target == plan.folder);
    if fs::symlink_metadata(link).is_ok() && !is_ours {
        return Err(Error::refused(format!("{} already exists", link.display()))
            .hint(format!("choose another name: leoflow bring {} --name NAME", repository.folder.display())));
    }
    Ok(())
}

/// Does what the plans say. Safe to repeat after an interruption: the record comes first, and the links, which start the
/// import of the DAGs, come last.
pub async fn apply(
    context: &Context<'_>,
    plans: &[ProjectPlan],
    record: &Record,
    content: AirflowContent,
) -> Result<(), Error> {
    let earlier = Record::read(context, &record.folder)?.unwrap_or_default();
    let files: Vec<&NewFile> = plans.iter().flat_map(new_files).collect();
    for file in &files {
        // A file without a record is somebody's own.
        if file.path.exists()
            && !earlier.is_unchanged(&file.path)
            && fs::read_to_string(&file.path).ok().as_ref() != Some(&file.text)
        {
            return Err(Error::refused(format!("{} was changed by hand", file.path.display()))
                .hint("nothing was changed; move it away, run this again, and add your lines to the new one"));
        }
    }
    let obsolete: Vec<PathBuf> = earlier
        .files
        .keys()
        .filter(|path| !record.files.contains_key(*path) && earlier.is_unchanged(path))
        .cloned()
        .collect();
    let record = Record {
        files: record.files.clone(),
        links: record.links.clone(),
        folder: record.folder.clone(),
        ..Record::default()
    }
    .with_earlier(earlier)
    .with_earlier(Record {
        variables: record.variables.clone(),
        connections: record.connections.clone(),
        pools: record.pools.clone(),
        ..Record::default()
    });
    record.write(context)?;
    if !content.has_no_entries() {
        import::import_entries(&context.api(), &content, OnExisting::Skip).await?;
    }
    for path in obsolete {
        fs::remove_file(&path).map_err(Error::cannot("remove", &path))?;
    }
    for file in files {
        files::write_atomic(&file.path, file.text.as_bytes(), 0o600).map_err(Error::cannot("write", &file.path))?;
    }
    for (link, folder) in &record.links {
        if fs::symlink_metadata(link).is_err() {
            symlink(folder, link).map_err(Error::cannot("create", link))?;
        }
    }
    Ok(())
}

/// Removes what the command has made for the folder.
pub async fn undo(context: &Context<'_>, folder: &Path, args: &Bring) -> Result<u8, Error> {
    let Some(record) = Record::read(context, folder)? else {
        return Err(Error::failed(format!("{} was not brought into this instance", folder.display())));
    };
    let is_link = |(link, target): &(&PathBuf, &PathBuf)| fs::read_link(link).is_ok_and(|path| path == **target);
    let links: Vec<&PathBuf> = record.links.iter().filter(is_link).map(|(link, _)| link).collect();
    let (files, changed): (Vec<&PathBuf>, Vec<&PathBuf>) =
        record.files.keys().filter(|path| path.exists()).partition(|path| record.is_unchanged(path));
    let data: Vec<(&str, &String)> =
        [("variable", &record.variables), ("connection", &record.connections), ("pool", &record.pools)]
            .into_iter()
            .flat_map(|(kind, names)| names.iter().map(move |name| (kind, name)))
            .collect();
    let report = json!({
        "links": links, "files": files, "kept": changed, "variables": record.variables,
        "connections": record.connections, "pools": record.pools, "dry_run": args.dry_run,
    });
    let lines = || {
        let paths = links.iter().chain(&files).map(|path| path.display().to_string());
        paths.chain(data.iter().map(|(kind, name)| format!("{kind} {name}"))).collect::<Vec<_>>()
    };
    if !args.dry_run {
        context.printer.note("This is removed; runs of its DAGs and their logs stay:");
        lines().iter().for_each(|line| context.printer.note(format!("  {line}")));
        context.require_confirmation("Remove it?", Confirmation::from(args.yes))?;
        for path in links.iter().chain(&files) {
            fs::remove_file(path).map_err(Error::cannot("remove", path))?;
        }
        if !data.is_empty() {
            let api = context.api();
            for (kind, name) in &data {
                // It may have been removed since.
                let _ = api.delete(&format!("/api/v2/{kind}s/{}", encode(name))).await;
            }
        }
        let path = Record::path(context, folder);
        fs::remove_file(&path).map_err(Error::cannot("remove", &path))?;
    }
    context.printer.show(&report, |printer| {
        let verb = if args.dry_run { "Would remove" } else { "Removed" };
        lines().iter().for_each(|line| printer.line(format!("{verb} {line}")));
        for path in &changed {
            printer.note(format!("Kept {}, which was changed by hand", path.display()));
        }
    })
}
