//! What to do, given what is there. Pure: `--dry-run` prints it, tests read it, `apply` follows it.

use super::facts::{ConfigFact, Facts};
use super::receipt::Receipt;
use crate::config::DatastoreSetting;
use crate::postgres::cluster::ClusterState;
use crate::postgres::{MAJOR, NEWEST, version};
use std::fmt;
use std::path::{Path, PathBuf};

/// What the user asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    pub port: Option<u16>,
    /// Given on the command line, not defaulted.
    pub workspace: Option<PathBuf>,
    /// Where the data of a new home shall be.
    pub datastore: Option<DatastoreSetting>,
    /// `setup` always installs the running binary and writes the port down; `lite` installs only
    /// where nothing is, and takes the port for this run.
    pub install_always: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Secrets, the admin's password, the workspace, the port.
    WriteConfig,
    /// What the config lacks, comments and all else untouched.
    CompleteConfig {
        keys: Vec<&'static str>,
    },
    SetPort {
        port: u16,
    },
    AcquirePostgres,
    /// To the newest minor version; without it the one in use stays.
    UpdatePostgres {
        from: String,
    },
    /// Packages that DAG files expect; a DAG that needs none runs without them.
    AcquirePackages,
    /// Airflow's web UI; without it everything else works.
    AcquireUi,
    CreateCluster,
    /// Into the config of a home that has no datastore yet.
    SetDatastore {
        setting: DatastoreSetting,
    },
    /// To a server that somebody else looks after.
    UseDatastore {
        setting: DatastoreSetting,
    },
    InstallBinary {
        version: String,
    },
    MakeWorkspace {
        path: PathBuf,
    },
    /// An empty folder that is there already.
    AdoptWorkspace {
        path: PathBuf,
    },
    WriteReceipt,
}

const MAKE_WORKSPACE: &str = "make-workspace";

impl Step {
    /// For the journal and for checkpoints.
    pub fn name(&self) -> &'static str {
        match self {
            Self::WriteConfig => "write-config",
            Self::CompleteConfig { .. } => "complete-config",
            Self::AcquirePostgres => "acquire-postgres",
            Self::UpdatePostgres { .. } => "update-postgres",
            Self::AcquirePackages => "acquire-packages",
            Self::AcquireUi => "acquire-ui",
            Self::CreateCluster => "create-cluster",
            Self::SetDatastore { .. } => "set-datastore",
            Self::UseDatastore { .. } => "use-datastore",
            Self::InstallBinary { .. } => "install-binary",
            Self::SetPort { .. } => "set-port",
            Self::MakeWorkspace { .. } => MAKE_WORKSPACE,
            Self::AdoptWorkspace { .. } => "adopt-workspace",
            Self::WriteReceipt => "write-receipt",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WriteConfig => f.write_str("write config.yaml with new secrets and an admin password"),
            Self::CompleteConfig { keys } => write!(f, "add {} to config.yaml", keys.join(", ")),
            Self::AcquirePostgres => write!(f, "get PostgreSQL {MAJOR}"),
            Self::UpdatePostgres { from } => write!(f, "update PostgreSQL from {from} to {NEWEST}"),
            Self::AcquirePackages => f.write_str("get jinja2 and pendulum for DAGs"),
            Self::AcquireUi => f.write_str("get Airflow's web UI"),
            Self::CreateCluster => f.write_str("create the datastore"),
            Self::SetDatastore { setting } => write!(f, "set datastore to {setting} in config.yaml"),
            Self::UseDatastore { setting } => write!(f, "keep the data in {setting}"),
            Self::InstallBinary { version } => write!(f, "install leoflow {version}"),
            Self::SetPort { port } => write!(f, "set port to {port} in config.yaml"),
            Self::MakeWorkspace { path } => write!(f, "create the workspace {}", path.display()),
            Self::AdoptWorkspace { path } => write!(f, "use the empty folder {} as the workspace", path.display()),
            Self::WriteReceipt => f.write_str("write setup.json"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub workspace: PathBuf,
    /// Of an instance that was set up by its name.
    pub instance_name: Option<String>,
    /// An earlier run was interrupted; this one finishes it.
    pub resumes: bool,
    /// Whether setup makes the workspace's folder, now or in the run that was interrupted.
    pub made_workspace: bool,
    /// Whether the password that the config has was ever shown. A receipt that is lost (and not
    /// just not yet written) leaves the password as it is.
    pub password_known: bool,
}

impl Plan {
    /// The datastore that it begins to use, where that is not under the home.
    pub fn other_datastore(&self) -> Option<&DatastoreSetting> {
        self.steps.iter().find_map(|step| match step {
            Step::UseDatastore { setting } => Some(setting),
            _ => None,
        })
    }

    /// Whether all that is missing may come in beside a running instance.
    pub fn is_only_extras(&self) -> bool {
        let is_extra =
            |step: &Step| matches!(step, Step::AcquirePackages | Step::AcquireUi | Step::UpdatePostgres { .. });
        !self.resumes && !self.steps.is_empty() && self.steps.iter().all(is_extra)
    }
}

/// Why nothing may be done: doing it would lose something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{0}/managed-postgres/data is of PostgreSQL {1}; this release runs {MAJOR}")]
    OtherMajor(PathBuf, String),
    #[error("{0}/managed-postgres/data is not a datastore: {1}")]
    NotACluster(PathBuf, String),
    #[error("there is a datastore in {home}, but config.yaml has no {key}, which it cannot be opened without")]
    SecretLost { home: PathBuf, key: &'static str },
    #[error(
        "there is a datastore in {0}, but managed-postgres/credentials.json is gone, which it cannot be opened without"
    )]
    CredentialsLost(PathBuf),
    #[error("the data of this home is in {recorded}, and {asked} was asked for")]
    OtherDatastore { recorded: String, asked: String },
    #[error("the workspace is {configured}, as config.yaml says, not {asked}")]
    OtherWorkspace { configured: PathBuf, asked: PathBuf },
}

/// Either every step that is missing, in order, or why none may be taken.
pub fn plan(facts: &Facts, wishes: &Wishes) -> Result<Plan, Refusal> {
    let has_data = match &facts.cluster {
        ClusterState::OtherMajor(major) => return Err(Refusal::OtherMajor(facts.home.clone(), major.clone())),
        ClusterState::NotACluster(why) => return Err(Refusal::NotACluster(facts.home.clone(), why.clone())),
        ClusterState::Ready => true,
        ClusterState::Absent => false,
    };
    if let Some(refusal) = refusal(facts, wishes, has_data) {
        return Err(refusal);
    }
    let workspace = wishes.workspace.clone().unwrap_or_else(|| facts.workspace.clone());
    let steps = steps(facts, wishes, has_data, &workspace);
    // A folder with something in it was not made by a setup that did not even finish.
    let had_begun = |name: &str| facts.workspace_is_empty && facts.unfinished.iter().flatten().any(|step| step == name);
    let makes_workspace = steps.iter().any(|step| step.name() == MAKE_WORKSPACE) || had_begun(MAKE_WORKSPACE);
    let password_known = match &facts.receipt {
        Some(receipt) => receipt.password_shown,
        None => facts.unfinished.is_none(),
    };
    // Setup made that one, and not whichever config.yaml names by now.
    let made_before = |receipt: &Receipt| receipt.made_workspace && receipt.workspace == workspace;
    let made_workspace = makes_workspace || facts.receipt.as_ref().is_some_and(made_before);
    Ok(Plan {
        workspace,
        instance_name: facts.instance_name.clone(),
        resumes: facts.unfinished.is_some(),
        made_workspace,
        password_known,
        steps,
    })
}

/// What is there could not be opened any more, or is not what was asked for.
fn refusal(facts: &Facts, wishes: &Wishes, has_data: bool) -> Option<Refusal> {
    if has_data && !facts.credentials_present {
        return Some(Refusal::CredentialsLost(facts.home.clone()));
    }
    if let Some(refusal) = other_datastore(facts, wishes, has_data) {
        return Some(refusal);
    }
    // A new encryption key would make every stored secret unreadable, for ever.
    if has_data && missing_keys(facts).contains(&"encryption_key") {
        return Some(Refusal::SecretLost { home: facts.home.clone(), key: "encryption_key" });
    }
    let (ConfigFact::Present(config), Some(asked)) = (&facts.config, &wishes.workspace) else { return None };
    let configured = config.workspace.as_ref().filter(|configured| *configured != asked)?;
    Some(Refusal::OtherWorkspace { configured: configured.clone(), asked: asked.clone() })
}

/// Data does not move by another word in the config.
fn other_datastore(facts: &Facts, wishes: &Wishes, has_data: bool) -> Option<Refusal> {
    let asked = wishes.datastore.as_ref().unwrap_or(&facts.datastore);
    let is_other = match &facts.place {
        Some(_) => !facts.place_is_configured || *asked != facts.datastore,
        None => has_data && *asked != DatastoreSetting::Managed,
    };
    is_other.then(|| Refusal::OtherDatastore {
        recorded: facts.place.as_ref().map_or("the datastore under it".to_owned(), |place| place.shown.clone()),
        asked: asked.to_string(),
    })
}

fn steps(facts: &Facts, wishes: &Wishes, has_data: bool, workspace: &Path) -> Vec<Step> {
    let mut steps = config_steps(facts, wishes);
    if facts.installation.is_none() {
        steps.push(Step::AcquirePostgres);
    }
    if !has_data {
        steps.push(match wishes.datastore.as_ref().unwrap_or(&facts.datastore) {
            DatastoreSetting::Managed => Step::CreateCluster,
            setting => Step::UseDatastore { setting: setting.clone() },
        });
    }
    let other_installed =
        facts.installed_version.as_ref() != Some(&facts.own_version) || !facts.own_version_is_installed;
    if facts.installed_version.is_none() || (wishes.install_always && other_installed) {
        steps.push(Step::InstallBinary { version: facts.own_version.clone() });
    }
    if !facts.workspace_exists {
        steps.push(Step::MakeWorkspace { path: workspace.to_owned() });
    } else if facts.workspace_is_empty && facts.receipt.is_none() {
        steps.push(Step::AdoptWorkspace { path: workspace.to_owned() });
    }
    let has_others = facts.receipt.is_none() || !steps.is_empty();
    // Last of all, so that it goes on beside everything before it. A start that has nothing else to fetch does
    // not wait for it: the server sees to it then.
    let fetches = facts.installation.is_none() && facts.postgres_is_far;
    if !facts.packages_present && (fetches || wishes.install_always) {
        steps.push(Step::AcquirePackages);
    }
    if !facts.ui_present && (fetches || wishes.install_always) {
        steps.push(Step::AcquireUi);
    }
    // A start does not wait for a download that it can do without.
    let behind = facts.installation.as_ref().filter(|found| version::is_behind(&found.version));
    if let Some(found) = behind.filter(|_| wishes.install_always) {
        steps.push(Step::UpdatePostgres { from: found.version.clone() });
    }
    if has_others {
        steps.push(Step::WriteReceipt);
    }
    steps
}

fn config_steps(facts: &Facts, wishes: &Wishes) -> Vec<Step> {
    let ConfigFact::Present(config) = &facts.config else { return vec![Step::WriteConfig] };
    let missing = missing_keys(facts);
    let complete = (!missing.is_empty()).then_some(Step::CompleteConfig { keys: missing });
    let port = wishes.port.filter(|port| wishes.install_always && config.port != *port);
    let asked = wishes.datastore.clone().filter(|asked| *asked != facts.datastore);
    let datastore = asked.map(|setting| Step::SetDatastore { setting });
    complete.into_iter().chain(datastore).chain(port.map(|port| Step::SetPort { port })).collect()
}

/// Keys that setup makes and the config has not.
fn missing_keys(facts: &Facts) -> Vec<&'static str> {
    let ConfigFact::Present(config) = &facts.config else { return vec!["encryption_key"] };
    let present = [
        ("instance_name", config.instance_name.is_some()),
        ("workspace", config.workspace.is_some()),
        ("admin_password_hash", config.admin_password_hash.is_some()),
        ("jwt_secret", config.jwt_secret.is_some()),
        ("encryption_key", config.encryption_key.is_some()),
    ];
    present.into_iter().filter(|(_, there)| !there).map(|(key, _)| key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::postgres::Installation;
    use crate::setup::Receipt;

    fn empty() -> Facts {
        Facts {
            postgres_is_far: true,
            packages_present: true,
            ui_present: true,
            instance_name: None,
            home: "/h".into(),
            config: ConfigFact::Absent,
            receipt: None,
            cluster: ClusterState::Absent,
            datastore: DatastoreSetting::Managed,
            place: None,
            place_is_configured: true,
            credentials_present: false,
            installation: None,
            installed_version: None,
            own_version: "1".into(),
            own_version_is_installed: false,
            workspace: "/w".into(),
            workspace_exists: false,
            workspace_is_empty: false,
            unfinished: None,
        }
    }

    fn complete() -> Facts {
        let key = "ab".repeat(32);
        let text = format!(
            "instance_name: a\nworkspace: /w\nadmin_password_hash: '$argon2id$x'\njwt_secret: '{key}'\nencryption_key: '{key}'\n"
        );
        Facts {
            config: ConfigFact::Present(Box::new(config::parse(&text, &[]).unwrap().config)),
            receipt: Some(Receipt {
                receipt_version: 1,
                leoflow_version: "1".into(),
                set_up_at: String::new(),
                home: "/h".into(),
                workspace: "/w".into(),
                made_workspace: true,
                password_shown: true,
                shell_files: vec![],
                service: None,
            }),
            cluster: ClusterState::Ready,
            credentials_present: true,
            installation: Some(Installation {
                version: NEWEST.into(),
                bin: "/b".into(),
                source: "x".into(),
                sha256: None,
            }),
            installed_version: Some("1".into()),
            own_version_is_installed: true,
            workspace_exists: true,
            ..empty()
        }
    }

    fn names(facts: &Facts, wishes: &Wishes) -> Vec<&'static str> {
        plan(facts, wishes).unwrap().steps.iter().map(Step::name).collect()
    }

    #[test]
    fn packages_come_with_the_first_setup_and_by_themselves_beside_what_runs() {
        let first = plan(&Facts { packages_present: false, ..empty() }, &Wishes::default()).unwrap();
        assert!(first.steps.contains(&Step::AcquirePackages) && !first.is_only_extras());
        assert_eq!(first.steps.last(), Some(&Step::WriteReceipt));
        assert!(!plan(&empty(), &Wishes::default()).unwrap().steps.contains(&Step::AcquirePackages));
        // A start that has nothing else to wait for leaves them to the server.
        let near = Facts { packages_present: false, postgres_is_far: false, ..empty() };
        assert!(!plan(&near, &Wishes::default()).unwrap().steps.contains(&Step::AcquirePackages));
        let setup = Wishes { install_always: true, ..Wishes::default() };
        assert!(plan(&near, &setup).unwrap().steps.contains(&Step::AcquirePackages));
    }

    #[test]
    fn setup_updates_an_older_minor_version_beside_what_runs() {
        let installation = complete().installation.map(|found| Installation { version: "18.4".into(), ..found });
        let facts = Facts { installation, ..complete() };
        let setup = Wishes { install_always: true, ..Wishes::default() };
        let planned = plan(&facts, &setup).unwrap();
        assert_eq!(planned.steps, [Step::UpdatePostgres { from: "18.4".into() }]);
        assert!(planned.is_only_extras());
        assert!(names(&facts, &Wishes::default()).is_empty(), "a start fetches nothing");
    }

    #[test]
    fn nothing_there_means_everything_and_everything_there_means_nothing() {
        let all =
            ["write-config", "acquire-postgres", "create-cluster", "install-binary", "make-workspace", "write-receipt"];
        assert_eq!(names(&empty(), &Wishes::default()), all);
        assert!(names(&complete(), &Wishes { install_always: true, ..Wishes::default() }).is_empty());
    }

    #[test]
    fn what_an_interrupted_run_had_done_is_not_done_again() {
        let facts = Facts { receipt: None, installation: None, unfinished: Some(vec![]), ..complete() };
        let plan = plan(&facts, &Wishes::default()).unwrap();
        assert!(plan.resumes);
        assert_eq!(plan.steps.iter().map(Step::name).collect::<Vec<_>>(), ["acquire-postgres", "write-receipt"]);
    }

    #[test]
    fn a_datastore_is_never_given_new_secrets() {
        for facts in [Facts { config: ConfigFact::Absent, ..complete() }, {
            let blank = config::parse("", &[]).unwrap().config;
            Facts { config: ConfigFact::Present(Box::new(blank)), ..complete() }
        }] {
            assert!(matches!(plan(&facts, &Wishes::default()), Err(Refusal::SecretLost { .. })));
        }
        let facts = Facts { credentials_present: false, ..complete() };
        assert!(matches!(plan(&facts, &Wishes::default()), Err(Refusal::CredentialsLost(_))));
        for cluster in [ClusterState::OtherMajor("17".into()), ClusterState::NotACluster("x".into())] {
            assert!(plan(&Facts { cluster, ..complete() }, &Wishes::default()).is_err());
        }
    }

    #[test]
    fn a_config_with_holes_is_completed_not_replaced() {
        let ConfigFact::Present(config) = complete().config else { unreachable!() };
        let config = config::Config { jwt_secret: None, admin_password_hash: None, ..*config };
        let facts = Facts { config: ConfigFact::Present(Box::new(config)), ..complete() };
        let steps = plan(&facts, &Wishes::default()).unwrap().steps;
        assert_eq!(steps[0], Step::CompleteConfig { keys: vec!["admin_password_hash", "jwt_secret"] });
    }

    #[test]
    fn lite_leaves_an_installed_binary_alone_and_setup_replaces_it() {
        let facts = Facts { installed_version: Some("0".into()), own_version_is_installed: false, ..complete() };
        assert!(names(&facts, &Wishes::default()).is_empty());
        let wishes = Wishes { install_always: true, ..Wishes::default() };
        assert_eq!(names(&facts, &wishes), ["install-binary", "write-receipt"]);
    }

    #[test]
    fn who_made_the_workspace_is_known_even_after_a_kill() {
        assert!(plan(&empty(), &Wishes::default()).unwrap().made_workspace);
        let theirs = Facts { workspace_exists: true, workspace_is_empty: true, ..empty() };
        assert!(!plan(&theirs, &Wishes::default()).unwrap().made_workspace);
        let killed = Facts { unfinished: Some(vec!["make-workspace".into()]), ..theirs };
        assert!(plan(&killed, &Wishes::default()).unwrap().made_workspace);
        // The one that setup made, and not one that config.yaml names by now.
        assert!(plan(&Facts { workspace: "/w".into(), ..complete() }, &Wishes::default()).unwrap().made_workspace);
        let other = Facts { workspace: "/other".into(), workspace_exists: true, ..complete() };
        assert!(!plan(&other, &Wishes::default()).unwrap().made_workspace);
    }

    #[test]
    fn a_lost_receipt_leaves_the_password_and_an_unwritten_one_does_not() {
        let lost = Facts { receipt: None, ..complete() };
        assert!(plan(&lost, &Wishes::default()).unwrap().password_known);
        let killed = Facts { unfinished: Some(vec![]), ..lost };
        assert!(!plan(&killed, &Wishes::default()).unwrap().password_known);
    }

    #[test]
    fn setup_writes_the_port_down_and_lite_does_not() {
        let wishes = Wishes { port: Some(9999), ..Wishes::default() };
        assert!(names(&complete(), &wishes).is_empty());
        assert_eq!(names(&complete(), &Wishes { install_always: true, ..wishes }), ["set-port", "write-receipt"]);
    }

    #[test]
    fn the_users_workspace_is_scaffolded_only_when_new() {
        let emptied = Facts { workspace_is_empty: true, ..complete() };
        assert!(names(&emptied, &Wishes::default()).is_empty(), "the user emptied it; that is the user's business");
        let elsewhere = Wishes { workspace: Some("/other".into()), ..Wishes::default() };
        assert!(matches!(plan(&complete(), &elsewhere), Err(Refusal::OtherWorkspace { .. })));
    }
}
