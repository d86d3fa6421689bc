//! Variables, connections and pools, in the files that `airflow variables|connections|pools import` read. What is secret is
//! encrypted to an age key, or left to be filled in.

use crate::config::Recipient;
use crate::error::Error;
use crate::sys::files;
use age::Encryptor;
use serde_json::{Map, Value};
use std::io::{self, Write};
use std::path::Path;

pub fn write(path: &Path, value: &Value) -> Result<(), Error> {
    files::write_atomic(path, &text(value)?, 0o600).map_err(|error| Error::io("write", path, &error))
}

/// Encrypted to all of them; `age -d -i KEY FILE` gives the JSON back.
pub fn write_encrypted(path: &Path, value: &Value, recipients: &[Recipient]) -> Result<(), Error> {
    let encrypted = encrypt(&text(value)?, recipients).map_err(|error| Error::io("write", path, &error))?;
    files::write_atomic(path, &encrypted, 0o600).map_err(|error| Error::io("write", path, &error))
}

fn text(value: &Value) -> Result<Vec<u8>, Error> {
    let mut text = serde_json::to_vec_pretty(value).map_err(Error::bug)?;
    text.push(b'\n');
    Ok(text)
}

fn encrypt(bytes: &[u8], recipients: &[Recipient]) -> io::Result<Vec<u8>> {
    let keys: Vec<_> = recipients.iter().filter_map(Recipient::of_age).collect();
    let encryptor = Encryptor::with_recipients(keys.iter().map(|key| &**key as &dyn age::Recipient));
    let mut encrypted = Vec::new();
    let mut writer = encryptor.map_err(io::Error::other)?.wrap_output(&mut encrypted)?;
    writer.write_all(bytes)?;
    writer.finish()?;
    Ok(encrypted)
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
    fn what_is_encrypted_is_read_by_its_key_alone() {
        let (ours, other) = (age::x25519::Identity::generate(), age::x25519::Identity::generate());
        let recipient = Recipient::parse(&ours.to_public().to_string()).unwrap();
        let encrypted = encrypt(b"{}\n", &[recipient]).unwrap();
        assert_eq!(age::decrypt(&ours, &encrypted).unwrap(), b"{}\n");
        assert!(age::decrypt(&other, &encrypted).is_err());
    }
}
