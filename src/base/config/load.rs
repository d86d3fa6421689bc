//! Reads and checks one config file. Errors name the line and the allowed values.

use super::document::{Problem, line_of, line_of_subkey, show, to_mapping};
use super::keys::{Deprecated, KEYS, ValueError, scalar_text};
use super::origin::Origins;
use super::recipient::UnreadableSecret;
use super::renamed::rename_deprecated;
use super::{
    BackupSettings, DEFAULT_ADMIN_EMAIL, DEFAULT_MAX_MAP_LENGTH, DEFAULT_PORT, DEPRECATED, DatastoreSetting,
    HistorySettings, NotifySettings, SIZE_LIMIT, UpgradeSettings,
};
use crate::airflow_minors::{WebUi, preferred_ui, ui_of};
use crate::build_info;
use crate::protocol::log;
use crate::sys::fs::files;
use serde_yaml::{Mapping, Value};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use tracing::Level;

/// The settings with defaults filled in. Secrets have no default: setup decides whether a missing one is created or
/// must be restored from a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub instance_name: Option<String>,
    pub workspace: Option<PathBuf>,
    pub port: u16,
    /// Address that the web server listens on.
    pub host: Ipv4Addr,
    pub admin_email: String,
    pub admin_password_hash: Option<String>,
    /// Each session token contains this number and is valid only while it matches. A password reset raises it, which
    /// ends all sessions.
    pub session_epoch: u64,
    pub jwt_secret: Option<String>,
    pub encryption_key: Option<String>,
    pub python: Option<PathBuf>,
    /// The web UI that the server shows.
    pub web_ui: &'static WebUi,
    /// Maximum number of elements that a task's result may have for another task to be mapped over it.
    pub max_map_length: u64,
    /// Level of log messages.
    pub log_level: Level,
    /// Location of the data.
    pub datastore: DatastoreSetting,
    pub backup: BackupSettings,
    pub history: HistorySettings,
    pub notify: NotifySettings,
    pub upgrade: UpgradeSettings,
}

impl Config {
    /// Address at which this machine reaches its own web server.
    pub fn own_address(&self) -> Ipv4Addr {
        if self.host.is_unspecified() { Ipv4Addr::LOCALHOST } else { self.host }
    }
}

/// The settings of an instance, with the warnings about its config files.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    /// Warnings about `config.yaml`.
    pub warnings: Vec<Problem>,
    /// Text of `config.yaml`.
    pub text: String,
    /// Effective values by key. Deprecated keys have their new names. After `load_with_secrets`, references to secrets
    /// stored elsewhere are replaced by the secrets.
    pub(super) mapping: Mapping,
    /// Warnings about each override file.
    pub override_warnings: Vec<(PathBuf, Vec<Problem>)>,
    /// Origin of each value; empty if the overrides were not applied.
    pub origins: Origins,
}

impl Loaded {
    /// The keys in `config.yaml` as they are written there, also deprecated ones: `port`, `upgrade.channel`.
    pub fn written_keys(&self) -> Vec<String> {
        let mapping = to_mapping(&self.text).unwrap_or_default();
        let names = |(key, value): (&Value, &Value)| {
            let key = key.as_str().unwrap_or_default().to_owned();
            let subkeys = value.as_mapping().into_iter().flat_map(Mapping::keys).filter_map(Value::as_str);
            subkeys.map(|subkey| format!("{key}.{subkey}")).chain([key.clone()]).collect::<Vec<_>>()
        };
        mapping.iter().flat_map(names).collect()
    }

    /// Formats all warnings as `file:line: message`. `path` is the path of `config.yaml`.
    pub fn warning_lines(&self, path: &Path) -> Vec<String> {
        let override_warnings = self.override_warnings.iter().map(|(path, warnings)| (path.as_path(), warnings));
        let all_warnings = std::iter::once((path, &self.warnings)).chain(override_warnings);
        all_warnings
            .flat_map(|(path, warnings)| warnings.iter().map(move |warning| problem_line(path, warning)))
            .collect()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    /// A file with invalid values; the message has one line for each problem.
    #[error("{}", problem_lines(path, problems))]
    Invalid { path: PathBuf, problems: Vec<Problem> },
    /// An environment variable with an invalid value.
    #[error("{name} is not {allowed}")]
    EnvironmentVariable { name: String, allowed: String },
    /// A secret stored outside `config.yaml` that cannot be read; `line` has the reference to it.
    #[error("{}:{line}: {source}", path.display())]
    Secret { path: PathBuf, line: usize, source: UnreadableSecret },
}

/// Formats each problem as `file:line: message`, one per line.
fn problem_lines(path: &Path, problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(|problem| problem_line(path, problem)).collect();
    lines.join("\n")
}

fn problem_line(path: &Path, problem: &Problem) -> String {
    format!("{}:{}: {}", path.display(), problem.line.max(1), problem.message)
}

/// Reads the file at `path` without its overrides; `Ok(None)` if it does not exist.
pub fn read_file(path: &Path) -> Result<Option<Loaded>, ConfigError> {
    let text =
        files::read_text(path, SIZE_LIMIT).map_err(|source| ConfigError::Io { path: path.to_owned(), source })?;
    let Some(text) = text else { return Ok(None) };
    parse(&text, DEPRECATED).map(Some).map_err(|problems| ConfigError::Invalid { path: path.to_owned(), problems })
}

/// Checks `text` completely and reports all problems at once.
pub fn parse(text: &str, deprecated: &[Deprecated]) -> Result<Loaded, Vec<Problem>> {
    let mut mapping = to_mapping(text)?;
    let (mut problems, warnings) = check(&mut mapping, text, deprecated);
    if problems.is_empty() {
        return Ok(Loaded {
            config: Config::from(&mapping),
            warnings,
            text: text.to_owned(),
            mapping,
            override_warnings: Vec::new(),
            origins: Origins::new(),
        });
    }
    problems.sort_by_key(|problem| problem.line);
    Err(problems)
}

/// Returns the problems and the warnings of a file; replaces deprecated names in `mapping`.
pub(super) fn check(mapping: &mut Mapping, text: &str, deprecated: &[Deprecated]) -> (Vec<Problem>, Vec<Problem>) {
    let (mut problems, mut warnings) = rename_deprecated(mapping, text, deprecated, build_info::version());
    for (key, value) in &*mapping {
        let Some(name) = key.as_str() else {
            let message = format!("{} cannot be a key: a key must be text, such as port", show(key));
            problems.push(Problem { line: 0, message });
            continue;
        };
        let line = line_of(text, name);
        match KEYS.iter().find(|known| known.name == name) {
            None => warnings.push(Problem { line, message: format!("unknown key {name:?} is ignored") }),
            Some(known) => {
                for subkey in value.as_mapping().into_iter().flat_map(Mapping::keys) {
                    let subkey = subkey.as_str().map_or_else(|| show(subkey), str::to_owned);
                    if !known.subkeys.contains(&subkey.as_str()) {
                        let line = line_of_subkey(text, name, &subkey);
                        warnings.push(Problem { line, message: format!("unknown key \"{name}.{subkey}\" is ignored") });
                    }
                }
                if let Err(wrong) = known.check(value) {
                    let line = wrong.subkey.map_or(line, |subkey| line_of_subkey(text, name, subkey));
                    problems.push(Problem { line, message: describe(name, value, wrong) });
                }
            }
        }
    }
    (problems, warnings)
}

/// Describes a wrong value by its key and the allowed values. Shows the value only if it cannot be a secret.
pub(super) fn describe(name: &str, value: &Value, ValueError { subkey, allowed, reason }: ValueError) -> String {
    if let Some(reason) = reason {
        return format!("{name}: {reason}");
    }
    let nested = subkey.and_then(|subkey| Some((format!("{name}.{subkey}"), value.get(subkey)?)));
    let (name, value) = nested.unwrap_or_else(|| (name.to_owned(), value));
    let displayed = if HIDDEN_VALUES.contains(&name.as_str()) { "this value".to_owned() } else { show(value) };
    format!("{name}: {displayed} is not {allowed}")
}

/// Keys whose values may be secrets, or may contain one.
const HIDDEN_VALUES: [&str; 7] = [
    "jwt_secret",
    "encryption_key",
    "admin_password_hash",
    "backup.passphrase",
    "backup.identity",
    "datastore",
    "datastore.url",
];

impl From<&Mapping> for Config {
    /// Expects a mapping that has passed `check`; an invalid value counts as missing.
    fn from(mapping: &Mapping) -> Self {
        let text = |key: &str| mapping.get(key).and_then(Value::as_str).map(str::to_owned);
        let number = |key: &str| mapping.get(key).and_then(Value::as_u64);
        Self {
            instance_name: text("instance_name"),
            workspace: text("workspace").map(PathBuf::from),
            port: number("port").and_then(|port| port.try_into().ok()).unwrap_or(DEFAULT_PORT),
            host: text("host").and_then(|host| host.parse().ok()).unwrap_or(Ipv4Addr::LOCALHOST),
            admin_email: text("admin_email").unwrap_or_else(|| DEFAULT_ADMIN_EMAIL.to_owned()),
            admin_password_hash: text("admin_password_hash"),
            session_epoch: number("session_epoch").unwrap_or(1),
            jwt_secret: text("jwt_secret"),
            encryption_key: text("encryption_key"),
            python: text("python").map(PathBuf::from),
            web_ui: mapping.get("web_ui").and_then(|value| ui_of(&scalar_text(value))).unwrap_or_else(preferred_ui),
            max_map_length: number("max_map_length").unwrap_or(DEFAULT_MAX_MAP_LENGTH),
            log_level: text("log_level").and_then(|name| log::level(&name)).unwrap_or(Level::INFO),
            datastore: mapping
                .get("datastore")
                .and_then(|value| DatastoreSetting::read(value).ok())
                .unwrap_or_default(),
            backup: mapping.get("backup").and_then(|value| BackupSettings::read(value).ok()).unwrap_or_default(),
            history: mapping.get("history").and_then(|value| HistorySettings::read(value).ok()).unwrap_or_default(),
            notify: mapping.get("notify").and_then(|value| NotifySettings::read(value).ok()).unwrap_or_default(),
            upgrade: mapping.get("upgrade").and_then(|value| UpgradeSettings::read(value).ok()).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<(usize, String)> {
        match parse(text, &[]) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.into_iter().map(|p| (p.line, p.message)).collect(),
        }
    }

    #[test]
    fn invalid_values_are_reported_with_line_and_allowed_values() {
        let found = problems("# mine\nworkspace: relative\nport: 99999\n");
        assert_eq!(found[0], (2, "workspace: \"relative\" is not an absolute path".into()));
        assert_eq!(found[1], (3, "port: 99999 is not a port number from 1 to 65535".into()));
    }

    #[test]
    fn broken_files_are_reported() {
        for text in ["[1, 2]", "just words", "port: [", "a: 1\na: 2\n", "port: ''", "1: 2", "\u{0}", "port: 0x1FFFF"] {
            assert!(!problems(text).is_empty(), "{text:?}");
        }
    }

    #[test]
    fn a_secret_is_never_in_a_message() {
        let found = problems("jwt_secret: hunter2\n");
        assert!(!found[0].1.contains("hunter2"), "{}", found[0].1);
    }

    #[test]
    fn unknown_keys_are_ignored_with_a_warning() {
        let loaded = parse("port: 1\nfuture: {a: 1}\n", &[]).unwrap();
        assert_eq!(loaded.warnings, [Problem { line: 2, message: "unknown key \"future\" is ignored".into() }]);
        assert_eq!(parse("", &[]).unwrap().config.port, DEFAULT_PORT);
    }

    #[test]
    fn deprecated_keys_work_with_a_warning() {
        let table =
            [Deprecated { name: "http_port", replacement: "port", deprecated_in: "0.2.0", removed_in: "0.3.0" }];
        let loaded = parse("http_port: 9000\n", &table).unwrap();
        assert_eq!(loaded.config.port, 9000);
        assert_eq!(loaded.warnings[0].line, 1);
        assert_eq!(parse("http_port: 9000\nport: 9001\n", &table).unwrap().config.port, 9001);
        assert!(parse("http_port: no\n", &table).is_err(), "checked under its new name");
    }

    #[test]
    fn renamed_subkeys_work_with_a_warning_until_removed() {
        let text = "port: 1\nupgrade:\n  keep_versions: 2\n  contract_after: 90m\n";
        let loaded = parse(text, DEPRECATED).unwrap();
        assert_eq!(loaded.config.upgrade.cleanup_after.as_secs(), 5400);
        assert_eq!(loaded.config.upgrade.keep_versions, 2);
        assert_eq!(loaded.warnings.len(), 1);
        assert!(loaded.warnings[0].line == 4 && loaded.warnings[0].message.contains("use upgrade.cleanup_after"));
        assert_eq!(loaded.written_keys(), ["port", "upgrade.keep_versions", "upgrade.contract_after", "upgrade"]);
        let both = parse("upgrade: {contract_after: 90m, cleanup_after: 2h}\n", DEPRECATED).unwrap();
        assert_eq!(both.config.upgrade.cleanup_after.as_secs(), 7200);

        let rename = |version: &str| {
            let mut mapping = to_mapping(text).unwrap();
            let (problems, warnings) = rename_deprecated(&mut mapping, text, DEPRECATED, version);
            (problems.len(), warnings.len(), problems.first().map(|problem| problem.message.clone()))
        };
        assert_eq!(rename("0.2.9+abc"), (0, 1, None));
        let message = "upgrade.contract_after was removed in 0.3.0: use upgrade.cleanup_after";
        for version in ["0.3.0-rc.1", "0.3.0", "0.10.0", "1.0.0"] {
            assert_eq!(rename(version), (1, 0, Some(message.to_owned())), "{version}");
        }
    }
}
