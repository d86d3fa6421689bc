//! Writes the files of an export that `airflow variables|connections|pools import` read. With a recipient, variables,
//! connections and the history are encrypted; without one, possible secrets of variables and connections are omitted
//! and the user fills them in. Pools are never encrypted.

use crate::error::Error;
use leoflow_base::auth::masking::is_sensitive;
use leoflow_base::config::Recipient;
use leoflow_base::sys::fs::files;
use leoflow_lifecycle::backup::encryption::EncryptTo;
use leoflow_lifecycle::backup::format::archive::Layer;
use serde_json::{Map, Value};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes JSON that only the owner may read.
pub fn write_private_json(path: &Path, value: &Value) -> Result<(), Error> {
    files::write_atomic(path, &pretty_json(value)?, 0o600).map_err(Error::cannot("write", path))
}

/// Writes JSON encrypted to all recipients; `age -d -i KEY FILE` decrypts it.
pub fn write_encrypted_json(path: &Path, value: &Value, recipients: &[Recipient]) -> Result<(), Error> {
    let io = Error::cannot("write", path);
    let mut file = PrivateFile::create(path, recipients).map_err(io)?;
    file.writer().write_all(&pretty_json(value)?).map_err(io)?;
    file.finish().map_err(io)
}

/// Formats JSON with a newline at its end.
fn pretty_json(value: &Value) -> Result<Vec<u8>, Error> {
    let mut text = serde_json::to_vec_pretty(value).map_err(Error::bug)?;
    text.push(b'\n');
    Ok(text)
}

/// Omits the variables whose values Airflow would mask. Returns the other variables, and the names of the omitted ones,
/// such as `variable api_key`.
pub fn variables_without_secrets(variables: &Value) -> (Value, Vec<String>) {
    let (omitted, kept): (Vec<_>, Vec<_>) = variables
        .as_object()
        .into_iter()
        .flatten()
        .partition(|(key, entry)| is_sensitive(key) || contains_sensitive(entry));
    let kept: Map<String, Value> = kept.into_iter().map(|(key, entry)| (key.clone(), entry.clone())).collect();
    (kept.into(), omitted.into_iter().map(|(key, _)| format!("variable {key}")).collect())
}

/// True when any name in the value, at any depth, suggests a secret.
fn contains_sensitive(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.iter().any(|(name, value)| is_sensitive(name) || contains_sensitive(value)),
        Value::Array(items) => items.iter().any(contains_sensitive),
        _ => false,
    }
}

/// A new file with mode 0600, encrypted if there are recipients. Incomplete until `finish`.
pub struct PrivateFile(Box<dyn Layer<BufWriter<File>>>);

impl PrivateFile {
    pub fn create(path: &Path, recipients: &[Recipient]) -> io::Result<Self> {
        let file = BufWriter::new(OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?);
        EncryptTo::recipients(recipients).writer(file).map(Self)
    }

    pub fn writer(&mut self) -> &mut impl Write {
        &mut self.0
    }

    pub fn finish(self) -> io::Result<()> {
        files::sync(&self.0.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?)
    }
}

/// Blanks every possible secret of the connections. Returns the connections, and the names of the blanked values, such
/// as `id: password, extra.token`.
pub fn connections_template(connections: &Value) -> (Value, Vec<String>) {
    let mut blanked_values = Vec::new();
    let blank_secrets = |(id, fields): (&String, &Value)| {
        let mut fields = fields.clone();
        let mut names = Vec::new();
        if fields["password"].as_str().is_some_and(|password| !password.is_empty()) {
            names.push("password".to_owned());
            fields["password"] = Value::Null;
        }
        if let Some(extra) = fields["extra"].as_str().filter(|extra| !extra.is_empty()) {
            // Only the provider knows which extras are secret, so all are blanked.
            let (blank_extra, extra_names) = match serde_json::from_str::<Map<String, Value>>(extra) {
                Ok(object) => {
                    let names = object.keys().map(|key| format!("extra.{key}")).collect();
                    let blank: Map<_, _> = object.into_iter().map(|(key, _)| (key, Value::Null)).collect();
                    (Value::from(Value::Object(blank).to_string()), names)
                }
                Err(_) => (Value::Null, vec!["extra".to_owned()]),
            };
            fields["extra"] = blank_extra;
            names.extend(extra_names);
        }
        if !names.is_empty() {
            blanked_values.push(format!("{id}: {}", names.join(", ")));
        }
        (id.clone(), fields)
    };
    let template: Map<String, Value> = connections.as_object().into_iter().flatten().map(blank_secrets).collect();
    (template.into(), blanked_values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_template_contains_no_possible_secret() {
        let all = json!({
            "db": {"conn_type": "postgres", "host": "h", "login": "me", "password": "p4ss", "extra": "{\"token\":\"t0k\",\"a\":1}"},
            "odd": {"conn_type": "http", "password": null, "extra": "s3cret"},
            "plain": {"conn_type": "http", "host": "h", "password": "", "extra": null},
        });
        let (template, blanked_values) = connections_template(&all);
        assert_eq!(blanked_values, ["db: password, extra.token, extra.a", "odd: extra"]);
        let text = template.to_string();
        assert!(["p4ss", "t0k", "s3cret"].iter().all(|secret| !text.contains(secret)), "{text}");
        assert_eq!((&template["db"]["login"], &template["plain"]["host"]), (&json!("me"), &json!("h")));
    }

    #[test]
    fn omits_variables_that_airflow_masks() {
        let all = json!({"api_key": "k3y", "bucket": "b", "deep": {"value": {"list": [{"password": "p"}]}, "description": "d"}, "plain": {"a": 1}});
        let (kept, omitted) = variables_without_secrets(&all);
        assert_eq!(kept, json!({"bucket": "b", "plain": {"a": 1}}));
        assert_eq!(omitted, ["variable api_key", "variable deep"]);
    }

    #[test]
    fn only_the_recipients_key_decrypts() {
        let (ours, other) = (age::x25519::Identity::generate(), age::x25519::Identity::generate());
        let recipient = Recipient::parse(&ours.to_public().to_string()).unwrap();
        let path = tempfile::tempdir().unwrap().keep().join("file");
        write_encrypted_json(&path, &json!({}), &[recipient]).unwrap();
        let encrypted = std::fs::read(&path).unwrap();
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
        assert_eq!(age::decrypt(&ours, &encrypted).unwrap(), b"{}\n");
        assert!(age::decrypt(&other, &encrypted).is_err());
    }
}
