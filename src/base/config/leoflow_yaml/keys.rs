//! The keys of `leoflow.yaml`, for the check of the file and for the reference page.

/// A key: its name, the type of its value, and its description.
#[derive(Debug)]
pub struct ProjectKey {
    pub name: &'static str,
    pub value: &'static str,
    pub help: &'static str,
}

const fn key(name: &'static str, value: &'static str, help: &'static str) -> ProjectKey {
    ProjectKey { name, value, help }
}

/// Top-level keys.
pub const PROJECT: &[ProjectKey] = &[
    key("schema_version", "\"1.0\"", "The version of this format."),
    key("dag_id", "text", "The DAG that `defaults` and `tasks` are for, where the folder has several."),
    key("description", "text", "The description of the DAG."),
    key("owner", "text", "The owner of its tasks."),
    key("tags", "list of texts", "Tags of the DAG."),
    key("python_version", "text", "The Python version of the environment, such as `\"3.12\"`, or a range."),
    key("airflow", "version", "Runs the DAGs with Apache Airflow's own SDK of this version, such as `3.3` or `3.3.2`."),
    key(
        "airflow_2",
        "true or false",
        "Runs files that were written for Airflow 2: translates imports, arguments and context keys that Airflow 3 \
         removed, and keeps the meaning of schedules.",
    ),
    key(
        "image_folder",
        "path",
        "The absolute path of the project's folder in a container image, such as `/opt/airflow`: imports and tasks see the \
         project's folder there.",
    ),
    key(
        "isolation",
        "shared or fresh",
        "`fresh` runs the DAG file again for each try. By default, tries that follow one another share one run of a file, if \
         that makes no difference.",
    ),
    key("dependencies", "list of texts", "Python packages of the environment, as requirements: `pandas>=2`."),
    key("additional_dependencies", "list of texts", "Python packages in addition to those that another file lists."),
    key(
        "ignored_requirements",
        "list of texts",
        "What is left out of the project's lists: names of packages, and files or addresses after `-r`, `-c` or `-e`.",
    ),
    key("requirements", "path", "A file of requirements, relative to the project's folder."),
    key(
        "constraints",
        "list of texts",
        "Version constraints for packages that are installed as dependencies of others.",
    ),
    key("index", "URL", "The package index that is used in place of the default one."),
    key("extra_index", "list of URLs", "Package indexes that are searched before the default one."),
    key("exclude_newer", "date or time", "Ignores packages that were published after this moment."),
    key("dag_source", "path", "The DAG file that the settings are for, relative to the project's folder."),
    key("defaults", "mapping", "Settings of every task of the DAG."),
    key(
        "history",
        "mapping",
        "How long the runs of the project's DAGs are kept, instead of `history` in `config.yaml`.",
    ),
    key(
        "notify",
        "list of rules",
        "Rules for notifications of the project's DAGs, in addition to those of `notify` in `config.yaml`.",
    ),
    key("tasks", "mapping", "Settings of single tasks, by task id; they take precedence over `defaults`."),
];

/// Keys inside each entry of `tasks`; `defaults` accepts all except `env`.
pub const TASK: &[ProjectKey] = &[
    key("retries", "whole number", "How often a task is retried after a failure."),
    key("retry_delay_seconds", "seconds", "The time between two tries."),
    key("execution_timeout_seconds", "seconds", "The time after which a try is ended as failed."),
    key("resources", "mapping of cpu, memory, disk, gpu", "Checked, but not enforced on one machine."),
    key("env", "mapping of texts", "Environment variables of the task. Only inside `tasks`."),
];

/// Keys inside `history`.
pub const HISTORY: &[ProjectKey] = &[
    key("keep_days", "whole number", "Runs that ended more than this many days ago are removed."),
    key(
        "keep_runs",
        "whole number",
        "The number of runs to keep, newest first; a run is kept if one of the two keeps it.",
    ),
];

/// Names of the keys in a table.
pub fn names(keys: &[ProjectKey]) -> Vec<&'static str> {
    keys.iter().map(|key| key.name).collect()
}

/// Names of the keys that `defaults` accepts.
pub(crate) fn default_names() -> Vec<&'static str> {
    names(TASK).into_iter().filter(|name| *name != "env").collect()
}
