//! Writes variables, connections and pools for `airflow variables|connections|pools import`. Secrets are encrypted to
//! an age key, or left out to be filled in.

use crate::error::Error;
use leoflow_base::auth::masking::is_sensitive;
use leoflow_base::config::Recipient;
use leoflow_base::sys::fs::files;
use leoflow_lifecycle::backup::encryption::{EncryptTo, Output};
use serde_json::{Map, Value};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes JSON that only the owner may read.
pub fn write(path: &Path, value: &Value) -> Result<(), Error> {
    files::write_atomic(path, &pretty_json(value)?, 0o600).map_err(|error| Error::io("write", path, &error))
}

/// Writes JSON encrypted to all recipients; `age -d -i KEY FILE` decrypts it.
pub fn write_encrypted(path: &Path, value: &Value, recipients: &[Recipient]) -> Result<(), Error> {
    let io = |error: io::Error| Error::io("write", path, &error);
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

/// Leaves out the variables that Airflow would mask. Returns the others, and the names of those left out, such as
/// `variable api_key`.
pub fn open_variables(variables: &Value) -> (Value, Vec<String>) {
    let (hidden, open): (Vec<_>, Vec<_>) = variables
        .as_object()
        .into_iter()
        .flatten()
        .partition(|(key, entry)| is_sensitive(key) || contains_sensitive(entry));
    let open: Map<String, Value> = open.into_iter().map(|(key, entry)| (key.clone(), entry.clone())).collect();
    (open.into(), hidden.into_iter().map(|(key, _)| format!("variable {key}")).collect())
}

/// True when a name at any depth is that of a secret.
fn contains_sensitive(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.iter().any(|(name, value)| is_sensitive(name) || contains_sensitive(value)),
        Value::Array(items) => items.iter().any(contains_sensitive),
        _ => false,
    }
}

/// A file with mode 0600, encrypted if there are recipients.
pub struct PrivateFile(Output<BufWriter<File>>);

impl PrivateFile {
    pub fn create(path: &Path, recipients: &[Recipient]) -> io::Result<Self> {
        let file = BufWriter::new(OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?);
        EncryptTo::recipients(recipients).writer(file).map(Self)
    }

    pub fn writer(&mut self) -> &mut impl Write {
        &mut self.0
    }

    pub fn finish(self) -> io::Result<()> {
        self.0.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }
}

/// Blanks every possible secret of connections. Returns the connections, and the values to fill in, such as
/// `id: password, extra.token`.
pub fn template(connections: &Value) -> (Value, Vec<String>) {
    let mut to_fill = Vec::new();
    let blank_secrets = |(id, fields): (&String, &Value)| {
        let mut fields = fields.clone();
        let mut names = Vec::new();
        if fields["password"].as_str().is_some_and(|password| !password.is_empty()) {
            names.push("password".to_owned());
            fields["password"] = Value::Null;
        }
        if let Some(extra) = fields["extra"].as_str().filter(|extra| !extra.is_empty()) {
            // Only the provider knows which extras are secret.
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
            to_fill.push(format!("{id}: {}", names.join(", ")));
        }
        (id.clone(), fields)
    };
    let template: Map<String, Value> = connections.as_object().into_iter().flatten().map(blank_secrets).collect();
    (template.into(), to_fill)
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
        let (template, to_fill) = template(&all);
        assert_eq!(to_fill, ["db: password, extra.token, extra.a", "odd: extra"]);
        let text = template.to_string();
        assert!(["p4ss", "t0k", "s3cret"].iter().all(|secret| !text.contains(secret)), "{text}");
        assert_eq!((&template["db"]["login"], &template["plain"]["host"]), (&json!("me"), &json!("h")));
    }

    #[test]
    fn variables_that_airflow_masks_are_split_off() {
        let all = json!({"api_key": "k3y", "bucket": "b", "deep": {"value": {"list": [{"password": "p"}]}, "description": "d"}, "plain": {"a": 1}});
        let (open, hidden) = open_variables(&all);
        assert_eq!(open, json!({"bucket": "b", "plain": {"a": 1}}));
        assert_eq!(hidden, ["variable api_key", "variable deep"]);
    }

    #[test]
    fn only_the_recipients_key_decrypts() {
        let (ours, other) = (age::x25519::Identity::generate(), age::x25519::Identity::generate());
        let recipient = Recipient::parse(&ours.to_public().to_string()).unwrap();
        let path = tempfile::tempdir().unwrap().keep().join("file");
        write_encrypted(&path, &json!({}), &[recipient]).unwrap();
        let encrypted = std::fs::read(&path).unwrap();
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
        assert_eq!(age::decrypt(&ours, &encrypted).unwrap(), b"{}\n");
        assert!(age::decrypt(&other, &encrypted).is_err());
    }
}
