//! Airflow's query parameters for lists.

use super::api_error::ApiError;
use super::body::lax;
use super::request::{BODY, Params};
use jiff::Timestamp;
use leoflow_engine::store::list::column::{FieldType, Order};
use leoflow_engine::store::list::field::ListField;
use leoflow_engine::store::list::filter::{FieldTest, Range, Unset};
use leoflow_engine::store::list::listing::{CursorError, Listing, Page};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Airflow's `maximum_page_limit`; larger limits in a query are reduced to it.
const MAX_LIMIT: i64 = 100;
const DEFAULT_LIMIT: i64 = 50;
/// Airflow's `MAX_SORT_PARAMS`.
const MAX_SORT_FIELDS: usize = 10;

/// The parameters of a list, with Airflow's names, and the fields of the entity that they apply to.
pub struct Fields<F: 'static> {
    /// Names for `order_by`.
    pub order: &'static [(&'static str, F)],
    /// Default of `order_by` in the OpenAPI document. The handler sets the order itself.
    pub default_order: &'static [&'static str],
    /// True when the list also supports cursors as an alternative to offsets.
    pub has_cursor: bool,
    /// `NAME_pattern` matches a substring, `NAME_prefix_pattern` a prefix.
    pub patterns: &'static [(&'static str, F)],
    /// Names with bounds: `NAME_gte`, `NAME_gt`, `NAME_lte` and `NAME_lt`.
    pub ranges: &'static [(&'static str, F)],
    /// Names that match one value exactly.
    pub exact: &'static [(&'static str, F)],
    /// Names that match any of several values.
    pub one_of: &'static [(&'static str, F)],
    /// Names that match any of several values, in bodies only.
    pub in_body: &'static [(&'static str, F)],
}

impl<F> Fields<F> {
    /// A list with `limit` and `offset` only; the base of other lists.
    pub const NONE: Self = Self {
        order: &[],
        default_order: &["id"],
        has_cursor: false,
        patterns: &[],
        ranges: &[],
        exact: &[],
        one_of: &[],
        in_body: &[],
    };
}

/// Names of paging fields in a body, with their query names.
const PAGE_FIELDS_IN_BODY: [(&str, &str); 2] = [("page_limit", "limit"), ("page_offset", "offset")];

/// Rows to skip, in a body.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct PageOffset(#[serde(deserialize_with = "lax")] u32);

/// Maximum rows of a page, in a body; may exceed `MAX_LIMIT`, which applies to queries.
#[derive(Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct PageLimit(#[serde(deserialize_with = "lax")] u32);

impl Default for PageLimit {
    fn default() -> Self {
        Self(100)
    }
}

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
                // Only a list of states can contain null, which selects instances without a state.
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

    /// Parses `limit` and `offset`.
    pub fn page(&self) -> Result<Page, ApiError> {
        Ok(Page { limit: Some(self.limit()?), offset: self.number("offset", 0)? })
    }

    /// Parses `order_by` with these names.
    pub fn order<F: Copy>(&self, names: &[(&str, F)]) -> Result<Vec<Order<F>>, ApiError> {
        let requested = self.all("order_by").flat_map(|list| list.split(','));
        let order = requested.map(|name| parse_order(name, names)).collect::<Result<Vec<_>, _>>()?;
        if order.len() > MAX_SORT_FIELDS {
            let detail = format!("Ordering with more than {MAX_SORT_FIELDS} parameters is not allowed");
            return Err(ApiError::bad_request(detail));
        }
        Ok(order)
    }

    /// Builds a listing from the parameters in `fields`; the caller handles others.
    pub fn listing<F: ListField>(&self, fields: &Fields<F>) -> Result<Listing<F>, ApiError> {
        let mut listing = Listing::default();
        if !fields.order.is_empty() {
            listing.order = self.order(fields.order)?;
        }
        for (name, field) in fields.patterns {
            self.patterns(name).into_iter().for_each(|test| listing.test(*field, test));
        }
        for (name, field) in fields.ranges {
            listing.test(*field, self.range(name, field.field_type())?);
        }
        let in_body = if self.location() == BODY { fields.in_body } else { &[] };
        for (name, field) in fields.exact.iter().chain(fields.one_of).chain(in_body) {
            listing.test(*field, FieldTest::OneOf(self.exact(name, field.field_type())?));
        }
        listing.page = self.page()?;
        Ok(listing)
    }

    /// Like [`Self::listing`], with a default order, and from a cursor if the list supports cursors.
    pub fn listing_with_cursor<F: ListField>(
        &self,
        fields: &Fields<F>,
        default_order: F,
    ) -> Result<Listing<F>, ApiError> {
        let mut listing = self.listing(fields)?;
        listing.order_by_default(Order::ascending(default_order));
        if let Some(text) = fields.has_cursor.then(|| self.text("cursor")).flatten() {
            listing.start_at(text).map_err(|error| {
                let detail = match error {
                    CursorError::Malformed => "Invalid cursor token",
                    CursorError::OtherList => "Cursor token does not match current query shape",
                };
                ApiError::bad_request(detail)
            })?;
        }
        Ok(listing)
    }

    /// Returns the tests of `NAME_pattern` and `NAME_prefix_pattern`; `~` matches every value.
    fn patterns(&self, name: &str) -> Vec<FieldTest> {
        let mut tests = Vec::from_iter(self.contains(&format!("{name}_pattern")));
        if let Some(text) = self.text(&format!("{name}_prefix_pattern")) {
            // As in Airflow, trailing characters other than letters and digits are ignored.
            let prefix = |text: &str| text.trim_end_matches(|c: char| !c.is_alphanumeric()).to_owned();
            let prefixes = if text == "~" { Vec::new() } else { alternatives(text).into_iter().map(prefix).collect() };
            tests.push(FieldTest::StartsWith(prefixes));
        }
        tests
    }

    /// Returns the test that a field contains one of the texts of a parameter, which `|` separates; `~` is no test.
    pub fn contains(&self, parameter: &str) -> Option<FieldTest> {
        let text = self.text(parameter).filter(|text| *text != "~")?;
        Some(FieldTest::Contains(alternatives(text).into_iter().map(str::to_owned).collect()))
    }

    /// Parses the four bounds of a time.
    pub fn times(&self, name: &str) -> Result<Range<Timestamp>, ApiError> {
        Range::read(|bound| self.time(&format!("{name}_{bound}")))
    }

    /// Returns the test of the four bounds of a field.
    fn range(&self, name: &str, field_type: FieldType) -> Result<FieldTest, ApiError> {
        // In a query, as in Airflow, a run or instance that has not started or ended counts as doing so now.
        let is_open = ["start_date", "end_date"].contains(&name) && self.location() != BODY;
        let unset = if is_open { Unset::Now } else { Unset::Outside };
        Ok(match field_type {
            FieldType::Time => FieldTest::Times(self.times(name)?, unset),
            _ => FieldTest::Numbers(Range::read(|bound| self.fraction(&format!("{name}_{bound}")))?, unset),
        })
    }

    /// Returns all values of a parameter as texts. Refuses values that are no integers if the field holds integers.
    fn exact(&self, name: &str, field_type: FieldType) -> Result<Vec<String>, ApiError> {
        let texts = self.texts(name);
        if field_type == FieldType::Whole && texts.iter().any(|text| text.parse::<i64>().is_err()) {
            let message = "Input should be a valid integer, unable to parse string as an integer";
            return Err(ApiError::unprocessable(&[self.location(), name], "int_parsing", message));
        }
        Ok(texts)
    }
}

/// Splits alternatives: `a | b` matches either.
fn alternatives(text: &str) -> Vec<&str> {
    let alternatives: Vec<&str> = text.split('|').map(str::trim).filter(|text| !text.is_empty()).collect();
    if text.contains('|') && !alternatives.is_empty() { alternatives } else { vec![text] }
}

fn parse_order<F: Copy>(name: &str, fields: &[(&str, F)]) -> Result<Order<F>, ApiError> {
    let plain = name.strip_prefix('-');
    let (known, order): (_, fn(F) -> Order<F>) = match plain {
        None => (name, Order::ascending),
        Some(plain) => (plain, Order::descending),
    };
    match fields.iter().find(|(field_name, _)| *field_name == known) {
        Some((_, field)) => Ok(order(*field)),
        None => {
            let detail = format!("Ordering with '{known}' is disallowed or the attribute does not exist on the model");
            Err(ApiError::bad_request(detail))
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

/// Defines a response and the function that builds it, so that a field is written once: with its type and its value,
/// which by default is the field of the same name in the function's first argument.
macro_rules! view {
    (
        $(#[$attribute:meta])* $visibility:vis struct $name:ident$(<$life:lifetime>)?;
        $fn_visibility:vis fn $function:ident($row:ident: $row_type:ty $(, $argument:ident: $argument_type:ty)*) {
            $($(#[$field_attribute:meta])* $field:ident: $type:ty $(= $value:expr)?,)*
        }
    ) => {
        #[derive(serde::Serialize, schemars::JsonSchema)]
        $(#[$attribute])*
        $visibility struct $name$(<$life>)? {
            $($(#[$field_attribute])* $field: $type,)*
        }

        $fn_visibility fn $function$(<$life>)?($row: $row_type $(, $argument: $argument_type)*) -> $name$(<$life>)? {
            $name { $($field: $crate::http::listing::view!(@value $row.$field $(, $value)?),)* }
        }
    };
    (@value $default:expr) => { $default };
    (@value $default:expr, $value:expr) => { $value };
}

/// Defines the body of a list request: its own fields, and at `..ranges` the bounds that runs and task instances share.
macro_rules! batch_body {
    ($name:ident {
        $($(#[$attribute:meta])* $field:ident: $type:ty,)*
        ..ranges,
        $($(#[$last_attribute:meta])* $last_field:ident: $last_type:ty,)*
    }) => {
        #[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $($(#[$attribute])* $field: $type,)*
            run_after_gte: Option<jiff::Timestamp>,
            run_after_gt: Option<jiff::Timestamp>,
            run_after_lte: Option<jiff::Timestamp>,
            run_after_lt: Option<jiff::Timestamp>,
            logical_date_gte: Option<jiff::Timestamp>,
            logical_date_gt: Option<jiff::Timestamp>,
            logical_date_lte: Option<jiff::Timestamp>,
            logical_date_lt: Option<jiff::Timestamp>,
            start_date_gte: Option<jiff::Timestamp>,
            start_date_gt: Option<jiff::Timestamp>,
            start_date_lte: Option<jiff::Timestamp>,
            start_date_lt: Option<jiff::Timestamp>,
            end_date_gte: Option<jiff::Timestamp>,
            end_date_gt: Option<jiff::Timestamp>,
            end_date_lte: Option<jiff::Timestamp>,
            end_date_lt: Option<jiff::Timestamp>,
            #[serde(deserialize_with = "crate::http::body::maybe_lax")]
            duration_gte: Option<f64>,
            #[serde(deserialize_with = "crate::http::body::maybe_lax")]
            duration_gt: Option<f64>,
            #[serde(deserialize_with = "crate::http::body::maybe_lax")]
            duration_lte: Option<f64>,
            #[serde(deserialize_with = "crate::http::body::maybe_lax")]
            duration_lt: Option<f64>,
            $($(#[$last_attribute])* $last_field: $last_type,)*
        }
    };
}

pub(crate) use {batch_body, collection, view};

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
