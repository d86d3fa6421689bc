//! The `notify` key: who is notified of what. `targets` says how a message is sent, `rules` which events go where.

use super::Secret;
use super::cadence::duration;
use serde::{Deserialize, Deserializer, de};
use std::collections::BTreeMap;
use std::time::Duration;

crate::words! {
    /// An event that can be notified.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum NotifyEvent: name {
        RunFailed = "run_failed",
        /// The first success of a DAG after failures that were notified.
        RunRecovered = "run_recovered",
        TaskFailed = "task_failed",
        /// A run that has not ended `late_after` its due date.
        RunLate = "run_late",
        BackupFailed = "backup_failed",
        /// The newest backup is older than `older_than`.
        BackupOld = "backup_old",
        VerificationFailed = "verification_failed",
        UpgradeRolledBack = "upgrade_rolled_back",
        DiskLow = "disk_low",
        DatastoreDown = "datastore_down",
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NotifySettings {
    pub targets: BTreeMap<String, NotifyTarget>,
    pub rules: Vec<NotifyRule>,
    /// An address that is called while the instance is healthy, and after each backup.
    pub heartbeat: Option<Secret>,
    #[serde(deserialize_with = "some_duration")]
    pub heartbeat_every: Option<Duration>,
}

/// How a message is sent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum NotifyTarget {
    /// Sends JSON. With a secret, the header `X-Leoflow-Signature` has the HMAC-SHA256 of the body.
    Webhook {
        url: Secret,
        secret: Option<Secret>,
    },
    Slack {
        url: Secret,
    },
    Teams {
        url: Secret,
    },
    Email {
        to: Vec<String>,
        from: String,
        /// `smtps://USER@HOST:PORT`, `smtp://HOST:PORT?tls=required`, or `smtp://HOST:PORT` without encryption.
        server: Secret,
        password: Option<Secret>,
    },
}

/// Which events go to which targets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotifyRule {
    pub on: Vec<NotifyEvent>,
    pub to: Vec<String>,
    /// Only events of these DAGs; `None` for all, and for events that are of no DAG.
    pub dags: Option<Vec<String>>,
    /// The text of the message; `None` for the usual one.
    pub template: Option<String>,
    #[serde(default, deserialize_with = "some_duration")]
    pub late_after: Option<Duration>,
    #[serde(default, deserialize_with = "some_duration")]
    pub older_than: Option<Duration>,
}

fn some_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let time = duration(&text).filter(|time| !time.is_zero());
    time.map(Some).ok_or_else(|| de::Error::custom(format!("{text:?} is not a duration such as 30m, 24h or 2d")))
}

/// Why the value of `notify` is wrong.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    #[error(transparent)]
    Yaml(#[from] serde_yaml::Error),
    #[error("targets: {0}: {1}")]
    Target(String, TargetError),
    /// The number of the rule, from 1.
    #[error("rules: rule {0}: {1}")]
    Rule(usize, RuleError),
    #[error("rule {0}: {1}")]
    ProjectRule(usize, RuleError),
    #[error("heartbeat: it is not a URL that begins with http")]
    Heartbeat,
}

#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error("url: it is not a URL that begins with http")]
    Url,
    #[error("{0:?} is not an e-mail address")]
    Address(String),
    #[error("to: at least one address is needed")]
    NoAddress,
    #[error("server: it is not a URL that begins with smtp:// or smtps://")]
    Server,
}

#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    #[error("`on` and `to` need at least one entry")]
    Empty,
    #[error("there is no target {name:?}; targets: {known}")]
    UnknownTarget { name: String, known: String },
    #[error("{event} needs {option}, such as {option}: 2h")]
    NoLimit { event: &'static str, option: &'static str },
    #[error("{0} belongs in config.yaml; a project has run_failed, run_recovered and task_failed")]
    NotOfProject(&'static str),
    #[error("template: {0}")]
    Template(#[from] minijinja::Error),
}

impl NotifyEvent {
    /// True for an event that the scheduler records.
    pub fn is_of_scheduler(self) -> bool {
        matches!(self, Self::RunFailed | Self::RunRecovered | Self::TaskFailed)
    }
}

impl NotifySettings {
    pub(crate) const KEYS: &[&str] = &["targets", "rules", "heartbeat", "heartbeat_every"];

    /// Parses the value of the key.
    pub fn read(value: &serde_yaml::Value) -> Result<Self, NotifyError> {
        let settings: Self = serde_yaml::from_value(value.clone())?;
        for (name, target) in &settings.targets {
            target.check().map_err(|error| NotifyError::Target(name.clone(), error))?;
        }
        let wrong = first_wrong(&settings.rules, |rule| rule.check(&settings.targets));
        wrong.map_err(|(number, error)| NotifyError::Rule(number, error))?;
        if settings.heartbeat.iter().all(is_http) { Ok(settings) } else { Err(NotifyError::Heartbeat) }
    }

    /// True with a rule, or a heartbeat.
    pub fn is_used(&self) -> bool {
        !self.rules.is_empty() || self.heartbeat.is_some()
    }

    /// Interval of calling `heartbeat`.
    pub fn heartbeat_interval(&self) -> Duration {
        self.heartbeat_every.unwrap_or(Duration::from_secs(300))
    }
}

/// Reads the rules of a project, whose targets are in the instance's settings.
pub(crate) fn read_project_rules(value: &serde_yaml::Value) -> Result<Vec<NotifyRule>, NotifyError> {
    let rules: Vec<NotifyRule> = serde_yaml::from_value(value.clone())?;
    let wrong = first_wrong(&rules, |rule| match rule.on.iter().find(|event| !event.is_of_scheduler()) {
        Some(event) => Err(RuleError::NotOfProject(event.name())),
        None => rule.check_template(),
    });
    wrong.map_err(|(number, error)| NotifyError::ProjectRule(number, error))?;
    Ok(rules)
}

/// The number and the error of the first wrong rule.
fn first_wrong(
    rules: &[NotifyRule],
    check: impl Fn(&NotifyRule) -> Result<(), RuleError>,
) -> Result<(), (usize, RuleError)> {
    rules.iter().zip(1..).try_for_each(|(rule, number)| check(rule).map_err(|error| (number, error)))
}

impl NotifyRule {
    fn check(&self, targets: &BTreeMap<String, NotifyTarget>) -> Result<(), RuleError> {
        if self.on.is_empty() || self.to.is_empty() {
            return Err(RuleError::Empty);
        }
        if let Some(unknown) = self.to.iter().find(|name| !targets.contains_key(*name)) {
            let known = targets.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(RuleError::UnknownTarget { name: unknown.clone(), known });
        }
        for (event, option, is_set) in [
            (NotifyEvent::RunLate, "late_after", self.late_after.is_some()),
            (NotifyEvent::BackupOld, "older_than", self.older_than.is_some()),
        ] {
            if self.on.contains(&event) && !is_set {
                return Err(RuleError::NoLimit { event: event.name(), option });
            }
        }
        self.check_template()
    }

    fn check_template(&self) -> Result<(), RuleError> {
        let Some(template) = &self.template else { return Ok(()) };
        Ok(minijinja::Environment::new().template_from_str(template).map(drop)?)
    }
}

fn is_http(address: &Secret) -> bool {
    address.is_reference() || ["http://", "https://"].iter().any(|scheme| address.text().starts_with(scheme))
}

impl NotifyTarget {
    fn check(&self) -> Result<(), TargetError> {
        match self {
            Self::Webhook { url, .. } | Self::Slack { url } | Self::Teams { url } => {
                if is_http(url) {
                    Ok(())
                } else {
                    Err(TargetError::Url)
                }
            }
            Self::Email { to, from, server, .. } => {
                if let Some(wrong) = to.iter().chain([from]).find(|address| !address.contains('@')) {
                    return Err(TargetError::Address(wrong.clone()));
                }
                let is_smtp = ["smtp://", "smtps://"].iter().any(|scheme| server.text().starts_with(scheme));
                match (to.is_empty(), is_smtp || server.is_reference()) {
                    (true, _) => Err(TargetError::NoAddress),
                    (_, false) => Err(TargetError::Server),
                    _ => Ok(()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_and_targets_are_checked() {
        let read = |text: &str| NotifySettings::read(&serde_yaml::from_str(text).unwrap());
        let targets = "targets: {team: {type: slack, url: 'env:SLACK'}, me: {type: email, to: [a@b], from: c@d, server: 'smtp://h'}}";
        let with = |rules: &str| read(&format!("{targets}\n{rules}"));
        let good = with("rules: [{on: [run_failed, run_late], to: [team], late_after: 30m, template: '{{ dag_id }}'}]")
            .unwrap();
        assert_eq!(good.rules[0].late_after, Some(Duration::from_secs(1800)));
        assert_eq!(
            (good.heartbeat_interval().as_secs(), format!("{:?}", good.targets["team"])),
            (300, "Slack { url: (secret) }".to_owned())
        );
        for (rules, reason) in [
            ("rules: [{on: [run_failed], to: [chat]}]", "no target \"chat\"; targets: me, team"),
            ("rules: [{on: [run_lost], to: [team]}]", "unknown variant `run_lost`"),
            ("rules: [{on: [run_failed], to: [team], template: '{{ dag_id'}]", "rule 1: template: "),
            ("rules: [{on: [run_late], to: [team]}]", "run_late needs late_after"),
            ("rules: [{on: [], to: [team]}]", "at least one entry"),
            ("heartbeat: example.org", "not a URL"),
            ("heartbeat_every: often", "not a duration"),
        ] {
            let error = with(rules).unwrap_err().to_string();
            assert!(error.contains(reason), "{rules}: {error}");
        }
        for (target, reason) in [
            ("{type: pager, url: 'http://x'}", "unknown variant `pager`"),
            ("{type: webhook, url: 'ftp://x'}", "not a URL"),
            ("{type: email, to: [], from: a@b, server: 'smtp://x'}", "at least one address"),
            ("{type: email, to: [a], from: a@b, server: 'smtp://x'}", "not an e-mail address"),
            ("{type: slack}", "missing field `url`"),
            ("{type: webhook, url: 'http://x', secret: 12345678}", "put it in quotes"),
        ] {
            let error = read(&format!("targets: {{t: {target}}}")).unwrap_err().to_string();
            assert!(error.contains(reason), "{target}: {error}");
        }
    }
}
