//! The file formats of connections in Airflow's CLI: JSON, and the older URIs.
//! <https://airflow.apache.org/docs/apache-airflow/stable/howto/connection.html#connection-uri-format>

use leoflow_engine::store::secret::connections::Connection;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

/// Path in the local API for reading and writing connections with their secrets.
pub const LOCAL: &str = "/local/connections";

/// Reads `{"id": {…}}` or `{"id": "uri"}`.
pub fn from_airflow(file: Value) -> Result<Vec<Connection>, String> {
    let Value::Object(entries) = file else { return Err("the file is not a JSON object of connections".to_owned()) };
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
pub fn from_json(id: &str, entry: &Value) -> Result<Connection, String> {
    let object = entry.as_object().ok_or_else(|| format!("connection {id:?} is not a JSON object"))?;
    if let Some(uri) = object.get("uri").and_then(Value::as_str) {
        return from_uri(id, uri);
    }
    let mut connection = Connection { connection_id: id.to_owned(), ..Connection::default() };
    for (name, value) in object {
        let text = || match value {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text.clone())),
            Value::Number(number) => Ok(Some(number.to_string())),
            _ => Err(format!("{name} of connection {id:?} is not text")),
        };
        match name.as_str() {
            "conn_type" => connection.conn_type = text()?.unwrap_or_default(),
            "description" => connection.description = text()?,
            "login" => connection.login = text()?,
            "password" => connection.password = text()?,
            "host" => connection.host = text()?,
            "schema" => connection.schema = text()?,
            "port" => connection.port = port(id, value)?,
            "extra" | "extra_dejson" if object.contains_key("extra") && object.contains_key("extra_dejson") => {
                return Err(format!("connection {id:?} has both extra and extra_dejson"));
            }
            "extra" | "extra_dejson" => {
                connection.extra = if value.is_object() { Some(value.to_string()) } else { text()? };
            }
            "conn_id" | "connection_id" if value == id => {}
            "conn_id" | "connection_id" => return Err(format!("connection {id:?} has another id in it: {value}")),
            // Airflow's export writes these fields, and its import ignores them.
            "id" | "is_encrypted" | "is_extra_encrypted" | "get_uri" => {}
            _ => return Err(format!("connection {id:?} has an unknown field {name:?}")),
        }
    }
    Ok(connection)
}

fn port(id: &str, value: &Value) -> Result<Option<i32>, String> {
    let bad = || format!("port of connection {id:?} is not a number");
    match value {
        Value::Null => Ok(None),
        Value::String(text) if text.is_empty() => Ok(None),
        Value::String(text) => text.parse().map(Some).map_err(|_| bad()),
        other => other.as_i64().and_then(|number| number.try_into().ok()).map(Some).ok_or_else(bad),
    }
}

/// Reads `type://login:password@host:port/schema?key=value`, each part percent-encoded. The query parameter
/// `__extra__` holds the whole extra.
pub fn from_uri(id: &str, uri: &str) -> Result<Connection, String> {
    let bad = |problem: &str| format!("the URI of connection {id:?} {problem}");
    let (scheme, rest) = uri.split_once("://").ok_or_else(|| bad("has no type, as in postgres://…"))?;
    // Airflow's own form of a host with a protocol: http://https://example.org
    let (protocol, rest) = rest.split_once("://").map_or((None, rest), |(protocol, rest)| (Some(protocol), rest));
    if protocol.is_some_and(|protocol| protocol.contains(['@', ':', '/'])) {
        return Err(bad("has a host with an invalid protocol"));
    }
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let (authority, schema) = rest.split_once('/').map_or((rest, None), |(authority, path)| (authority, Some(path)));
    let (user, host_port) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    let (host, port) = match host_port.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (host_port, None),
    };
    let decode = |text: &str| match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(bad("is not percent-encoded UTF-8")),
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
    let port = port
        .filter(|port| !port.is_empty())
        .map(str::parse)
        .transpose()
        .map_err(|_| bad("has a port that is not a number"))?;
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
        extra: query.filter(|query| !query.is_empty()).map(|query| extra(query, &decode)).transpose()?,
    })
}

/// Converts a query to the JSON text of `extra`.
fn extra(query: &str, decode: &dyn Fn(&str) -> Result<String, String>) -> Result<String, String> {
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
        let error = from_airflow(json!({"db": {"conn_type": "http", "pasword": "x"}})).unwrap_err();
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
