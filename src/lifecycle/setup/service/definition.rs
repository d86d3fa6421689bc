//! What a service starts, and the file that defines it for the service manager: for systemd a unit,
//! <https://www.freedesktop.org/software/systemd/man/latest/systemd.service.html>. Pure.

use super::manager::{HEAD, Manager};
use super::property_list;
use leoflow_base::protocol::child::SERVICE;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Definition of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    pub manager: Manager,
    /// Such as `leoflow` or `leoflow-NAME`.
    pub name: String,
    /// Canonical path of the home.
    pub home: PathBuf,
    pub program: PathBuf,
    /// `PATH` of the user's shell, which tasks inherit; the service manager's own is shorter.
    pub search_path: Option<String>,
}

/// Key that names the home.
const HOME_KEY: &str = "X-Leoflow-Home";
/// Prefix of the line with the search path; comparisons skip the line.
const UNIT_PATH: &str = "Environment=\"PATH=";
/// Returns the service's name: stable for a home, and unique.
pub fn name(home: &Path, user_home: &Path) -> String {
    let folder_name = home.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let sanitized = |name: &str| {
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '-' }).collect::<String>()
    };
    let is_in_user_home = home.parent() == Some(user_home);
    match folder_name.strip_prefix(".leoflow") {
        Some("") if is_in_user_home => "leoflow".to_owned(),
        Some(instance) if is_in_user_home && instance.starts_with('-') && sanitized(instance) == instance => {
            format!("leoflow{instance}")
        }
        _ => {
            let hash = hex::encode(Sha256::digest(home.to_string_lossy().as_bytes()));
            let folder_name: String = sanitized(folder_name.trim_start_matches('.')).chars().take(40).collect();
            let prefix = if folder_name.starts_with("leoflow") { "" } else { "leoflow-" };
            format!("{prefix}{folder_name}-{}", &hash[..8])
        }
    }
}

impl Definition {
    /// The manager's name of the service.
    pub fn unit(&self) -> String {
        match self.manager {
            Manager::Systemd => format!("{}.service", self.name),
            Manager::Launchd => property_list::label(&self.name),
        }
    }

    pub fn file_name(&self) -> String {
        match self.manager {
            Manager::Systemd => self.unit(),
            Manager::Launchd => format!("{}.plist", self.unit()),
        }
    }

    /// True when a file has the same settings. Ignores comments, which another release may word differently, and the
    /// search path, which depends on the shell that installed the file.
    pub fn is_same(&self, text: &str) -> bool {
        let mut without_path = self.clone();
        without_path.search_path = None;
        let skipped: &[&str] = match self.manager {
            Manager::Systemd => &[UNIT_PATH, "#"],
            Manager::Launchd => &[property_list::SEARCH_PATH, property_list::COMMENT],
        };
        let is_setting = |line: &&str| !skipped.iter().any(|start| line.trim_start().starts_with(start));
        text.lines().filter(is_setting).eq(without_path.text().lines().filter(is_setting))
    }

    /// Returns the home named in a file; `None` if the file is not ours.
    pub(crate) fn home_in(&self, text: &str) -> Option<String> {
        let value = |line: &str| line.strip_prefix(HOME_KEY)?.strip_prefix('=').map(str::to_owned);
        match self.manager {
            Manager::Systemd => text.lines().find_map(value),
            Manager::Launchd => property_list::home_in(text),
        }
    }

    /// Content of the file.
    pub fn text(&self) -> String {
        match self.manager {
            Manager::Systemd => self.unit_text(),
            Manager::Launchd => {
                property_list::text(&self.unit(), &self.program, &self.home, self.search_path.as_deref())
            }
        }
    }

    fn unit_text(&self) -> String {
        let path = |path: &Path| quoted(&path.to_string_lossy()).replace('$', "$$");
        let launcher = launcher(&self.program);
        let environment = match &self.search_path {
            Some(search_path) => format!("Environment={}\n", quoted(&format!("PATH={search_path}"))),
            None => String::new(),
        };
        format!(
            "# {HEAD}\n\
             [Unit]\n\
             Description=Leoflow Lite in {shown}\n\
             {HOME_KEY}={home_line}\n\
             ConditionPathExists={condition}\n\
             # Restart without limit: the cause may be temporary.\n\
             StartLimitIntervalSec=0\n\
             \n\
             [Service]\n\
             Type=notify\n\
             NotifyAccess=main\n\
             # env or sh runs the program, because systemd does not accept every path as a program.\n\
             ExecStart={launcher} {program} --home {home} lite\n\
             Environment={SERVICE}=1\n\
             {environment}\
             # A start may recover or migrate a database, which has its own time limits.\n\
             TimeoutStartSec=infinity\n\
             TimeoutStopSec=90\n\
             # The supervisor stops its processes. Tasks keep running and the next start adopts them.\n\
             KillMode=process\n\
             OOMPolicy=continue\n\
             SuccessExitStatus=130 143\n\
             Restart=on-failure\n\
             # Pauses grow to five minutes with systemd 254 or newer; older versions ignore both settings.\n\
             RestartSec=5\n\
             RestartSteps=6\n\
             RestartMaxDelaySec=300\n\
             # Usage errors, refusals that protect data, and a missing program: a restart cannot help.\n\
             RestartPreventExitStatus=2 3 126 127\n\
             \n\
             [Install]\n\
             WantedBy=default.target\n",
            shown = self.home.to_string_lossy().replace('%', "%%"),
            home_line = self.home.to_string_lossy(),
            condition = self.program.to_string_lossy().replace('%', "%%"),
            program = path(&self.program),
            home = path(&self.home),
        )
    }
}

/// Command that runs the program. `env` would read a path that contains `=` as a variable assignment.
fn launcher(program: &Path) -> &'static str {
    match program.to_string_lossy().contains('=') {
        true => "/bin/sh -c 'exec \"$$0\" \"$$@\"'",
        false => "/usr/bin/env",
    }
}

/// Quotes a word of a unit file.
fn quoted(text: &str) -> String {
    let escaped = text
        .chars()
        .map(|character| match character {
            '\\' => "\\\\".to_owned(),
            '"' => "\\\"".to_owned(),
            '\n' => "\\n".to_owned(),
            '%' => "%%".to_owned(),
            other => other.to_string(),
        })
        .collect::<String>();
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(home: &str) -> Definition {
        let home = PathBuf::from(home);
        Definition {
            manager: Manager::Systemd,
            name: name(&home, Path::new("/home/ada")),
            program: home.join("bin/leoflow"),
            search_path: Some("/home/ada/bin:/usr/bin".to_owned()),
            home,
        }
    }

    #[test]
    fn each_home_has_a_unique_name() {
        for (home, expected) in [
            ("/home/ada/.leoflow", "leoflow"),
            ("/home/ada/.leoflow-staging", "leoflow-staging"),
            ("/home/ada/.leoflow-a b", "leoflow-a-b-"),
            ("/srv/.leoflow", "leoflow-"),
            ("/home/ada/my flows", "leoflow-my-flows-"),
        ] {
            let service = name(Path::new(home), Path::new("/home/ada"));
            assert!(service.starts_with(expected), "{home}: {service}");
            assert_eq!(service.len() > expected.len(), expected.ends_with('-'), "{home}: {service}");
        }
        assert_ne!(name(Path::new("/a/x"), Path::new("/")), name(Path::new("/b/x"), Path::new("/")));
    }

    #[test]
    fn starts_the_linked_binary_with_its_home() {
        let unit = definition("/home/ada/.leoflow").text();
        assert!(unit.contains("\nType=notify\n"), "{unit}");
        let start = "\nExecStart=/usr/bin/env \"/home/ada/.leoflow/bin/leoflow\" --home \"/home/ada/.leoflow\" lite\n";
        assert!(unit.contains(start), "{unit}");
        assert!(unit.contains("\nEnvironment=\"PATH=/home/ada/bin:/usr/bin\"\n"), "{unit}");
    }

    #[test]
    fn quotes_any_path() {
        let unusual_path = definition("/home/ada/50% of $HOME \"x\\y\"");
        let expected = "--home \"/home/ada/50%% of $$HOME \\\"x\\\\y\\\"\" lite";
        assert!(unusual_path.text().contains(expected), "{}", unusual_path.text());
        let assignment = definition("/home/ada/a=b").text();
        let start =
            r#"ExecStart=/bin/sh -c 'exec "$$0" "$$@"' "/home/ada/a=b/bin/leoflow" --home "/home/ada/a=b" lite"#;
        assert!(assignment.lines().any(|line| line == start), "{assignment}");
    }

    #[test]
    fn a_file_names_its_home_and_ignores_the_search_path() {
        let ours = definition("/home/ada/.leoflow");
        let of_launchd = Definition { manager: Manager::Launchd, ..ours.clone() };
        assert_eq!(ours.home_in("[Service]\nExecStart=/bin/true\n"), None);
        assert_eq!(of_launchd.home_in("<plist><dict><key>Label</key><string>x</string></dict></plist>"), None);
        for ours in [ours, of_launchd] {
            assert_eq!(ours.home_in(&ours.text()).as_deref(), Some("/home/ada/.leoflow"));
            for search_path in [Some("/bin".to_owned()), None] {
                let other_shell = Definition { search_path, ..ours.clone() };
                assert!(ours.is_same(&other_shell.text()));
            }
            assert!(!ours.is_same(&ours.text().replace("bin/leoflow", "bin/other")));
            assert!(ours.is_same(&ours.text().replace("Made by", "Written by")));
        }
    }
}
