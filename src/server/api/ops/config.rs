//! `/api/v2/config`: the current settings without secrets, in Airflow's sections and in a section `leoflow`. A change
//! of `config.yaml` is shown at once, also if it takes effect only after a restart.

use crate::api::prelude::*;
use crate::http::openapi::answers::{Either, Plain};
use axum::http::{HeaderMap, header};
use leoflow_base::config::{self, Config};
use leoflow_base::home::lock;
use leoflow_engine::store::instance::tries::SLOTS;
use std::fmt::Write as _;

/// Airflow's `Config`.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Config")]
pub struct ConfigResponse {
    sections: Vec<ConfigSection>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ConfigSection {
    name: &'static str,
    options: Vec<ConfigOption>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ConfigOption {
    key: &'static str,
    value: String,
}

fn section(name: &'static str, options: Vec<(&'static str, String)>) -> ConfigSection {
    ConfigSection { name, options: options.into_iter().map(|(key, value)| ConfigOption { key, value }).collect() }
}

fn sections(state: &AppState) -> ApiResult<Vec<ConfigSection>> {
    let loaded = config::load(&state.core.home.config()).map_err(|error| ApiError::internal(&error))?;
    let Some(config) = loaded.map(|loaded| loaded.config) else {
        return Err(ApiError::retry_later("config.yaml does not exist"));
    };
    let workspace = config.workspace.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let served = lock::holder(&state.core.home).and_then(|holder| holder.url);
    let address = served.unwrap_or_else(|| format!("http://{}:{}", config.own_address(), state.core.phase.port));
    let core = vec![
        ("dags_folder", workspace.clone()),
        ("executor", "LocalExecutor".to_owned()),
        ("parallelism", SLOTS.to_string()),
        ("default_timezone", "utc".to_owned()),
        ("load_examples", "False".to_owned()),
        ("max_map_length", config.max_map_length.to_string()),
        ("test_connection", "Enabled".to_owned()),
    ];
    let api = vec![
        ("base_url", address),
        ("host", config.host.to_string()),
        ("port", state.core.phase.port.to_string()),
        ("expose_config", "True".to_owned()),
    ];
    let logging = vec![("logging_level", config.log_level.to_string())];
    Ok(vec![
        section("core", core),
        section("api", api),
        section("logging", logging),
        section("leoflow", leoflow_options(&config, workspace)),
    ])
}

/// The section `leoflow`: settings under their names in `config.yaml`.
fn leoflow_options(config: &Config, workspace: String) -> Vec<(&'static str, String)> {
    vec![
        ("instance_name", config::instance_name(Some(config)).to_owned()),
        ("workspace", workspace),
        ("admin_email", config.admin_email.clone()),
        ("python", config.python.as_ref().map(|path| path.display().to_string()).unwrap_or_default()),
    ]
}

/// Responds with JSON or plain text, as `Accept` allows.
fn respond(headers: &HeaderMap, sections: Vec<ConfigSection>) -> ApiResult<Either<ConfigResponse, Plain>> {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    let accepts = |kind: &str| {
        accept
            .split(',')
            .any(|media_type| media_type.split(';').next().is_some_and(|media_type| media_type.trim() == kind))
    };
    if accepts("application/json") || accepts("*/*") || accepts("application/*") {
        return Ok(Either::json(ConfigResponse { sections }));
    }
    if !accepts("text/plain") && !accepts("text/*") {
        return Err(ApiError::new(StatusCode::NOT_ACCEPTABLE, "Only application/json or text/plain is supported"));
    }
    let mut text = String::new();
    for section in sections {
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "[{}]", section.name);
        for ConfigOption { key, value } in &section.options {
            let _ = writeln!(text, "{key} = {value}");
        }
        text.push('\n');
    }
    Ok(Either::text(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text)))
}

query! { pub ConfigQuery { Parameter::new("section", Kind::Text) } }

pub async fn get(
    State(state): Shared,
    params: QueryParams<ConfigQuery>,
    headers: HeaderMap,
) -> ApiResult<Either<ConfigResponse, Plain>> {
    let mut sections = sections(&state)?;
    if let Some(name) = params.text("section") {
        sections.retain(|section| section.name == name);
        if sections.is_empty() {
            return Err(ApiError::not_found(format!("Section {name} not found.")));
        }
    }
    respond(&headers, sections)
}

pub async fn get_value(
    State(state): Shared,
    Segments((section_name, option_key)): Segments<(String, String)>,
    headers: HeaderMap,
) -> ApiResult<Either<ConfigResponse, Plain>> {
    let mut sections = sections(&state)?;
    sections.retain(|section| section.name.eq_ignore_ascii_case(&section_name));
    for section in &mut sections {
        section.options.retain(|option| option.key.eq_ignore_ascii_case(&option_key));
    }
    if sections.iter().all(|section| section.options.is_empty()) {
        let detail = format!("Option [{section_name}/{option_key}] not found.");
        return Err(ApiError::not_found(detail));
    }
    respond(&headers, sections)
}
