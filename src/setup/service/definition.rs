//! The file that a service manager reads. Pure.
//!
//! <https://www.freedesktop.org/software/systemd/man/latest/systemd.service.html>,
//! <https://www.manpagez.com/man/5/launchd.plist/>

use crate::protocol::child::SERVICE;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Systemd,
    Launchd,
}

impl Kind {
    pub fn of_this_system() -> Self {
        if cfg!(target_os = "macos") { Self::Launchd } else { Self::Systemd }
    }
}

/// What a service runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    pub kind: Kind,
    /// `leoflow`, `leoflow-NAME`.
    pub name: String,
    /// The real path.
    pub home: PathBuf,
    pub program: PathBuf,
    /// For launchd, which has no journal.
    pub log: PathBuf,
    /// The user's, because tasks run with it: a manager's own is shorter.
    pub search_path: Option<String>,
}

/// Where a file says whose it is.
const HOME_KEY: &str = "X-Leoflow-Home";
const PLIST_HOME: &str = "<key>LeoflowHome</key>";
/// The search path is on a line of its own, because it is that of whoever installs it.
const UNIT_PATH: &str = "Environment=\"PATH=";
const PLIST_PATH: &str = "    <key>PATH</key>";
const HEAD: &str = "Made by `leoflow service install`; `leoflow service uninstall` removes it.";

/// The same for the same home always, and another for each.
pub fn name(home: &Path, user_home: &Path) -> String {
    let last = home.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let plain = |name: &str| {
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '-' }).collect::<String>()
    };
    let is_beside = home.parent() == Some(user_home);
    match last.strip_prefix(".leoflow") {
        Some("") if is_beside => "leoflow".to_owned(),
        Some(instance) if is_beside && instance.starts_with('-') && plain(instance) == instance => {
            format!("leoflow{instance}")
        }
        _ => {
            let hash = hex::encode(Sha256::digest(home.to_string_lossy().as_bytes()));
            let last: String = plain(last.trim_start_matches('.')).chars().take(40).collect();
            let prefix = if last.starts_with("leoflow") { "" } else { "leoflow-" };
            format!("{prefix}{last}-{}", &hash[..8])
        }
    }
}

impl Definition {
    /// What the manager calls it.
    pub fn unit(&self) -> String {
        match self.kind {
            Kind::Systemd => format!("{}.service", self.name),
            Kind::Launchd => format!("io.github.leoflow.{}", self.name),
        }
    }

    pub fn file_name(&self) -> String {
        match self.kind {
            Kind::Systemd => self.unit(),
            Kind::Launchd => format!("{}.plist", self.unit()),
        }
    }

    pub fn text(&self) -> String {
        match self.kind {
            Kind::Systemd => self.systemd(),
            Kind::Launchd => self.launchd(),
        }
    }

    /// Whether a file says the same. The search path does not count: it is that of the shell it was installed from.
    pub fn is_same(&self, text: &str) -> bool {
        let mut without_path = self.clone();
        without_path.search_path = None;
        let is_of_path = |line: &&str| !line.starts_with(UNIT_PATH) && !line.starts_with(PLIST_PATH);
        text.lines().filter(is_of_path).eq(without_path.text().lines())
    }

    /// The home that a file of ours is of; `None` for a file that is not.
    pub fn home_in(&self, text: &str) -> Option<String> {
        text.lines().find_map(|line| match self.kind {
            Kind::Systemd => line.strip_prefix(HOME_KEY)?.strip_prefix('=').map(str::to_owned),
            Kind::Launchd => {
                let text = line.trim().strip_prefix(PLIST_HOME)?.strip_prefix("<string>")?.strip_suffix("</string>")?;
                Some(text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
            }
        })
    }

    fn systemd(&self) -> String {
        let path = |path: &Path| quoted(&path.to_string_lossy()).replace('$', "$$");
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
             # It is started again for as long as it takes: what ended it may pass.\n\
             StartLimitIntervalSec=0\n\
             \n\
             [Service]\n\
             Type=notify\n\
             NotifyAccess=main\n\
             # By env, because systemd takes not every path for a program.\n\
             ExecStart=/usr/bin/env {program} --home {home} lite\n\
             Environment={SERVICE}=1\n\
             {environment}\
             # A start may have a database to recover or to migrate, with limits of its own.\n\
             TimeoutStartSec=infinity\n\
             TimeoutStopSec=90\n\
             # Its supervisor stops everything else itself. Tasks outlive it, and the next start takes them over.\n\
             KillMode=process\n\
             OOMPolicy=continue\n\
             SuccessExitStatus=130 143\n\
             Restart=on-failure\n\
             # The pauses grow to five minutes from systemd 254 on; older ones ignore the two settings.\n\
             RestartSec=5\n\
             RestartSteps=6\n\
             RestartMaxDelaySec=300\n\
             # Wrong use, a refusal to protect data, and a program that is gone: the same again would end the same.\n\
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

    fn launchd(&self) -> String {
        let path = |path: &Path| escaped(&path.to_string_lossy());
        let environment = match &self.search_path {
            Some(search_path) => {
                format!("{PLIST_PATH}<string>{}</string>\n", escaped(search_path))
            }
            None => String::new(),
        };
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
             <!-- {HEAD} -->\n\
             <plist version=\"1.0\">\n\
             <dict>\n  \
               {PLIST_HOME}<string>{home}</string>\n  \
               <key>Label</key><string>{label}</string>\n  \
               <key>ProgramArguments</key>\n  \
               <array><string>{program}</string><string>--home</string><string>{home}</string><string>lite</string></array>\n\
             \x20 <key>EnvironmentVariables</key>\n\
             \x20 <dict>\n\
             {environment}\
             \x20   <key>{SERVICE}</key><string>1</string>\n\
             \x20 </dict>\n  \
               <key>RunAtLoad</key><true/>\n  \
               <key>KeepAlive</key><dict><key>SuccessfulExit</key><false/></dict>\n  \
               <key>ThrottleInterval</key><integer>5</integer>\n  \
               <key>ExitTimeOut</key><integer>90</integer>\n  \
               <key>AbandonProcessGroup</key><true/>\n  \
               <key>StandardOutPath</key><string>{log}</string>\n  \
               <key>StandardErrorPath</key><string>{log}</string>\n\
             </dict>\n\
             </plist>\n",
            label = escaped(&self.unit()),
            program = path(&self.program),
            home = path(&self.home),
            log = path(&self.log),
        )
    }
}

/// One word of a unit file, whatever is in it.
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

/// Text within XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(kind: Kind, home: &str) -> Definition {
        let home = PathBuf::from(home);
        Definition {
            kind,
            name: name(&home, Path::new("/home/ada")),
            program: home.join("bin/leoflow"),
            log: home.join("logs/lite.log"),
            search_path: Some("/home/ada/bin:/usr/bin".to_owned()),
            home,
        }
    }

    #[test]
    fn each_home_has_a_name_of_its_own() {
        for (home, expected) in [
            ("/home/ada/.leoflow", "leoflow"),
            ("/home/ada/.leoflow-staging", "leoflow-staging"),
            ("/home/ada/.leoflow-a b", "leoflow-a-b-"),
            ("/srv/.leoflow", "leoflow-"),
            ("/home/ada/my flows", "leoflow-my-flows-"),
        ] {
            let found = name(Path::new(home), Path::new("/home/ada"));
            assert!(found.starts_with(expected), "{home}: {found}");
            assert_eq!(found.len() > expected.len(), expected.ends_with('-'), "{home}: {found}");
        }
        assert_ne!(name(Path::new("/a/x"), Path::new("/")), name(Path::new("/b/x"), Path::new("/")));
    }

    #[test]
    fn it_starts_what_the_link_leads_to_in_its_home() {
        let unit = definition(Kind::Systemd, "/home/ada/.leoflow").text();
        assert!(unit.contains("\nType=notify\n"), "{unit}");
        let start = "\nExecStart=/usr/bin/env \"/home/ada/.leoflow/bin/leoflow\" --home \"/home/ada/.leoflow\" lite\n";
        assert!(unit.contains(start), "{unit}");
        assert!(unit.contains("\nEnvironment=\"PATH=/home/ada/bin:/usr/bin\"\n"), "{unit}");
        let plist = definition(Kind::Launchd, "/home/ada/.leoflow").text();
        let arguments = "<array><string>/home/ada/.leoflow/bin/leoflow</string><string>--home</string>\
                         <string>/home/ada/.leoflow</string><string>lite</string></array>";
        assert!(plist.contains(arguments), "{plist}");
    }

    #[test]
    fn any_path_is_one_word() {
        let odd = definition(Kind::Systemd, "/home/ada/50% of $HOME \"x\\y\"");
        let expected = "--home \"/home/ada/50%% of $$HOME \\\"x\\\\y\\\"\" lite";
        assert!(odd.text().contains(expected), "{}", odd.text());
        let xml = definition(Kind::Launchd, "/home/ada/<&>").text();
        assert!(xml.contains("<string>/home/ada/&lt;&amp;&gt;</string>"), "{xml}");
    }

    #[test]
    fn a_file_says_whose_it_is_and_its_search_path_does_not_count() {
        for kind in [Kind::Systemd, Kind::Launchd] {
            let one = definition(kind, "/home/ada/.leoflow");
            assert_eq!(one.home_in(&one.text()).as_deref(), Some("/home/ada/.leoflow"), "{kind:?}");
            assert_eq!(one.home_in("[Service]\nExecStart=/bin/true\n"), None);
            let other_shell = Definition { search_path: Some("/bin".to_owned()), ..one.clone() };
            assert!(one.is_same(&other_shell.text()), "{kind:?}");
            assert!(!one.is_same(&one.text().replace("bin/leoflow", "bin/other")), "{kind:?}");
        }
    }
}
