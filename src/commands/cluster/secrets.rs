//! Variables, connections and pools, in the files that `airflow variables|connections|pools import` read. What is secret is
//! encrypted to an age key, or left to be filled in.

use crate::auth::masking::is_sensitive;
use crate::backup::encryption::{EncryptTo, Output};
use crate::config::Recipient;
use crate::error::Error;
use crate::sys::files;
use serde_json::{Map, Value};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

pub fn write(path: &Path, value: &Value) -> Result<(), Error> {
    files::write_atomic(path, &text(value)?, 0o600).map_err(|error| Error::io("write", path, &error))
}

/// Encrypted to all of them; `age -d -i KEY FILE` gives the JSON back.
pub fn write_encrypted(path: &Path, value: &Value, recipients: &[Recipient]) -> Result<(), Error> {
    let io = |error: io::Error| Error::io("write", path, &error);
    let mut file = PrivateFile::create(path, recipients).map_err(io)?;
    file.writer().write_all(&text(value)?).map_err(io)?;
    file.finish().map_err(io)
}

fn text(value: &Value) -> Result<Vec<u8>, Error> {
    let mut text = serde_json::to_vec_pretty(value).map_err(Error::bug)?;
    text.push(b'\n');
    Ok(text)
}

/// Variables less those that Airflow would mask, and the names of these: `variable api_key`.
pub fn open_variables(variables: &Value) -> (Value, Vec<String>) {
    let (hidden, open): (Vec<_>, Vec<_>) = variables
        .as_object()
        .into_iter()
        .flatten()
        .partition(|(key, entry)| is_sensitive(key) || holds_sensitive(entry));
    let open: Map<String, Value> = open.into_iter().map(|(key, entry)| (key.clone(), entry.clone())).collect();
    (open.into(), hidden.into_iter().map(|(key, _)| format!("variable {key}")).collect())
}

fn holds_sensitive(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.iter().any(|(name, value)| is_sensitive(name) || holds_sensitive(value)),
        Value::Array(all) => all.iter().any(holds_sensitive),
        _ => false,
    }
}

/// A private file, encrypted where there are recipients.
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

/// Connections less what may be secret, and the names of what is to be filled in: `id: password, extra.token`.
pub fn template(connections: &Value) -> (Value, Vec<String>) {
    let mut to_fill = Vec::new();
    let blank = |(id, fields): (&String, &Value)| {
        let mut fields = fields.clone();
        let mut names = Vec::new();
        if fields["password"].as_str().is_some_and(|password| !password.is_empty()) {
            names.push("password".to_owned());
            fields["password"] = Value::Null;
        }
        if let Some(extra) = fields["extra"].as_str().filter(|extra| !extra.is_empty()) {
            // Which of its values are secret only the provider knows.
            let (blank, inside) = match serde_json::from_str::<Map<String, Value>>(extra) {
                Ok(object) => {
                    let names = object.keys().map(|key| format!("extra.{key}")).collect();
                    let blank: Map<_, _> = object.into_iter().map(|(key, _)| (key, Value::Null)).collect();
                    (Value::from(Value::Object(blank).to_string()), names)
                }
                Err(_) => (Value::Null, vec!["extra".to_owned()]),
            };
            fields["extra"] = blank;
            names.extend(inside);
        }
        if !names.is_empty() {
            to_fill.push(format!("{id}: {}", names.join(", ")));
        }
        (id.clone(), fields)
    };
    let blank: Map<String, Value> = connections.as_object().into_iter().flatten().map(blank).collect();
    (blank.into(), to_fill)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_that_may_be_secret_is_in_a_template() {
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
    fn variables_that_airflow_masks_are_left_to_be_set() {
        let all = json!({"api_key": "k3y", "bucket": "b", "deep": {"value": {"list": [{"password": "p"}]}, "description": "d"}, "plain": {"a": 1}});
        let (open, hidden) = open_variables(&all);
        assert_eq!(open, json!({"bucket": "b", "plain": {"a": 1}}));
        assert_eq!(hidden, ["variable api_key", "variable deep"]);
    }

    #[test]
    fn what_is_encrypted_is_read_by_its_key_alone() {
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
