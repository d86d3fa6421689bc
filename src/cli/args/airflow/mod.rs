//! Airflow's command line: `commands.txt` has what runs here for each of its commands and flags.

mod translate;

pub use translate::{Program, Refusal, Translation, translate};

use serde_json::{Map, Value};
use std::fmt::Write as _;

const TABLE: &str = include_str!("commands.txt");

/// What happens to a command of Airflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Runs our command.
    Ours(&'static str),
    /// Is refused with a sentence, even if an Airflow is installed: its own database is not that of the instance.
    Refused(&'static str),
    /// An installed Airflow runs it, because it reads that installation; without one it is refused with the sentence.
    Installed(&'static str),
}

/// What happens to a flag of Airflow that is not passed on as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Drop,
    /// Has this name here.
    As(&'static str),
    /// Its value is a positional argument here.
    Value,
    /// Dropped with this value, otherwise refused with a sentence.
    Only(&'static str, &'static str),
    Refuse(&'static str),
}

#[derive(Debug)]
pub struct Flag {
    pub names: Vec<&'static str>,
    takes_value: bool,
    pub action: Action,
    /// False if the flag has another meaning in our own command line.
    pub for_leoflow: bool,
}

/// A list in a result, and the keys of its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    list: &'static str,
    /// Airflow's name of a key and ours.
    keys: Vec<(&'static str, &'static str)>,
}

impl Rows {
    /// The list of the result with Airflow's keys; the result itself if it has no such list.
    pub fn of(&self, result: Value) -> Value {
        let entries = match result.get(self.list) {
            Some(Value::Array(entries)) => entries.as_slice(),
            None if self.list == "." => std::slice::from_ref(&result),
            _ => return result,
        };
        let row = |entry: &Value| {
            let field = |(name, ours): &(&str, &str)| {
                Some(((*name).to_owned(), entry.get(*ours).or_else(|| result.get(*ours))?.clone()))
            };
            Value::Object(self.keys.iter().filter_map(field).collect::<Map<_, _>>())
        };
        entries.iter().map(row).collect()
    }
}

#[derive(Debug)]
pub struct Rule {
    /// The words of Airflow's command; a single word stands for a whole group.
    pub command: &'static str,
    pub outcome: Outcome,
    pub flags: Vec<Flag>,
    /// Arguments that are added for the program `airflow`.
    added: &'static str,
    pub rows: Option<Rows>,
    pub note: &'static str,
}

/// The rules in the order of the table, and the flags of all commands.
pub fn rules() -> (Vec<Rule>, Vec<Flag>) {
    let (mut rules, mut common) = (Vec::<Rule>::new(), Vec::new());
    for line in TABLE.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let Some(detail) = line.strip_prefix("    ") else {
            rules.extend(read_rule(line));
            continue;
        };
        let Some((name, rest)) = detail.split_once(' ') else { continue };
        match (name, rules.last_mut()) {
            ("add", Some(rule)) => rule.added = rest,
            ("note", Some(rule)) => rule.note = rest,
            ("rows", Some(rule)) => rule.rows = read_rows(rest),
            (_, Some(rule)) => rule.flags.extend(read_flag(name, rest)),
            (_, None) => common.extend(read_flag(name, rest)),
        }
    }
    (rules, common)
}

fn read_rule(line: &'static str) -> Option<Rule> {
    let after = |sign| line.split_once(sign);
    let (command, outcome) = match (after(" > "), after(" ! "), after(" ? ")) {
        (Some((command, ours)), ..) => (command, Outcome::Ours(ours)),
        (_, Some((command, sentence)), _) => (command, Outcome::Refused(sentence)),
        (.., Some((command, sentence))) => (command, Outcome::Installed(sentence)),
        _ => return None,
    };
    Some(Rule { command, outcome, flags: Vec::new(), added: "", rows: None, note: "" })
}

fn read_flag(names: &'static str, text: &'static str) -> Option<Flag> {
    let (text, for_leoflow) = text.strip_suffix(" airflow").map_or((text, true), |text| (text, false));
    let (action, rest) = text.split_once(' ').unwrap_or((text, ""));
    let action = match action {
        "drop" => Action::Drop,
        "as" => Action::As(rest),
        "value" => Action::Value,
        "only" => rest.split_once(' ').map(|(value, sentence)| Action::Only(value, sentence))?,
        "refuse" => Action::Refuse(rest),
        _ => return None,
    };
    let takes_value = names.contains('=');
    Some(Flag {
        names: names.split(',').map(|name| name.trim_end_matches('=')).collect(),
        takes_value,
        action,
        for_leoflow,
    })
}

fn read_rows(text: &'static str) -> Option<Rows> {
    let (list, keys) = text.split_once(' ')?;
    Some(Rows { list, keys: keys.split(' ').map(|key| key.split_once('=').unwrap_or((key, key))).collect() })
}

/// Lists the commands, or those of one group, and what runs here.
fn listing(group: Option<&str>) -> String {
    let (rules, _) = rules();
    let is_listed = |rule: &&Rule| group.is_none_or(|group| rule.command.split(' ').next() == Some(group));
    let mut text =
        String::from("The program airflow of a Leoflow instance. Airflow's commands and what runs here:\n\n");
    for Rule { command, outcome, .. } in rules.iter().filter(is_listed) {
        // Writing to text cannot fail.
        let _ = match outcome {
            Outcome::Ours(ours) => writeln!(text, "  {command:<38} leoflow {ours}"),
            Outcome::Refused(sentence) | Outcome::Installed(sentence) => writeln!(text, "  {command:<38} - {sentence}"),
        };
    }
    text.push_str("\nExample:\n  airflow dags trigger hello --conf '{\"name\": \"Ada\"}'\n");
    text
}
