//! Reads a running Airflow 3 over its REST API, which masks secrets and returns DAG files without imported modules.
//! <https://airflow.apache.org/docs/apache-airflow/stable/stable-rest-api-ref.html>

use super::airflow_content::{AirflowContent, DagFiles};
use super::data_files::pools::Entry;
use super::findings::Findings;
use crate::api_client::{all_pages, encode};
use crate::error::Error;
use leoflow_base::protocol::web::{self, chain};
use leoflow_engine::store::secret::connections::Connection;
use leoflow_engine::store::secret::variables::{Variable, as_text};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// Size limit of a response, which is one page of a list or one DAG file, in bytes.
const RESPONSE_LIMIT: usize = 64 * 1024 * 1024;
/// The text that Airflow returns in place of a secret.
const MASK: &str = "***";

/// How to log in.
pub enum Login {
    Token(String),
    Password {
        username: String,
        password: String,
    },
    /// For an Airflow with `simple_auth_manager_all_admins`, which gives out tokens without a login.
    None,
}

struct Airflow {
    client: Client,
    base: String,
    token: String,
}

pub async fn read(url: &str, login: &Login, findings: &mut Findings) -> Result<AirflowContent, Error> {
    let client = web::client().redirect(reqwest::redirect::Policy::none()).build().map_err(Error::failed)?;
    let base = url.trim_end_matches('/').to_owned();
    let authority = base.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default());
    if authority.contains('@') {
        return Err(Error::usage("the URL must not contain a login, because messages show the URL")
            .hint("use --username NAME --password-file FILE, or --token-file FILE"));
    }
    let token = match login {
        Login::Token(token) => token.clone(),
        Login::Password { username, password } => {
            let body = json!({"username": username, "password": password}).to_string();
            request_token(
                &base,
                client.post(format!("{base}/auth/token")).header("content-type", "application/json").body(body),
            )
            .await?
        }
        Login::None => request_token(&base, client.get(format!("{base}/auth/token"))).await?,
    };
    let airflow = Airflow { client, base, token };
    let mut content = AirflowContent::default();
    for variable in airflow.all("/api/v2/variables", "variables").await? {
        content.variables.extend(self::variable(&variable, findings));
    }
    for connection in airflow.all("/api/v2/connections", "connections").await? {
        content.connections.extend(self::connection(&connection, findings));
    }
    content.pools = airflow.all("/api/v2/pools", "pools").await?.iter().filter_map(pool).collect();
    content.files = DagFiles::Texts(airflow.sources(findings).await?);
    Ok(content)
}

/// Requests an access token.
async fn request_token(base: &str, request: RequestBuilder) -> Result<String, Error> {
    let (status, answer) = send_request(base, request).await?;
    match answer["access_token"].as_str() {
        Some(token) if status.is_success() => Ok(token.to_owned()),
        // 405 is the response of an Airflow without passwordless login.
        _ if [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::METHOD_NOT_ALLOWED].contains(&status) => {
            Err(Error::failed(format!("{base} requires a login, or rejected the given one"))
                .hint("use --username NAME --password-file FILE, or --token-file FILE"))
        }
        _ => Err(Error::failed(format!("{base} returned no token ({status}); it may not be an Airflow 3"))
            .hint("for an Airflow 2, use its home with the files its CLI exports: --from AIRFLOW_HOME")),
    }
}

/// Sends a request; returns the status and the JSON in the response.
async fn send_request(base: &str, request: RequestBuilder) -> Result<(StatusCode, Value), Error> {
    let unreachable = |error: reqwest::Error| {
        Error::failed(format!("{base} does not respond: {}", chain(&error.without_url()))).hint("nothing was imported")
    };
    let mut response = request.header("accept", "application/json").send().await.map_err(unreachable)?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > RESPONSE_LIMIT {
            return Err(Error::failed(format!("a response of {base} is larger than {} MiB", RESPONSE_LIMIT >> 20))
                .hint("nothing was imported"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((response.status(), serde_json::from_slice(&body).unwrap_or_default()))
}

impl Airflow {
    async fn get(&self, path: &str) -> Result<Value, Error> {
        let request = self.client.get(format!("{}{path}", self.base)).bearer_auth(&self.token);
        match send_request(&self.base, request).await? {
            (status, answer) if status.is_success() => Ok(answer),
            (status, answer) => {
                let detail = answer["detail"].as_str().map(|detail| format!(": {detail}")).unwrap_or_default();
                Err(Error::failed(format!("{} returned {status} for {path}{detail}", self.base))
                    .hint("nothing was imported"))
            }
        }
    }

    /// Reads every entry of a list, page by page.
    async fn all(&self, path: &str, field: &str) -> Result<Vec<Value>, Error> {
        all_pages(field, async |offset| self.get(&format!("{path}?limit=100&offset={offset}")).await).await
    }

    /// Reads the source of each DAG file, by its path in the DAG folder. The API does not return imported modules.
    async fn sources(&self, findings: &mut Findings) -> Result<BTreeMap<PathBuf, String>, Error> {
        let mut texts: BTreeMap<PathBuf, String> = BTreeMap::new();
        for dag in self.all("/api/v2/dags", "dags").await? {
            let (dag_id, file) =
                (dag["dag_id"].as_str().unwrap_or_default(), dag["relative_fileloc"].as_str().unwrap_or_default());
            let Some(path) = dag_path(file) else {
                findings.add(
                    dag_id,
                    format!("its file {file:?} is not a Python file in the DAG folder"),
                    "copy it by hand",
                );
                continue;
            };
            let source = self.get(&format!("/api/v2/dagSources/{}", encode(dag_id))).await?;
            let text = source["content"].as_str().unwrap_or_default().to_owned();
            match texts.get(&path) {
                Some(earlier) if *earlier != text => {
                    findings.add(
                        dag_id,
                        format!("several bundles have a file {file}"),
                        "copy this one by hand, under another name",
                    );
                }
                _ => drop(texts.insert(path, text)),
            }
        }
        if !texts.is_empty() {
            findings.add(
                "modules",
                "Airflow's API returns DAG files without the modules they import",
                "copy these beside the DAG files; leoflow validate lists the missing ones",
            );
        }
        Ok(texts)
    }
}

/// Path of a DAG file; `None` unless it is a Python file in the DAG folder.
fn dag_path(file: &str) -> Option<PathBuf> {
    let path = Path::new(file);
    let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    (is_plain && path.extension().is_some_and(|extension| extension == "py") && !file.contains(".zip/"))
        .then(|| path.to_owned())
}

/// Converts a variable; `None` if its value is masked.
fn variable(entry: &Value, findings: &mut Findings) -> Option<Variable> {
    let key = entry["key"].as_str()?.to_owned();
    let value = as_text(&entry["value"]);
    if value.contains(MASK) {
        findings.add(format!("variable {key}"), "Airflow masks its value", format!("leoflow variables set {key} -"));
        return None;
    }
    Some(Variable { key, value, description: entry["description"].as_str().map(str::to_owned) })
}

/// Converts a connection without its masked values.
fn connection(entry: &Value, findings: &mut Findings) -> Option<Connection> {
    let id = entry["connection_id"].as_str()?.to_owned();
    let text = |name: &str| entry[name].as_str().filter(|text| !text.is_empty() && *text != MASK).map(str::to_owned);
    let mut missing = Vec::new();
    if entry["login"].as_str().is_some_and(|login| !login.is_empty()) || entry["password"] == MASK {
        missing.push("password".to_owned());
    }
    let extra = match entry["extra"].as_str().filter(|extra| !extra.is_empty()) {
        None => None,
        Some(extra) => match serde_json::from_str::<Map<String, Value>>(extra) {
            Ok(mut object) => {
                object.retain(|name, value| {
                    let is_masked = value.to_string().contains(MASK);
                    if is_masked {
                        missing.push(format!("extra.{name}"));
                    }
                    !is_masked
                });
                Some(Value::Object(object).to_string())
            }
            Err(_) => Some(extra.to_owned()),
        },
    };
    if !missing.is_empty() {
        findings.add(
            format!("connection {id}"),
            format!("Airflow masks its {}", missing.join(", ")),
            "fill it in: /connections, or leoflow connections import",
        );
    }
    Some(Connection {
        connection_id: id,
        conn_type: text("conn_type").unwrap_or_default(),
        description: text("description"),
        host: text("host"),
        login: text("login"),
        schema: text("schema"),
        port: entry["port"].as_i64().and_then(|port| port.try_into().ok()),
        password: None,
        extra,
    })
}

fn pool(entry: &Value) -> Option<Entry> {
    Some(Entry {
        name: entry["name"].as_str()?.to_owned(),
        slots: entry["slots"].as_i64()?.try_into().ok()?,
        description: entry["description"].as_str().map(str::to_owned),
        include_deferred: entry["include_deferred"].as_bool().unwrap_or(false),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masked_values_are_not_imported() {
        let mut findings = Findings::default();
        assert!(variable(&json!({"key": "api_key", "value": "***"}), &mut findings).is_none());
        assert!(variable(&json!({"key": "deep", "value": "{\"password\": \"***\"}"}), &mut findings).is_none());
        let plain = variable(&json!({"key": "k", "value": "v", "description": null}), &mut findings);
        assert_eq!(plain, Some(Variable { key: "k".into(), value: "v".into(), description: None }));
        let full = json!({"connection_id": "c", "conn_type": "http", "host": "h", "login": "me", "password": "***", "port": 80, "schema": "",
                          "description": null, "extra": "{\"token\": \"***\", \"mode\": \"x\"}"});
        let content = connection(&full, &mut findings).unwrap();
        assert_eq!((content.password, content.schema, content.port), (None, None, Some(80)));
        assert_eq!(content.extra.as_deref(), Some(r#"{"mode":"x"}"#));
        let subjects: Vec<&str> = findings.all().iter().map(|finding| finding.what.as_str()).collect();
        assert_eq!(subjects, ["variable api_key", "variable deep", "connection c"]);
        assert!(findings.all()[2].why.contains("password, extra.token"));
    }

    #[test]
    fn rejects_paths_outside_the_dag_folder() {
        assert_eq!(dag_path("a/b.py"), Some("a/b.py".into()));
        for bad in ["../a.py", "/a.py", "a/../../b.py", "a.zip/b.py", "a.txt", ""] {
            assert_eq!(dag_path(bad), None, "{bad}");
        }
    }
}
