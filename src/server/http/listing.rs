//! Airflow's query parameters for lists.

use super::api_error::ApiError;
use super::body::lax;
use super::request::{BODY, Params};
use axum::http::StatusCode;
use leoflow_engine::store::list::listing::{Column, Conditions, Cursor, Listing, Order};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Airflow's `maximum_page_limit`; larger limits are reduced to it.
const MAX_LIMIT: i64 = 100;
const DEFAULT_LIMIT: i64 = 50;
/// Airflow's `MAX_SORT_PARAMS`.
const MAX_SORT_FIELDS: usize = 10;

/// The parameters of a list, with Airflow's names.
pub struct Fields {
    /// Names for `order_by`, with their columns.
    pub order: &'static [(&'static str, Column)],
    /// Names in `order_by` by default.
    pub default_order: &'static [&'static str],
    /// True when the list also supports cursors as an alternative to offsets.
    pub has_cursor: bool,
    /// Names and SQL expressions: `NAME_pattern` matches a substring, `NAME_prefix_pattern` a prefix.
    pub patterns: &'static [(&'static str, &'static str)],
    /// Names with bounds: `NAME_gte`, `NAME_gt`, `NAME_lte` and `NAME_lt`.
    pub ranges: &'static [(&'static str, Column)],
    /// Names that match one value exactly.
    pub exact: &'static [(&'static str, Column)],
    /// Names that match any of several values.
    pub one_of: &'static [(&'static str, Column)],
    /// Names that match any of several values, in bodies only.
    pub in_body: &'static [(&'static str, Column)],
}

/// A list with `limit` and `offset` only; the base of other lists.
pub const NO_FIELDS: Fields = Fields {
    order: &[],
    default_order: &["id"],
    has_cursor: false,
    patterns: &[],
    ranges: &[],
    exact: &[],
    one_of: &[],
    in_body: &[],
};

/// Names of paging fields in a body, with their query names.
const PAGE_FIELDS_IN_BODY: [(&str, &str); 2] = [("page_limit", "limit"), ("page_offset", "offset")];

/// Rows to skip, in a body.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct PageOffset(#[serde(deserialize_with = "lax")] u32);

/// Most rows of a page, in a body; may exceed the limit for queries.
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
    /// Converts the fields of a list request's body. `renamed` maps them to query names where these differ.
    pub fn from_body(body: &impl Serialize, renamed: &[(&str, &str)]) -> Result<Self, ApiError> {
        let body = serde_json::to_value(body).map_err(|error| ApiError::internal(&error))?;
        let mut pairs = Vec::new();
        for (name, value) in body.as_object().into_iter().flatten() {
            let renamed = PAGE_FIELDS_IN_BODY.iter().chain(renamed).find(|(field, _)| field == name);
            let name = renamed.map_or_else(|| name.clone(), |(_, query_name)| (*query_name).to_owned());
            let values = value.as_array().map_or_else(|| std::slice::from_ref(value), Vec::as_slice);
            pairs.extend(values.iter().filter_map(|item| match item {
                // A null among states selects instances without a state.
                Value::Null if value.is_array() => Some((name.clone(), "none".to_owned())),
                Value::Null => None,
                Value::String(text) => Some((name.clone(), text.clone())),
                other => Some((name.clone(), other.to_string())),
            }));
        }
        Ok(Self::from_body_pairs(pairs))
    }

    fn limit(&self) -> Result<i64, ApiError> {
        let max = if self.location() == BODY { i64::MAX } else { MAX_LIMIT };
        Ok(self.number("limit", DEFAULT_LIMIT)?.min(max))
    }

    /// Builds a listing from the parameters in `fields`; the caller handles others.
    pub fn listing(&self, fields: &Fields) -> Result<Listing, ApiError> {
        let names: Vec<&str> = if fields.order.is_empty() {
            Vec::new()
        } else {
            self.all("order_by").flat_map(|list| list.split(',')).collect()
        };
        let order = names.into_iter().map(|name| parse_order(name, fields.order)).collect::<Result<Vec<_>, _>>()?;
        if order.len() > MAX_SORT_FIELDS {
            let detail = format!("Ordering with more than {MAX_SORT_FIELDS} parameters is not allowed");
            return Err(ApiError::new(StatusCode::BAD_REQUEST, detail));
        }
        let mut conditions = Conditions::default();
        for (name, column) in fields.patterns {
            self.patterns(name, column, &mut conditions);
        }
        for (name, column) in fields.ranges {
            self.range(name, *column, &mut conditions)?;
        }
        let in_body = if self.location() == BODY { fields.in_body } else { &[] };
        for (name, column) in fields.exact.iter().chain(fields.one_of).chain(in_body) {
            conditions.any(*column, self.exact(name, *column)?);
        }
        Ok(Listing { conditions, order, limit: Some(self.limit()?), offset: self.number("offset", 0)?, cursor: None })
    }

    /// Builds a listing that accepts cursors. `key` identifies a row; a cursor holds its values.
    pub fn listing_with_cursor(
        &self,
        fields: &Fields,
        default_order: Column,
        key: &[Column],
    ) -> Result<Listing, ApiError> {
        let mut listing = self.listing(fields)?;
        listing.order_by_default(default_order);
        let invalid = |detail: &str| ApiError::new(StatusCode::BAD_REQUEST, detail);
        if let Some(text) = fields.has_cursor.then(|| self.text("cursor")).flatten() {
            listing.cursor = Some(Cursor::parse(text).ok_or_else(|| invalid("Invalid cursor token"))?);
        }
        listing.check_cursor(key).map_err(|_| invalid("Cursor token does not match current query shape"))?;
        Ok(listing)
    }

    /// Adds the conditions of `NAME_pattern` and `NAME_prefix_pattern`; `~` matches every value.
    fn patterns(&self, name: &str, column: &str, conditions: &mut Conditions) {
        if let Some(text) = self.text(&format!("{name}_pattern")).filter(|text| *text != "~") {
            let patterns = alternatives(text).iter().map(|text| format!("%{text}%")).collect::<Vec<_>>();
            conditions.with(&format!("({column}) ILIKE ANY ({{}}::text[])"), patterns);
        }
        if let Some(text) = self.text(&format!("{name}_prefix_pattern")) {
            // As in Airflow, trailing characters other than letters and digits are ignored.
            let prefix = |text: &&str| text.trim_end_matches(|c: char| !c.is_alphanumeric()).to_owned();
            let prefixes: Vec<String> =
                if text == "~" { Vec::new() } else { alternatives(text).iter().map(prefix).collect() };
            if prefixes.iter().any(|prefix| !prefix.is_empty()) {
                let matches = "EXISTS (SELECT FROM unnest({}::text[]) AS p (begin) WHERE";
                conditions.with(&format!("{matches} starts_with(({column}), p.begin))"), prefixes);
            } else {
                conditions.add(&format!("({column}) IS NOT NULL"), Vec::new());
            }
        }
    }

    /// Adds the four bounds of a field.
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

    /// Returns the condition of one bound. In a query, as in Airflow, a null `start_date` or `end_date` is later than
    /// any lower bound, and counts as now for an upper bound.
    fn bound(&self, name: &str, column: &str, sign: &str) -> String {
        let comparison = format!("({column}) {sign} {{}}");
        match sign {
            _ if !["start_date", "end_date"].contains(&name) || self.location() == BODY => comparison,
            ">" | ">=" => format!("({comparison} OR ({column}) IS NULL)"),
            _ => format!("(coalesce(({column}), now()) {sign} {{}})"),
        }
    }

    /// Returns all values of a parameter, as texts that Postgres can cast to the column's type.
    fn exact(&self, name: &str, column: Column) -> Result<Vec<String>, ApiError> {
        let texts = self.texts(name);
        if column.kind == "bigint" && texts.iter().any(|text| text.parse::<i64>().is_err()) {
            let message = "Input should be a valid integer, unable to parse string as an integer";
            return Err(ApiError::unprocessable(&[self.location(), name], "int_parsing", message));
        }
        Ok(texts)
    }
}

/// Escapes LIKE wildcards.
pub fn escape_like(text: &str) -> String {
    text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}

/// Splits alternatives: `a | b` matches either.
fn alternatives(text: &str) -> Vec<&str> {
    let alternatives: Vec<&str> = text.split('|').map(str::trim).filter(|text| !text.is_empty()).collect();
    if text.contains('|') && !alternatives.is_empty() { alternatives } else { vec![text] }
}

fn parse_order(name: &str, columns: &[(&str, Column)]) -> Result<Order, ApiError> {
    let (descending, plain) = name.strip_prefix('-').map_or((false, name), |plain| (true, plain));
    match columns.iter().find(|(known, _)| *known == plain) {
        Some((_, column)) => Ok(Order { column: *column, descending }),
        None => {
            let detail = format!("Ordering with '{plain}' is disallowed or the attribute does not exist on the model");
            Err(ApiError::new(StatusCode::BAD_REQUEST, detail))
        }
    }
}

/// Defines a page of a list as Airflow returns it; the type is named like its schema.
macro_rules! collection {
    ($(#[$doc:meta])* $name:ident$(<$life:lifetime>)? { $field:ident: $row:ty }) => {
        $(#[$doc])*
        #[derive(serde::Serialize, schemars::JsonSchema)]
        pub struct $name$(<$life>)? {
            $field: Vec<$row>,
            total_entries: i64,
        }

        impl$(<$life>)? $name$(<$life>)? {
            /// Builds a page; `total` counts the rows of all pages.
            pub fn new($field: Vec<$row>, total: i64) -> Self {
                Self { $field, total_entries: total }
            }
        }

        impl$(<$life>)? From<leoflow_engine::store::list::listing::ListPage<$row>> for $name$(<$life>)? {
            fn from(page: leoflow_engine::store::list::listing::ListPage<$row>) -> Self {
                Self::new(page.rows, page.total)
            }
        }

        /// A page with all rows.
        impl$(<$life>)? FromIterator<$row> for $name$(<$life>)? {
            fn from_iter<I: IntoIterator<Item = $row>>(rows: I) -> Self {
                let rows: Vec<$row> = rows.into_iter().collect();
                let total = i64::try_from(rows.len()).unwrap_or(i64::MAX);
                Self::new(rows, total)
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

        impl From<leoflow_engine::store::list::listing::ListPage<$row>> for $name {
            fn from(page: leoflow_engine::store::list::listing::ListPage<$row>) -> Self {
                Self {
                    $field: page.rows,
                    total_entries: Some(page.total),
                    total_entries_limit: page.total_limit,
                    next_cursor: page.next,
                    previous_cursor: page.previous,
                }
            }

        }

        /// A page with all rows.
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
    fn a_pipe_separates_alternatives() {
        assert_eq!(alternatives("a"), ["a"]);
        assert_eq!(alternatives("a | b|"), ["a", "b"]);
        assert_eq!(alternatives(" | "), [" | "]);
    }
}
