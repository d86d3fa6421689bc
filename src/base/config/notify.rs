//! The `notify` key: who is notified of what. `targets` says how a message is sent, `rules` which events go where.

use super::SecretReference;
use super::cadence::duration;
use crate::sys::env_vars;
use serde::{Deserialize, Deserializer, de};
use std::collections::BTreeMap;
use std::time::Duration;

crate::words! {
    /// What is notified.
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

/// A value that may be secret: itself, or a reference to where it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl<'de> Deserialize<'de> for Secret {
    /// An error does not show the value.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Text(String),
            Other(de::IgnoredAny),
        }
        match Raw::deserialize(deserializer)? {
            Raw::Text(text) => Ok(Self(text)),
            Raw::Other(_) => Err(de::Error::custom("a URL, secret or password is not text; put it in quotes")),
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

impl Secret {
    /// Reads the value; the error says why its reference cannot be read.
    pub fn read(&self) -> Result<String, super::recipient::SecretError> {
        match SecretReference::parse(&self.0) {
            Some(reference) => reference.read(env_vars::text).map(|text| text.trim().to_owned()),
            None => Ok(self.0.clone()),
        }
    }

    /// True for a reference, whose value is checked only when it is used.
    fn is_reference(&self) -> bool {
        SecretReference::parse(&self.0).is_some()
    }
}

fn some_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let time = duration(&text).filter(|time| !time.is_zero());
    time.map(Some).ok_or_else(|| de::Error::custom(format!("{text:?} is not a duration such as 30m, 24h or 2d")))
}

impl NotifySettings {
    pub(crate) const KEYS: &[&str] = &["targets", "rules", "heartbeat", "heartbeat_every"];

    /// Parses the value of the key; the error names the place and what is wrong there.
    pub fn read(value: &serde_yaml::Value) -> Result<Self, String> {
        let settings: Self = serde_yaml::from_value(value.clone()).map_err(|error| error.to_string())?;
        for (name, target) in &settings.targets {
            target.check().map_err(|reason| format!("targets: {name}: {reason}"))?;
        }
        check_rules(&settings.rules, &settings.targets)?;
        let address = settings.heartbeat.iter().find(|address| !is_http(address));
        address.map_or(Ok(settings.clone()), |_| Err("heartbeat: it is not a URL that begins with http".to_owned()))
    }

    /// Interval of calling `heartbeat`.
    pub fn heartbeat_interval(&self) -> Duration {
        self.heartbeat_every.unwrap_or(Duration::from_secs(300))
    }
}

/// Checks that rules name targets that exist and that their templates can be parsed.
pub fn check_rules(rules: &[NotifyRule], targets: &BTreeMap<String, NotifyTarget>) -> Result<(), String> {
    for (index, rule) in rules.iter().enumerate() {
        let wrong = |reason: String| Err(format!("rules: rule {}: {reason}", index + 1));
        if rule.on.is_empty() || rule.to.is_empty() {
            return wrong("`on` and `to` need at least one entry".to_owned());
        }
        if let Some(unknown) = rule.to.iter().find(|name| !targets.contains_key(*name)) {
            let known = targets.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            return wrong(format!("there is no target {unknown:?}; targets: {known}"));
        }
        for (event, option, is_set) in [
            (NotifyEvent::RunLate, "late_after", rule.late_after.is_some()),
            (NotifyEvent::BackupOld, "older_than", rule.older_than.is_some()),
        ] {
            if rule.on.contains(&event) && !is_set {
                return wrong(format!("{} needs {option}, such as {option}: 2h", event.name()));
            }
        }
        if let Some(Err(error)) = rule.template.as_deref().map(check_template) {
            return wrong(format!("template: {error}"));
        }
    }
    Ok(())
}

/// Checks the rules of a project, whose targets are in the instance's settings.
pub fn check_project_rules(rules: &[NotifyRule]) -> Result<(), String> {
    use NotifyEvent::{RunFailed, RunRecovered, TaskFailed};
    for (index, rule) in rules.iter().enumerate() {
        let wrong = |reason: String| Err(format!("rule {}: {reason}", index + 1));
        if let Some(event) = rule.on.iter().find(|event| ![RunFailed, RunRecovered, TaskFailed].contains(event)) {
            let event = event.name();
            return wrong(format!(
                "{event} belongs in config.yaml; a project has run_failed, run_recovered and task_failed"
            ));
        }
        if let Some(Err(error)) = rule.template.as_deref().map(check_template) {
            return wrong(format!("template: {error}"));
        }
    }
    Ok(())
}

fn check_template(text: &str) -> Result<(), minijinja::Error> {
    minijinja::Environment::new().template_from_str(text).map(drop)
}

fn is_http(address: &Secret) -> bool {
    address.is_reference() || ["http://", "https://"].iter().any(|scheme| address.0.starts_with(scheme))
}

impl NotifyTarget {
    fn check(&self) -> Result<(), String> {
        match self {
            Self::Webhook { url, .. } | Self::Slack { url } | Self::Teams { url } => match is_http(url) {
                true => Ok(()),
                false => Err("url: it is not a URL that begins with http".to_owned()),
            },
            Self::Email { to, from, server, .. } => {
                if let Some(wrong) = to.iter().chain([from]).find(|address| !address.contains('@')) {
                    return Err(format!("{wrong:?} is not an e-mail address"));
                }
                let is_smtp = server.0.starts_with("smtp://") || server.0.starts_with("smtps://");
                match (to.is_empty(), is_smtp || server.is_reference()) {
                    (true, _) => Err("to: at least one address is needed".to_owned()),
                    (_, false) => Err("server: it is not a URL that begins with smtp:// or smtps://".to_owned()),
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
            let error = with(rules).unwrap_err();
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
            let error = read(&format!("targets: {{t: {target}}}")).unwrap_err();
            assert!(error.contains(reason), "{target}: {error}");
        }
    }
}
