//! The text of a notification.

use crate::pages::template_value;
use jiff::Timestamp;
use leoflow_base::config::NotifyEvent;
use leoflow_engine::model::keys::Position;
use leoflow_engine::store::notifications::Notification;
use minijinja::Environment;
use serde_json::{Value, json};

/// What a template may use; `url` is the address of the run in the web UI.
pub fn context(notification: &Notification, instance: &str, base_url: &str) -> Value {
    let url = notification.dag_id.as_ref().zip(notification.run_id.as_ref());
    let url = url.map_or_else(|| format!("{base_url}/lite/"), |(dag, run)| format!("{base_url}/dags/{dag}/runs/{run}"));
    json!({
        "event": notification.event, "subject": notification.subject, "instance": instance,
        "happened_at": notification.happened_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "dag_id": notification.dag_id, "run_id": notification.run_id, "task_id": notification.task_id,
        "map_index": notification.position.map(Position::map_index).filter(|index| *index >= 0), "detail": notification.detail, "url": url,
    })
}

/// The text by the template of the rule, or the usual one. A template that fails leaves the usual text, with its error.
pub fn text(template: Option<&str>, context: &Value) -> String {
    let usual = || render(usual_template(context), context).unwrap_or_else(|error| error.to_string());
    match template.map(|template| render(template, context)) {
        None => usual(),
        Some(Ok(text)) => text,
        Some(Err(error)) => format!("{}\n(the rule's template failed: {error})", usual()),
    }
}

fn render(template: &str, context: &Value) -> Result<String, minijinja::Error> {
    Environment::new().render_str(template, template_value(context))
}

fn usual_template(context: &Value) -> &'static str {
    let event = context["event"].as_str().and_then(NotifyEvent::parse);
    match event {
        Some(NotifyEvent::RunFailed) => {
            "{{ dag_id }} failed: run {{ run_id }}{% if detail %} ({{ detail }}){% endif %}\n{{ url }}"
        }
        Some(NotifyEvent::RunRecovered) => "{{ dag_id }} succeeds again: run {{ run_id }}\n{{ url }}",
        Some(NotifyEvent::TaskFailed) => {
            "{{ dag_id }}.{{ task_id }}{% if map_index is not none %}[{{ map_index }}]{% endif %} failed in run {{ run_id }}\
             {% if detail %}: {{ detail }}{% endif %}\n{{ url }}"
        }
        Some(NotifyEvent::RunLate) => {
            "{{ dag_id }} is late: run {{ run_id }} has not ended{% if detail %}, {{ detail }}{% endif %}\n{{ url }}"
        }
        _ => "{{ instance }}: {{ event | replace('_', ' ') }}{% if detail %}: {{ detail }}{% endif %}\n{{ url }}",
    }
}

/// A notification that only tests a target.
pub fn test_notification() -> Notification {
    Notification {
        id: 0,
        event: "test".to_owned(),
        subject: String::new(),
        happened_at: Timestamp::now(),
        dag_id: None,
        run_id: None,
        task_id: None,
        position: None,
        detail: Some("this message tests a target of notifications".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_name_what_happened() {
        let failed = Notification {
            event: "task_failed".to_owned(),
            dag_id: Some("sales".to_owned()),
            run_id: Some("r1".to_owned()),
            task_id: Some("load".to_owned()),
            position: Some(Position::mapped(3)),
            detail: Some("exit code 1".to_owned()),
            ..test_notification()
        };
        let context = context(&failed, "work", "http://localhost:8088");
        let usual = "sales.load[3] failed in run r1: exit code 1\nhttp://localhost:8088/dags/sales/runs/r1";
        assert_eq!(text(None, &context), usual);
        assert_eq!(text(Some("{{ instance }}/{{ dag_id }}"), &context), "work/sales");
        assert!(text(Some("{{ dag_id | nothing }}"), &context).starts_with(usual));
        let own = super::context(&test_notification(), "work", "http://h");
        assert_eq!(text(None, &own), "work: test: this message tests a target of notifications\nhttp://h/lite/");
    }
}
