//! `leoflow bring PATH`: runs the DAGs of a repository as it is.

mod apply;
mod checkout;
mod image;
mod own;
mod plan;
mod report;
mod repository;
mod requirements;
mod survey;

pub use self::apply::brought_folders;
use self::image::Image;
pub use self::own::other_instance_of;
use self::plan::{Places, ProjectPlan, Sources};
use self::repository::{Project, Repository};
use self::requirements::{LeftOut, Requirements};
use self::survey::Survey;
use crate::airflow::airflow_content::AirflowContent;
use crate::airflow::import::{ExistingNames, check_project_name};
use crate::args::OnExisting;
use crate::commands::engine::validate::{self, prepare_interpreter};
use crate::context::{Confirmation, Context};
use crate::error::Error;
use clap::Args;
use leoflow_base::sys::env_vars;
use leoflow_python::environments::{self, EnvironmentError, Loosened};
use leoflow_python::{Interpreter, declared_with};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
#[command(
    after_help = "The repository stays as it is: the workspace gets a link to each of its projects (folders with a\n\
                  folder `dags`), and beside the link a leoflow.yaml and variables, where they are needed. Run the\n\
                  command again after the repository has changed.\n\n\
                  Examples:\n  leoflow bring ~/src/sales             show the plan, and do it after a confirmation\n  \
                  leoflow bring ~/src/sales --dry-run   only show the plan\n  \
                  leoflow bring ~/src/sales --undo      remove what the command has made\n  \
                  leoflow bring ~/src/sales --own       run it apart from other repositories, with its own data"
)]
pub struct Bring {
    /// The repository, or one of its folders
    pub path: PathBuf,
    /// The name in the workspace, or with --own the name of the instance [default: the folder's name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Use an instance of its own for this folder, such as a worktree of a branch; it is created and started if needed,
    /// and has the name of the folder or of --name
    #[arg(long, conflicts_with_all = ["undo", "dry_run"])]
    pub own: bool,
    /// Remove what the command has made for this folder
    #[arg(long)]
    pub undo: bool,
    /// Print the plan and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Skip the confirmation prompt
    #[arg(long)]
    pub yes: bool,
}

pub async fn run(context: &Context<'_>, args: &Bring) -> Result<u8, Error> {
    if args.own {
        return own::run(context, args).await;
    }
    if args.undo {
        return apply::undo(context, args).await;
    }
    let config = context.config()?.map(|loaded| loaded.config).ok_or_else(Error::not_set_up)?;
    let workspace =
        config.workspace.ok_or_else(|| Error::failed("no workspace is configured").hint("leoflow setup"))?;
    let folder = folder(&args.path, &workspace)?;
    let name = args.name.as_deref();
    name.map_or(Ok(()), check_project_name)?;
    let (repository, is_in_workspace) = find(&folder, &workspace, name)?;
    let interpreter = prepare_interpreter(context, config.python.as_deref()).await?;
    let reading = Reading::new(context, &interpreter, &repository, args).await?;
    let uv = environments::find_uv(&context.home).map_or_else(|| PathBuf::from("uv"), |uv| uv.program);
    let links = |project: &Project| (!is_in_workspace).then(|| workspace.join(&project.name));
    let plans: Vec<ProjectPlan> = reading.plans(&repository, &uv, links);
    apply::check_places(context, &plans, &repository)?;
    let missing = checkout::missing(&repository);
    let report =
        report::Report { repository: &repository, plans: &plans, content: &reading.content, missing: &missing, args };
    if args.dry_run {
        return report.show(context, &[]);
    }
    report.print_plan(context.printer);
    context.require_confirmation("Do this?", Confirmation::from(args.yes))?;
    for kept in apply::apply(context, &plans, &repository, reading.content.clone()).await? {
        context.printer.warning(format!("{} was changed by hand and stays as it is", kept.display()));
    }
    let mut checked = Vec::new();
    for (plan, project) in plans.iter().zip(&repository.projects) {
        let place = plan.link.as_deref().unwrap_or(&plan.folder);
        let below = |file: &PathBuf| file.strip_prefix(&project.folder).map(|file| place.join(file)).ok();
        let files = project.dag_files.iter().filter_map(below).collect();
        checked.extend(validate::check_files(context, &interpreter, files, Some(&workspace)).await);
    }
    report.show(context, &checked)
}

/// The folder to bring, without links.
fn canonical_folder(path: &Path) -> Result<PathBuf, Error> {
    let path = env_vars::absolute(path)?;
    let folder = path.canonicalize().map_err(Error::cannot("read", &path))?;
    let folder = repository::top_folder(&folder).to_owned();
    match folder.is_dir() {
        true => Ok(folder),
        false => {
            Err(Error::usage(format!("{} is not a folder", folder.display())).hint("name the repository's folder"))
        }
    }
}

/// The folder to bring, which must not contain the workspace.
fn folder(path: &Path, workspace: &Path) -> Result<PathBuf, Error> {
    let folder = canonical_folder(path)?;
    let workspace = workspace.canonicalize().unwrap_or_else(|_| workspace.to_owned());
    if workspace.starts_with(&folder) {
        return Err(Error::refused(format!("{} contains the workspace", folder.display()))
            .hint("name the repository's folder, or one of its folders"));
    }
    Ok(folder)
}

/// Finds the projects; `true` if they are in the workspace already.
fn find(folder: &Path, workspace: &Path, name: Option<&str>) -> Result<(Repository, bool), Error> {
    let real_workspace = workspace.canonicalize().unwrap_or_else(|_| workspace.to_owned());
    let in_workspace = folder.strip_prefix(&real_workspace).ok().and_then(|relative| relative.iter().next());
    let repository = match in_workspace {
        // A folder of the workspace is one project, whatever folders it has.
        Some(first) => {
            let project = workspace.join(first);
            let mut repository = Repository::find(&project, name)?;
            let dag_files = repository.projects.iter().flat_map(|project| project.dag_files.clone()).collect();
            repository.projects =
                vec![Project { name: first.to_string_lossy().into_owned(), folder: project, dag_files }];
            repository
        }
        None => Repository::find(folder, name)?,
    };
    if repository.projects.iter().all(|project| project.dag_files.is_empty()) {
        return Err(without_dags(folder));
    }
    Ok((repository, in_workspace.is_some()))
}

fn without_dags(folder: &Path) -> Error {
    Error::failed(format!("{} has no DAG files", folder.display()))
        .hint("a DAG file is a .py file with the words `dag` and `airflow` in it, outside of tests and plugins, or a .yaml file with \
               Airflow's schema of DAGs")
}

/// What was read about a repository.
struct Reading {
    surveys: Vec<Survey>,
    images: Vec<Image>,
    requirements: Vec<Requirements>,
    /// Connections, variables and pools of files in the repository that do not exist yet.
    content: AirflowContent,
    known_variables: BTreeSet<String>,
    known_connections: BTreeSet<String>,
    is_running: bool,
}

impl Reading {
    async fn new(
        context: &Context<'_>,
        interpreter: &Interpreter,
        repository: &Repository,
        args: &Bring,
    ) -> Result<Self, Error> {
        let projects = &repository.projects;
        let images: Vec<Image> =
            projects.iter().map(|project| Image::read(&repository.folders_down_to(project))).collect();
        let with_folders: Vec<(&Project, Vec<PathBuf>)> = projects
            .iter()
            .zip(&images)
            .map(|(project, image)| (project, Places { repository, project, image }.import_folders()))
            .collect();
        let surveys = survey::read(interpreter, repository, &with_folders).await?;
        let mut content = AirflowContent::default();
        let folders = projects.iter().flat_map(|project| repository.folders_down_to(project));
        for folder in folders.collect::<BTreeSet<&Path>>() {
            crate::airflow::from_home::add_data_files(folder, &mut content)?;
        }
        let mut requirements = Vec::new();
        for (project, (image, survey)) in projects.iter().zip(images.iter().zip(&surveys)) {
            let mut read = requirements::read(repository, project, image.airflow_version().as_deref());
            fit_versions(context, interpreter, (repository, project, survey, image), &mut read);
            requirements.push(read);
        }
        let is_running = context.home.api_socket().exists();
        let existing = match is_running {
            true => ExistingNames::read(&context.api()).await?,
            false => ExistingNames::default(),
        };
        existing.retain_new(&mut content, OnExisting::Skip)?;
        keep_nearest(&mut content);
        if !args.dry_run && !content.has_no_entries() && !is_running {
            return Err(Error::failed(
                "Leoflow is not running, which imports the repository's connections and variables",
            )
            .hint("leoflow lite start"));
        }
        let known_variables =
            content.variables.iter().map(|entry| entry.key.clone()).chain(existing.variables).collect();
        let known_connections =
            content.connections.iter().map(|entry| entry.connection_id.clone()).chain(existing.connections).collect();
        Ok(Self { surveys, images, requirements, content, known_variables, known_connections, is_running })
    }

    fn plans(
        &self,
        repository: &Repository,
        uv: &Path,
        link: impl Fn(&Project) -> Option<PathBuf>,
    ) -> Vec<ProjectPlan> {
        let parts = self.surveys.iter().zip(&self.images).zip(&self.requirements);
        let plan = |(project, ((survey, image), requirements)): (&Project, _)| {
            let in_env = leoflow_python::variables_of(&project.folder.join(".env"));
            plan::plan(Sources {
                places: Places { repository, project, image },
                survey,
                requirements,
                in_env: &in_env.into_iter().map(|(name, _)| name).collect(),
                known_variables: &self.known_variables,
                known_connections: &self.known_connections,
                is_running: self.is_running,
                link: link(project),
                uv,
                json_files: &repository.json_files(project),
                env_above: &plan::env_above(repository, project),
            })
        };
        repository.projects.iter().zip(parts).map(plan).collect()
    }
}

/// Of entries with one name, keeps that of the folder nearest to the DAG files, which was read last.
fn keep_nearest(content: &mut AirflowContent) {
    fn last<T>(entries: &mut Vec<T>, name: impl Fn(&T) -> String) {
        let mut seen = BTreeSet::new();
        entries.reverse();
        entries.retain(|entry| seen.insert(name(entry)));
        entries.reverse();
    }
    last(&mut content.variables, |entry| entry.key.clone());
    last(&mut content.connections, |entry| entry.connection_id.clone());
    last(&mut content.pools, |entry| entry.name.clone());
}

/// Leaves out the versions in the project's lists that do not fit Airflow 3 or this Python, and limits packages to
/// versions that can be installed here.
fn fit_versions(
    context: &Context<'_>,
    interpreter: &Interpreter,
    (repository, project, survey, image): (&Repository, &Project, &Survey, &Image),
    requirements: &mut Requirements,
) {
    let text = plan::settings_text(survey, image, requirements);
    let declared = declared_with(&requirements::request(project), &text);
    let Some(declared) = declared.ok().flatten().filter(|declared| !declared.requirements.is_empty()) else { return };
    let fit = interpreter.python().map_err(EnvironmentError::from).and_then(|python| {
        let python = environments::choose(&context.home, &declared, &python).unwrap_or(python);
        environments::fit(&context.home, &declared, &python, context.printer)
    });
    match fit {
        Ok(fit) => {
            requirements.limits = fit.limits;
            let is_added = |pin: &Loosened| requirements.added.iter().any(|(line, _)| *line == pin.line);
            let (of_added, of_lists): (Vec<Loosened>, Vec<Loosened>) = fit.loosened.into_iter().partition(is_added);
            for (line, _) in &mut requirements.added {
                if of_added.iter().any(|pin| pin.line == *line) {
                    *line = environments::without_versions(line);
                }
            }
            let left_out = of_lists.iter().map(|pin| LeftOut {
                entry: environments::name_of(&pin.line),
                place: declared
                    .origins
                    .get(&pin.line)
                    .map(|file| repository.place(file, &pin.line))
                    .unwrap_or_default(),
                why: format!("{}: version {} fits the other packages and this Python", pin.line, pin.version),
                instead: declared.requirements.contains(&pin.line).then(|| environments::without_versions(&pin.line)),
            });
            requirements.left_out.extend(left_out);
        }
        Err(error) => requirements.error = Some(error.into()),
    }
}
