//! What a list is asked for, in Airflow's query parameters.

use super::api_error::ApiError;
use super::body::lax;
use super::request::{BODY, Params};
use crate::engine::store::listing::{Column, Conditions, Cursor, Listing, Order};
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Airflow's `maximum_page_limit`; a larger limit is lowered to it.
const MOST: i64 = 100;
const USUAL: i64 = 50;
/// Airflow's `MAX_SORT_PARAMS`.
const MOST_ORDERS: usize = 10;

/// What a list can be asked for, with Airflow's names.
pub struct Fields {
    /// What it may be ordered by.
    pub order: &'static [(&'static str, Column)],
    /// What it is ordered by where nobody says.
    pub usual: &'static [&'static str],
    /// It also has pages that a cursor tells.
    pub has_cursor: bool,
    /// `…_pattern` finds a part, and `…_prefix_pattern` what begins so.
    pub patterns: &'static [(&'static str, &'static str)],
    /// `…_gte`, `…_gt`, `…_lte` and `…_lt`.
    pub ranges: &'static [(&'static str, Column)],
    /// Exactly this.
    pub exact: &'static [(&'static str, Column)],
    /// One of these; they may come several times.
    pub one_of: &'static [(&'static str, Column)],
    /// The same, of a body alone.
    pub in_body: &'static [(&'static str, Column)],
}

pub const NOTHING: Fields = Fields {
    order: &[],
    usual: &["id"],
    has_cursor: false,
    patterns: &[],
    ranges: &[],
    exact: &[],
    one_of: &[],
    in_body: &[],
};

const PAGE_IN_BODY: [(&str, &str); 2] = [("page_limit", "limit"), ("page_offset", "offset")];

/// In a body: how many rows come before the page.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct PageOffset(#[serde(deserialize_with = "lax")] u32);

/// In a body: how many rows the page has at most, which may be more than a query can ask for.
#[derive(Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct PageLimit(#[serde(deserialize_with = "lax")] u32);

impl Default for PageLimit {
    fn default() -> Self {
        Self(100)
    }
}

const BOUNDS: [(&str, &str); 4] = [("_gte", ">="), ("_gt", ">"), ("_lte", "<="), ("_lt", "<")];

impl Params {
    /// The fields of a body that asks for a list. `renamed` are those that a query has by another name.
    pub fn of_body(body: &impl Serialize, renamed: &[(&str, &str)]) -> Result<Self, ApiError> {
        let body = serde_json::to_value(body).map_err(|error| ApiError::internal(&error))?;
        let mut pairs = Vec::new();
        for (name, value) in body.as_object().into_iter().flatten() {
            let other = PAGE_IN_BODY.iter().chain(renamed).find(|(field, _)| field == name);
            let name = other.map_or_else(|| name.clone(), |(_, other)| (*other).to_owned());
            let values = value.as_array().map_or_else(|| std::slice::from_ref(value), Vec::as_slice);
            pairs.extend(values.iter().filter_map(|one| match one {
                // Among states it is that of one that has none.
                Value::Null if value.is_array() => Some((name.clone(), "none".to_owned())),
                Value::Null => None,
                Value::String(text) => Some((name.clone(), text.clone())),
                other => Some((name.clone(), other.to_string())),
            }));
        }
        Ok(Self::in_body(pairs))
    }

    fn limit(&self) -> Result<i64, ApiError> {
        let most = if self.place() == BODY { i64::MAX } else { MOST };
        Ok(self.number("limit", USUAL)?.min(most))
    }

    /// Airflow's parameters of lists; what is not among the fields, the caller looks at.
    pub fn listing(&self, fields: &Fields) -> Result<Listing, ApiError> {
        let asked: Vec<&str> = if fields.order.is_empty() {
            Vec::new()
        } else {
            self.all("order_by").flat_map(|list| list.split(',')).collect()
        };
        let order = asked.into_iter().map(|name| order(name, fields.order)).collect::<Result<Vec<_>, _>>()?;
        if order.len() > MOST_ORDERS {
            let detail = format!("Ordering with more than {MOST_ORDERS} parameters is not allowed");
            return Err(ApiError::new(StatusCode::BAD_REQUEST, detail));
        }
        let mut conditions = Conditions::default();
        for (name, column) in fields.patterns {
            self.patterns(name, column, &mut conditions);
        }
        for (name, column) in fields.ranges {
            self.range(name, *column, &mut conditions)?;
        }
        let in_body = if self.place() == BODY { fields.in_body } else { &[] };
        for (name, column) in fields.exact.iter().chain(fields.one_of).chain(in_body) {
            conditions.any(*column, self.exact(name, *column)?);
        }
        Ok(Listing { conditions, order, limit: Some(self.limit()?), offset: self.number("offset", 0)?, cursor: None })
    }

    /// The same for a list that takes cursors.
    pub fn listing_with_cursor(&self, fields: &Fields, usual: Column, key: &[Column]) -> Result<Listing, ApiError> {
        let mut listing = self.listing(fields)?;
        listing.usually(usual);
        let invalid = |detail: &str| ApiError::new(StatusCode::BAD_REQUEST, detail);
        if let Some(text) = fields.has_cursor.then(|| self.text("cursor")).flatten() {
            listing.cursor = Some(Cursor::parse(text).ok_or_else(|| invalid("Invalid cursor token"))?);
        }
        listing.check_cursor(key).map_err(|_| invalid("Cursor token does not match current query shape"))?;
        Ok(listing)
    }

    fn patterns(&self, name: &str, column: &str, conditions: &mut Conditions) {
        if let Some(text) = self.text(&format!("{name}_pattern")).filter(|text| *text != "~") {
            let found = words(text).iter().map(|word| format!("%{word}%")).collect::<Vec<_>>();
            conditions.with(&format!("({column}) ILIKE ANY ({{}}::text[])"), found);
        }
        if let Some(text) = self.text(&format!("{name}_prefix_pattern")) {
            // As in Airflow, what is no letter and no digit at the end does not count.
            let begin = |word: &&str| word.trim_end_matches(|c: char| !c.is_alphanumeric()).to_owned();
            let found: Vec<String> = if text == "~" { Vec::new() } else { words(text).iter().map(begin).collect() };
            if found.iter().any(|begin| !begin.is_empty()) {
                let matches = "EXISTS (SELECT FROM unnest({}::text[]) AS p (begin) WHERE";
                conditions.with(&format!("{matches} starts_with(({column}), p.begin))"), found);
            } else {
                conditions.add(&format!("({column}) IS NOT NULL"), Vec::new());
            }
        }
    }

    /// The four bounds of one name.
    pub fn range(&self, name: &str, column: Column, conditions: &mut Conditions) -> Result<(), ApiError> {
        for (suffix, sign) in BOUNDS {
            let sql = self.bound(name, column.sql, sign);
            let name = format!("{name}{suffix}");
            match column.kind {
                "timestamptz" => conditions.maybe(&sql, self.time(&name)?),
                "bigint" => conditions.maybe(&sql, self.whole(&name)?),
                _ => conditions.maybe(&sql, self.fraction(&name)?),
            }
        }
        Ok(())
    }

    /// In a query, what has not begun or not ended yet does so now, or later.
    fn bound(&self, name: &str, column: &str, sign: &str) -> String {
        let compared = format!("({column}) {sign} {{}}");
        match sign {
            _ if !["start_date", "end_date"].contains(&name) || self.place() == BODY => compared,
            ">" | ">=" => format!("({compared} OR ({column}) IS NULL)"),
            _ => format!("(coalesce(({column}), now()) {sign} {{}})"),
        }
    }

    /// As texts that Postgres can make of that kind.
    fn exact(&self, name: &str, column: Column) -> Result<Vec<String>, ApiError> {
        let found = self.texts(name);
        if column.kind == "bigint" && found.iter().any(|text| text.parse::<i64>().is_err()) {
            let message = "Input should be a valid integer, unable to parse string as an integer";
            return Err(ApiError::unprocessable(&[self.place(), name], "int_parsing", message));
        }
        Ok(found)
    }
}

/// As part of a pattern, what stands for itself.
pub fn literal(text: &str) -> String {
    text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}

/// `a | b` is either.
fn words(text: &str) -> Vec<&str> {
    let words: Vec<&str> = text.split('|').map(str::trim).filter(|word| !word.is_empty()).collect();
    if text.contains('|') && !words.is_empty() { words } else { vec![text] }
}

fn order(name: &str, columns: &[(&str, Column)]) -> Result<Order, ApiError> {
    let (descending, plain) = name.strip_prefix('-').map_or((false, name), |plain| (true, plain));
    match columns.iter().find(|(known, _)| *known == plain) {
        Some((_, column)) => Ok(Order { column: *column, descending }),
        None => {
            let detail = format!("Ordering with '{plain}' is disallowed or the attribute does not exist on the model");
            Err(ApiError::new(StatusCode::BAD_REQUEST, detail))
        }
    }
}

/// A page of a list as Airflow answers it, which is called as its schema is.
macro_rules! collection {
    ($(#[$doc:meta])* $name:ident$(<$life:lifetime>)? { $field:ident: $row:ty }) => {
        $(#[$doc])*
        #[derive(serde::Serialize, schemars::JsonSchema)]
        pub struct $name$(<$life>)? {
            $field: Vec<$row>,
            total_entries: i64,
        }

        impl$(<$life>)? $name$(<$life>)? {
            /// `total` are all that there are, on this page and on others.
            pub fn of($field: Vec<$row>, total: i64) -> Self {
                Self { $field, total_entries: total }
            }
        }

        impl$(<$life>)? From<$crate::engine::store::listing::Found<$row>> for $name$(<$life>)? {
            fn from(found: $crate::engine::store::listing::Found<$row>) -> Self {
                Self::of(found.rows, found.total)
            }
        }

        /// Of all that there are.
        impl$(<$life>)? FromIterator<$row> for $name$(<$life>)? {
            fn from_iter<I: IntoIterator<Item = $row>>(rows: I) -> Self {
                let rows: Vec<$row> = rows.into_iter().collect();
                let total = i64::try_from(rows.len()).unwrap_or(i64::MAX);
                Self::of(rows, total)
            }
        }
    };
    ($(#[$doc:meta])* $name:ident { $field:ident: $row:ty }, with cursors) => {
        $(#[$doc])*
        #[derive(serde::Serialize, schemars::JsonSchema)]
        pub struct $name {
            $field: Vec<$row>,
            total_entries: Option<i64>,
            total_entries_limit: Option<i64>,
            next_cursor: Option<String>,
            previous_cursor: Option<String>,
        }

        impl From<$crate::engine::store::listing::Found<$row>> for $name {
            fn from(found: $crate::engine::store::listing::Found<$row>) -> Self {
                Self {
                    $field: found.rows,
                    total_entries: Some(found.total),
                    total_entries_limit: found.total_limit,
                    next_cursor: found.next,
                    previous_cursor: found.previous,
                }
            }

        }

        /// Of all that there are.
        impl FromIterator<$row> for $name {
            fn from_iter<I: IntoIterator<Item = $row>>(rows: I) -> Self {
                let $field: Vec<$row> = rows.into_iter().collect();
                let total_entries = i64::try_from($field.len()).ok();
                Self { $field, total_entries, total_entries_limit: None, next_cursor: None, previous_cursor: None }
            }
        }
    };
}

pub(crate) use collection;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_between_words_is_or() {
        assert_eq!(words("a"), ["a"]);
        assert_eq!(words("a | b|"), ["a", "b"]);
        assert_eq!(words(" | "), [" | "]);
    }
}
