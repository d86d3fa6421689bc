//! Plans a setup from the facts. Pure: `--dry-run` prints the plan, tests check it, `apply` follows it.

use super::facts::{ConfigFact, Facts};
use super::receipt::Receipt;
use super::step::{MAKE_WORKSPACE, Step};
use leoflow_base::config::DatastoreSetting;
use leoflow_postgres::MAJOR;
use leoflow_postgres::cluster::ClusterState;
use leoflow_postgres::install::version;
use std::path::{Path, PathBuf};

/// Options that the user requested.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    pub port: Option<u16>,
    /// Workspace given on the command line.
    pub workspace: Option<PathBuf>,
    /// Datastore of a new home.
    pub datastore: Option<DatastoreSetting>,
    /// Always install the running binary and write the port to the config, as `setup` does. `lite` installs only if
    /// nothing is installed, and writes the port only before the instance's first start.
    pub install_always: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub workspace: PathBuf,
    /// Name of the instance; `None` for the default instance.
    pub instance_name: Option<String>,
    /// True when the plan finishes an interrupted run.
    pub resumes: bool,
    /// True when setup creates the workspace's folder, or created it in an earlier run.
    pub made_workspace: bool,
    /// True when the admin password was shown. A lost receipt (as opposed to one not yet written) keeps the password.
    pub password_known: bool,
}

impl Plan {
    /// The datastore that the plan starts to use, if that is not the managed one.
    pub(crate) fn other_datastore(&self) -> Option<&DatastoreSetting> {
        self.steps.iter().find_map(|step| match step {
            Step::UseDatastore { setting } => Some(setting),
            _ => None,
        })
    }

    /// True when all missing parts can be added while an instance runs.
    pub fn is_only_extras(&self) -> bool {
        let is_extra =
            |step: &Step| matches!(step, Step::AcquirePackages | Step::AcquireUi | Step::UpdatePostgres { .. });
        !self.resumes && !self.steps.is_empty() && self.steps.iter().all(is_extra)
    }
}

/// Why setup changes nothing: it would make existing data unusable, or the request contradicts the home.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{0}/managed-postgres/data belongs to PostgreSQL {1}; this release runs {MAJOR}")]
    OtherMajor(PathBuf, String),
    #[error("{0}/managed-postgres/data is not a datastore: {1}")]
    NotACluster(PathBuf, String),
    #[error("{home} contains a datastore, but config.yaml has no {key}, which is required to open it")]
    SecretLost { home: PathBuf, key: &'static str },
    #[error("{0} contains a datastore, but managed-postgres/credentials.json is missing, which is required to open it")]
    CredentialsLost(PathBuf),
    #[error("the data of this home is in {recorded}, not in {requested}")]
    OtherDatastore { recorded: String, requested: String },
    #[error("config.yaml sets the workspace to {configured}, not {requested}")]
    OtherWorkspace { configured: PathBuf, requested: PathBuf },
}

/// Returns all missing steps in order, or the reason for a refusal.
pub fn plan(facts: &Facts, request: &Request) -> Result<Plan, Refusal> {
    let has_data = match &facts.cluster {
        ClusterState::OtherMajor(major) => return Err(Refusal::OtherMajor(facts.home.clone(), major.clone())),
        ClusterState::NotACluster(why) => return Err(Refusal::NotACluster(facts.home.clone(), why.clone())),
        ClusterState::Ready => true,
        ClusterState::Absent => false,
    };
    if let Some(refusal) = refusal(facts, request, has_data) {
        return Err(refusal);
    }
    let workspace = request.workspace.clone().unwrap_or_else(|| facts.workspace.clone());
    let steps = steps(facts, request, has_data, &workspace);
    // A non-empty folder was not created by an unfinished setup.
    let had_started =
        |name: &str| facts.workspace_is_empty && facts.unfinished.iter().flatten().any(|step| step == name);
    let makes_workspace = steps.iter().any(|step| step.name() == MAKE_WORKSPACE) || had_started(MAKE_WORKSPACE);
    let password_known = match &facts.receipt {
        Some(receipt) => receipt.password_shown,
        None => facts.unfinished.is_none(),
    };
    // Setup created the workspace in the receipt, not necessarily the one that config.yaml names now.
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

/// Refuses a setup after which existing data could not be opened, or that requests another datastore or workspace.
fn refusal(facts: &Facts, request: &Request, has_data: bool) -> Option<Refusal> {
    if has_data && !facts.credentials_present {
        return Some(Refusal::CredentialsLost(facts.home.clone()));
    }
    if let Some(refusal) = other_datastore(facts, request, has_data) {
        return Some(refusal);
    }
    // A new encryption key would make every stored secret permanently unreadable.
    if has_data && missing_keys(facts).contains(&"encryption_key") {
        return Some(Refusal::SecretLost { home: facts.home.clone(), key: "encryption_key" });
    }
    let (ConfigFact::Present(config), Some(requested)) = (&facts.config, &request.workspace) else { return None };
    let configured = config.workspace.as_ref().filter(|configured| *configured != requested)?;
    Some(Refusal::OtherWorkspace { configured: configured.clone(), requested: requested.clone() })
}

/// Refuses a change of the datastore: changing the setting does not move the data.
fn other_datastore(facts: &Facts, request: &Request, has_data: bool) -> Option<Refusal> {
    let requested = request.datastore.as_ref().unwrap_or(&facts.datastore);
    let is_other = match &facts.location {
        Some(_) => !facts.location_is_configured || *requested != facts.datastore,
        None => has_data && *requested != DatastoreSetting::Managed,
    };
    is_other.then(|| Refusal::OtherDatastore {
        recorded: facts
            .location
            .as_ref()
            .map_or("the datastore under it".to_owned(), |location| location.display_text.clone()),
        requested: requested.to_string(),
    })
}

fn steps(facts: &Facts, request: &Request, has_data: bool, workspace: &Path) -> Vec<Step> {
    let mut steps = config_steps(facts, request);
    if facts.installation.is_none() {
        steps.push(Step::AcquirePostgres);
    }
    if !has_data {
        steps.push(match request.datastore.as_ref().unwrap_or(&facts.datastore) {
            DatastoreSetting::Managed => Step::CreateCluster,
            setting => Step::UseDatastore { setting: setting.clone() },
        });
    }
    let differs_from_installed =
        facts.installed_version.as_ref() != Some(&facts.own_version) || !facts.own_version_is_installed;
    if facts.installed_version.is_none() || (request.install_always && differs_from_installed) {
        steps.push(Step::InstallBinary { version: facts.own_version.clone() });
    }
    if !facts.workspace_exists {
        steps.push(Step::MakeWorkspace { path: workspace.to_owned() });
    } else if facts.workspace_is_empty && facts.receipt.is_none() {
        steps.push(Step::AdoptWorkspace { path: workspace.to_owned() });
    }
    let needs_receipt = facts.receipt.is_none() || !steps.is_empty();
    // Optional packages last, because they download in parallel to all other steps. A start that downloads nothing else
    // does not wait for them: the server downloads them later.
    let waits_for_network = facts.installation.is_none() && facts.postgres_needs_network;
    if !facts.packages_present && (waits_for_network || request.install_always) {
        steps.push(Step::AcquirePackages);
    }
    if !facts.ui_present && (waits_for_network || request.install_always) {
        steps.push(Step::AcquireUi);
    }
    // Only `setup` updates PostgreSQL: a start does not wait for an optional download.
    let outdated = facts.installation.as_ref().filter(|installation| version::is_behind(&installation.version));
    if let Some(installation) = outdated.filter(|_| request.install_always) {
        steps.push(Step::UpdatePostgres { from: installation.version.clone() });
    }
    if needs_receipt {
        steps.push(Step::WriteReceipt);
    }
    steps
}

fn config_steps(facts: &Facts, request: &Request) -> Vec<Step> {
    let ConfigFact::Present(config) = &facts.config else { return vec![Step::WriteConfig] };
    let missing = missing_keys(facts);
    let complete = (!missing.is_empty()).then_some(Step::CompleteConfig { keys: missing });
    let port = request.port.filter(|port| config.port != *port && (request.install_always || !facts.has_started));
    let requested = request.datastore.clone().filter(|requested| *requested != facts.datastore);
    let datastore = requested.map(|setting| Step::SetDatastore { setting });
    complete.into_iter().chain(datastore).chain(port.map(|port| Step::SetPort { port })).collect()
}

/// Keys that setup creates and the config lacks.
fn missing_keys(facts: &Facts) -> Vec<&'static str> {
    let ConfigFact::Present(config) = &facts.config else { return vec!["encryption_key"] };
    let present = [
        ("instance_name", config.instance_name.is_some()),
        ("workspace", config.workspace.is_some()),
        ("admin_password_hash", config.admin_password_hash.is_some()),
        ("jwt_secret", config.jwt_secret.is_some()),
        ("encryption_key", config.encryption_key.is_some()),
    ];
    present.into_iter().filter(|(_, is_present)| !is_present).map(|(key, _)| key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::Receipt;
    use leoflow_base::config;
    use leoflow_postgres::{Installation, NEWEST};

    fn empty() -> Facts {
        Facts {
            postgres_needs_network: true,
            packages_present: true,
            ui_present: true,
            instance_name: None,
            home: "/h".into(),
            config: ConfigFact::Absent,
            receipt: None,
            cluster: ClusterState::Absent,
            datastore: DatastoreSetting::Managed,
            location: None,
            location_is_configured: true,
            credentials_present: false,
            installation: None,
            installed_version: None,
            own_version: "1".into(),
            own_version_is_installed: false,
            workspace: "/w".into(),
            workspace_exists: false,
            workspace_is_empty: false,
            has_started: false,
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
                installed_at: String::new(),
            }),
            installed_version: Some("1".into()),
            own_version_is_installed: true,
            workspace_exists: true,
            ..empty()
        }
    }

    fn names(facts: &Facts, request: &Request) -> Vec<&'static str> {
        plan(facts, request).unwrap().steps.iter().map(Step::name).collect()
    }

    #[test]
    fn packages_come_with_the_first_setup_or_in_background() {
        let first = plan(&Facts { packages_present: false, ..empty() }, &Request::default()).unwrap();
        assert!(first.steps.contains(&Step::AcquirePackages) && !first.is_only_extras());
        assert_eq!(first.steps.last(), Some(&Step::WriteReceipt));
        assert!(!plan(&empty(), &Request::default()).unwrap().steps.contains(&Step::AcquirePackages));
        // A start with nothing else to fetch leaves them to the server.
        let local_postgres = Facts { packages_present: false, postgres_needs_network: false, ..empty() };
        assert!(!plan(&local_postgres, &Request::default()).unwrap().steps.contains(&Step::AcquirePackages));
        let setup = Request { install_always: true, ..Request::default() };
        assert!(plan(&local_postgres, &setup).unwrap().steps.contains(&Step::AcquirePackages));
    }

    #[test]
    fn setup_updates_an_older_minor_version() {
        let installation =
            complete().installation.map(|installation| Installation { version: "18.4".into(), ..installation });
        let facts = Facts { installation, ..complete() };
        let setup = Request { install_always: true, ..Request::default() };
        let planned = plan(&facts, &setup).unwrap();
        assert_eq!(planned.steps, [Step::UpdatePostgres { from: "18.4".into() }]);
        assert!(planned.is_only_extras());
        assert!(names(&facts, &Request::default()).is_empty(), "a start downloads nothing");
    }

    #[test]
    fn plans_everything_or_nothing() {
        let expected =
            ["write-config", "acquire-postgres", "create-cluster", "install-binary", "make-workspace", "write-receipt"];
        assert_eq!(names(&empty(), &Request::default()), expected);
        assert!(names(&complete(), &Request { install_always: true, ..Request::default() }).is_empty());
    }

    #[test]
    fn resumes_without_repeating_finished_steps() {
        let facts = Facts { receipt: None, installation: None, unfinished: Some(vec![]), ..complete() };
        let plan = plan(&facts, &Request::default()).unwrap();
        assert!(plan.resumes);
        assert_eq!(plan.steps.iter().map(Step::name).collect::<Vec<_>>(), ["acquire-postgres", "write-receipt"]);
    }

    #[test]
    fn a_datastore_is_never_given_new_secrets() {
        for facts in [Facts { config: ConfigFact::Absent, ..complete() }, {
            let blank = config::parse("", &[]).unwrap().config;
            Facts { config: ConfigFact::Present(Box::new(blank)), ..complete() }
        }] {
            assert!(matches!(plan(&facts, &Request::default()), Err(Refusal::SecretLost { .. })));
        }
        let facts = Facts { credentials_present: false, ..complete() };
        assert!(matches!(plan(&facts, &Request::default()), Err(Refusal::CredentialsLost(_))));
        for cluster in [ClusterState::OtherMajor("17".into()), ClusterState::NotACluster("x".into())] {
            assert!(plan(&Facts { cluster, ..complete() }, &Request::default()).is_err());
        }
    }

    #[test]
    fn an_incomplete_config_is_completed_not_replaced() {
        let ConfigFact::Present(config) = complete().config else { unreachable!() };
        let config = config::Config { jwt_secret: None, admin_password_hash: None, ..*config };
        let facts = Facts { config: ConfigFact::Present(Box::new(config)), ..complete() };
        let steps = plan(&facts, &Request::default()).unwrap().steps;
        assert_eq!(steps[0], Step::CompleteConfig { keys: vec!["admin_password_hash", "jwt_secret"] });
    }

    #[test]
    fn only_setup_replaces_an_installed_binary() {
        let facts = Facts { installed_version: Some("0".into()), own_version_is_installed: false, ..complete() };
        assert!(names(&facts, &Request::default()).is_empty());
        let request = Request { install_always: true, ..Request::default() };
        assert_eq!(names(&facts, &request), ["install-binary", "write-receipt"]);
    }

    #[test]
    fn workspace_creation_is_known_after_a_kill() {
        assert!(plan(&empty(), &Request::default()).unwrap().made_workspace);
        let user_workspace = Facts { workspace_exists: true, workspace_is_empty: true, ..empty() };
        assert!(!plan(&user_workspace, &Request::default()).unwrap().made_workspace);
        let killed = Facts { unfinished: Some(vec!["make-workspace".into()]), ..user_workspace };
        assert!(plan(&killed, &Request::default()).unwrap().made_workspace);
        // The workspace that setup created, not the one that config.yaml names now.
        assert!(plan(&Facts { workspace: "/w".into(), ..complete() }, &Request::default()).unwrap().made_workspace);
        let other = Facts { workspace: "/other".into(), workspace_exists: true, ..complete() };
        assert!(!plan(&other, &Request::default()).unwrap().made_workspace);
    }

    #[test]
    fn a_lost_receipt_keeps_the_password() {
        let lost = Facts { receipt: None, ..complete() };
        assert!(plan(&lost, &Request::default()).unwrap().password_known);
        let killed = Facts { unfinished: Some(vec![]), ..lost };
        assert!(!plan(&killed, &Request::default()).unwrap().password_known);
    }

    #[test]
    fn setup_and_the_first_start_write_the_port() {
        let request = Request { port: Some(9999), ..Request::default() };
        assert_eq!(names(&complete(), &request), ["set-port", "write-receipt"]);
        let started = Facts { has_started: true, ..complete() };
        assert!(names(&started, &request).is_empty());
        assert_eq!(names(&started, &Request { install_always: true, ..request }), ["set-port", "write-receipt"]);
    }

    #[test]
    fn only_a_new_workspace_is_scaffolded() {
        let emptied = Facts { workspace_is_empty: true, ..complete() };
        assert!(names(&emptied, &Request::default()).is_empty(), "the user emptied it, so it stays empty");
        let other = Request { workspace: Some("/other".into()), ..Request::default() };
        assert!(matches!(plan(&complete(), &other), Err(Refusal::OtherWorkspace { .. })));
    }
}
