//! The file formats of connections in Airflow's CLI: JSON, and the older URIs.
//! <https://airflow.apache.org/docs/apache-airflow/stable/howto/connection.html#connection-uri-format>

use crate::error::Error;
use leoflow_engine::store::secret::connections::Connection;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// Path in the local API for reading and writing connections with their secrets.
pub const LOCAL: &str = "/local/connections";

/// Why a connection in one of the formats cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    #[error("the file is not a JSON object of connections")]
    NotAnObject,
    #[error("connection {0:?} is not a JSON object")]
    NoFields(String),
    #[error("{field} of connection {id:?} is not {expected}")]
    Field { id: String, field: String, expected: &'static str },
    #[error("connection {id:?} has an unknown field {field:?}")]
    UnknownField { id: String, field: String },
    #[error("connection {0:?} has both extra and extra_dejson")]
    TwoExtras(String),
    #[error("connection {id:?} has another id in it: {other}")]
    OtherId { id: String, other: Value },
    #[error("the URI of connection {id:?} {fault}")]
    Uri { id: String, fault: UriFault },
}

#[derive(Debug, Clone, Copy, thiserror::Error)]
pub enum UriFault {
    #[error("has no type, as in postgres://…")]
    NoType,
    #[error("has a host with an invalid protocol")]
    Protocol,
    #[error("is not percent-encoded UTF-8")]
    Encoding,
    #[error("has a port that is not a number")]
    Port,
}

/// The error of an import.
impl From<ConnectionError> for Error {
    fn from(error: ConnectionError) -> Self {
        Self::failed(error).hint("nothing was imported")
    }
}

/// Reads `{"id": {…}}` or `{"id": "uri"}`.
pub fn from_airflow(file: Value) -> Result<Vec<Connection>, ConnectionError> {
    let Value::Object(entries) = file else { return Err(ConnectionError::NotAnObject) };
    entries
        .into_iter()
        .map(|(id, entry)| match &entry {
            Value::String(uri) => from_uri(&id, uri),
            _ => from_json(&id, &entry),
        })
        .collect()
}

/// Converts connections to the format of Airflow's export.
pub fn to_airflow(connections: &[Connection]) -> Value {
    let entry = |connection: &Connection| {
        let fields = json!({
            "conn_type": connection.conn_type,
            "description": connection.description,
            "login": connection.login,
            "password": connection.password,
            "host": connection.host,
            "port": connection.port,
            "schema": connection.schema,
            "extra": connection.extra,
        });
        (connection.connection_id.clone(), fields)
    };
    Value::Object(connections.iter().map(entry).collect::<Map<_, _>>())
}

/// Reads one connection's object. `extra` may be text or an object. An unknown field is an error, so that a
/// misspelt field is not silently dropped; but a `uri` replaces all other fields.
pub fn from_json(id: &str, entry: &Value) -> Result<Connection, ConnectionError> {
    let object = entry.as_object().ok_or_else(|| ConnectionError::NoFields(id.to_owned()))?;
    let wrong = |field: &str, expected| {
        let (id, field) = (id.to_owned(), field.to_owned());
        ConnectionError::Field { id, field, expected }
    };
    if let Some(uri) = object.get("uri").and_then(Value::as_str) {
        return from_uri(id, uri);
    }
    let mut connection = Connection { connection_id: id.to_owned(), ..Connection::default() };
    for (name, value) in object {
        let text = || match value {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text.clone())),
            Value::Number(number) => Ok(Some(number.to_string())),
            _ => Err(wrong(name, "text")),
        };
        match name.as_str() {
            "conn_type" => connection.conn_type = text()?.unwrap_or_default(),
            "description" => connection.description = text()?,
            "login" => connection.login = text()?,
            "password" => connection.password = text()?,
            "host" => connection.host = text()?,
            "schema" => connection.schema = text()?,
            "port" => connection.port = port(value).ok_or_else(|| wrong(name, "a number"))?,
            "extra" | "extra_dejson" if object.contains_key("extra") && object.contains_key("extra_dejson") => {
                return Err(ConnectionError::TwoExtras(id.to_owned()));
            }
            "extra" | "extra_dejson" => {
                connection.extra = if value.is_object() { Some(value.to_string()) } else { text()? };
            }
            "conn_id" | "connection_id" if value == id => {}
            "conn_id" | "connection_id" => {
                return Err(ConnectionError::OtherId { id: id.to_owned(), other: value.clone() });
            }
            // Airflow's export writes these fields, and its import ignores them.
            "id" | "is_encrypted" | "is_extra_encrypted" | "get_uri" => {}
            _ => return Err(ConnectionError::UnknownField { id: id.to_owned(), field: name.clone() }),
        }
    }
    Ok(connection)
}

/// Reads a port, which may be missing; `None` for another value.
fn port(value: &Value) -> Option<Option<i32>> {
    match value {
        Value::Null => Some(None),
        Value::String(text) if text.is_empty() => Some(None),
        Value::String(text) => text.parse().ok().map(Some),
        other => other.as_i64().and_then(|number| number.try_into().ok()).map(Some),
    }
}

/// Reads `type://login:password@host:port/schema?key=value`, each part percent-encoded. The query parameter
/// `__extra__` holds the whole extra.
pub fn from_uri(id: &str, uri: &str) -> Result<Connection, ConnectionError> {
    parse_uri(id, uri).map_err(|fault| ConnectionError::Uri { id: id.to_owned(), fault })
}

fn parse_uri(id: &str, uri: &str) -> Result<Connection, UriFault> {
    let (scheme, rest) = uri.split_once("://").ok_or(UriFault::NoType)?;
    // Airflow's own form of a host with a protocol: http://https://example.org
    let (protocol, rest) = rest.split_once("://").map_or((None, rest), |(protocol, rest)| (Some(protocol), rest));
    if protocol.is_some_and(|protocol| protocol.contains(['@', ':', '/'])) {
        return Err(UriFault::Protocol);
    }
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let (authority, schema) = rest.split_once('/').map_or((rest, None), |(authority, path)| (authority, Some(path)));
    let (user, host_port) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    let (host, port) = match host_port.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (host_port, None),
    };
    let decode_part = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(decode).transpose();
    let (login, password) = user.map_or((None, None), |user| match user.split_once(':') {
        Some((login, password)) => (Some(login), Some(password)),
        None => (Some(user), None),
    });
    // Connection types whose name differs from their URI scheme, as in Airflow.
    let conn_type = match scheme {
        "postgresql" => "postgres".to_owned(),
        other => other.replace('-', "_"),
    };
    let port = port.filter(|port| !port.is_empty()).map(str::parse).transpose().map_err(|_| UriFault::Port)?;
    Ok(Connection {
        connection_id: id.to_owned(),
        conn_type,
        description: None,
        host: decode_part(Some(host))?
            .map(|host| protocol.map_or_else(|| host.clone(), |protocol| format!("{protocol}://{host}"))),
        login: decode_part(login)?,
        schema: decode_part(schema)?,
        port,
        password: decode_part(password)?,
        extra: query.filter(|query| !query.is_empty()).map(extra).transpose()?,
    })
}

fn decode(text: &str) -> Result<String, UriFault> {
    percent_decode_str(text).decode_utf8().map(Cow::into_owned).map_err(|_| UriFault::Encoding)
}

/// Converts a query to the JSON text of `extra`.
fn extra(query: &str) -> Result<String, UriFault> {
    let mut object = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (key, value) = (decode(&key.replace('+', " "))?, decode(&value.replace('+', " "))?);
        if key == "__extra__" {
            return Ok(value);
        }
        object.insert(key, value.into());
    }
    Ok(Value::Object(object).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn import_reads_what_export_writes() {
        let full = Connection {
            connection_id: "db".into(),
            conn_type: "postgres".into(),
            description: Some("d".into()),
            host: Some("h".into()),
            login: Some("l".into()),
            schema: Some("s".into()),
            port: Some(5432),
            password: Some("p".into()),
            extra: Some(r#"{"a": 1}"#.into()),
        };
        let bare = Connection { connection_id: "b".into(), conn_type: "http".into(), ..Connection::default() };
        let all = vec![full, bare];
        assert_eq!(from_airflow(to_airflow(&all)).unwrap(), all);
    }

    #[test]
    fn reads_uris_as_airflow_does() {
        let parsed = from_uri("x", "postgresql://me:p%40ss@db.local:5432/data?sslmode=require&a=b%20c").unwrap();
        assert_eq!(parsed.conn_type, "postgres");
        assert_eq!(parsed.login.as_deref(), Some("me"));
        assert_eq!(parsed.password.as_deref(), Some("p@ss"));
        assert_eq!(parsed.host.as_deref(), Some("db.local"));
        assert_eq!(parsed.port, Some(5432));
        assert_eq!(parsed.schema.as_deref(), Some("data"));
        assert_eq!(parsed.extra.as_deref(), Some(r#"{"sslmode":"require","a":"b c"}"#));
        let bare = from_uri("x", "google-cloud-platform://").unwrap();
        assert_eq!((bare.conn_type.as_str(), bare.host), ("google_cloud_platform", None));
        assert_eq!(from_uri("x", "a://?__extra__=%7B%22b%22%3A1%7D").unwrap().extra.unwrap(), r#"{"b":1}"#);
        let with_protocol = from_uri("x", "http://https://example.org/path").unwrap();
        assert_eq!(
            (with_protocol.host.as_deref(), with_protocol.schema.as_deref()),
            (Some("https://example.org"), Some("path"))
        );
        // As in Airflow, an invalid escape stays as it is.
        assert_eq!(from_uri("x", "a://%zz").unwrap().host.as_deref(), Some("%zz"));
        for bad in ["nothing", "a://h:port/", "a://%ff"] {
            assert!(from_uri("x", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rejects_unknown_and_conflicting_fields() {
        let error = from_airflow(json!({"db": {"conn_type": "http", "pasword": "x"}})).unwrap_err().to_string();
        assert!(error.contains("pasword"), "{error}");
        assert!(from_airflow(json!({"db": {"conn_type": "http", "conn_id": "other"}})).is_err());
        assert!(from_airflow(json!({"db": {"conn_type": "http", "extra": "{}", "extra_dejson": {}}})).is_err());
    }

    #[test]
    fn reads_airflows_other_json_forms() {
        let file =
            json!({"a": {"conn_type": "http", "extra_dejson": {"k": 1}}, "b": {"uri": "http://h"}, "c": "http://h"});
        let all = from_airflow(file).unwrap();
        assert_eq!(all[0].extra.as_deref(), Some(r#"{"k":1}"#));
        assert_eq!((all[1].host.as_deref(), all[2].host.as_deref()), (Some("h"), Some("h")));
    }
}
