//! Tests of one field's value, which lists use as filters.

use super::column::Column;
use super::conditions::Conditions;
use jiff::Timestamp;
use tokio_postgres::types::ToSql;

/// A test of a field; a list returns only rows that pass.
#[derive(Debug, Clone)]
pub enum FieldTest {
    /// The value is one of these, written as text. An empty list selects every row.
    OneOf(Vec<String>),
    /// The text contains one of these, whatever the case. `%` and `_` are wildcards.
    Contains(Vec<String>),
    /// The text starts with one of these. If all of these are empty, the value must only not be NULL.
    StartsWith(Vec<String>),
    Times(Range<Timestamp>, Unset),
    Numbers(Range<f64>, Unset),
}

/// How a row without a value compares with a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unset {
    Outside,
    /// NULL passes every lower bound and counts as the current time for upper bounds: Airflow's rule for the dates of
    /// runs and tasks that have not started or ended.
    Now,
}

/// Bounds of a value; those that are `None` do not restrict it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range<T> {
    pub gte: Option<T>,
    pub gt: Option<T>,
    pub lte: Option<T>,
    pub lt: Option<T>,
}

impl<T> Default for Range<T> {
    fn default() -> Self {
        Self { gte: None, gt: None, lte: None, lt: None }
    }
}

impl<T> Range<T> {
    /// Reads each bound by its suffix: `gte`, `gt`, `lte` or `lt`.
    pub fn read<E>(bound: impl Fn(&str) -> Result<Option<T>, E>) -> Result<Self, E> {
        Ok(Self { gte: bound("gte")?, gt: bound("gt")?, lte: bound("lte")?, lt: bound("lt")? })
    }

    pub fn is_unbounded(&self) -> bool {
        matches!(self, Self { gte: None, gt: None, lte: None, lt: None })
    }

    /// The bounds, each with its SQL operator.
    pub(crate) fn bounds(self) -> impl Iterator<Item = (&'static str, T)> {
        [(">=", self.gte), (">", self.gt), ("<=", self.lte), ("<", self.lt)]
            .into_iter()
            .filter_map(|(operator, bound)| Some((operator, bound?)))
    }

    /// SQL conditions on a column, each after `AND`, and their parameters, the first of which is `$first`.
    pub(crate) fn conditions(self, column: &str, first: usize) -> (String, Vec<T>) {
        let numbered = self.bounds().enumerate();
        let (conditions, bounds): (Vec<_>, Vec<_>) = numbered
            .map(|(index, (operator, bound))| (format!(" AND {column} {operator} ${}", first + index), bound))
            .unzip();
        (conditions.concat(), bounds)
    }
}

impl<T: PartialOrd> Range<T> {
    pub fn contains(&self, value: &T) -> bool {
        self.gte.as_ref().is_none_or(|bound| value >= bound)
            && self.gt.as_ref().is_none_or(|bound| value > bound)
            && self.lte.as_ref().is_none_or(|bound| value <= bound)
            && self.lt.as_ref().is_none_or(|bound| value < bound)
    }
}

impl<T: ToSql + Sync + Send + 'static> Range<T> {
    pub(crate) fn add_to(self, conditions: &mut Conditions, column: &str, unset: Unset) {
        for (operator, bound) in self.bounds() {
            let comparison = format!("({column}) {operator} {{}}");
            let sql = match (unset, operator) {
                (Unset::Outside, _) => comparison,
                (Unset::Now, ">" | ">=") => format!("({comparison} OR ({column}) IS NULL)"),
                (Unset::Now, _) => format!("(coalesce(({column}), now()) {operator} {{}})"),
            };
            conditions.with(&sql, bound);
        }
    }
}

impl FieldTest {
    pub(super) fn add_to(self, conditions: &mut Conditions, column: Column) {
        let sql = column.sql;
        match self {
            Self::OneOf(values) => conditions.any(column, values),
            Self::Contains(texts) => {
                let patterns: Vec<String> = texts.iter().map(|text| format!("%{text}%")).collect();
                conditions.with(&format!("({sql}) ILIKE ANY ({{}}::text[])"), patterns);
            }
            Self::StartsWith(prefixes) if prefixes.iter().any(|prefix| !prefix.is_empty()) => {
                let matches = "EXISTS (SELECT FROM unnest({}::text[]) AS p (begin) WHERE";
                conditions.with(&format!("{matches} starts_with(({sql}), p.begin))"), prefixes);
            }
            Self::StartsWith(_) => conditions.add(&format!("({sql}) IS NOT NULL"), Vec::new()),
            Self::Times(range, unset) => range.add_to(conditions, sql, unset),
            Self::Numbers(range, unset) => range.add_to(conditions, sql, unset),
        }
    }
}

/// LIKE pattern for texts that contain `text`, without wildcards in it.
pub(crate) fn containing(text: &str) -> String {
    format!("%{}%", text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(test: FieldTest) -> String {
        let mut conditions = Conditions::default();
        test.add_to(&mut conditions, Column::time("t.at"));
        conditions.sql()
    }

    #[test]
    fn every_test_has_its_condition() {
        let at = Timestamp::UNIX_EPOCH;
        let range = Range { gte: Some(at), lt: Some(at), ..Range::default() };
        assert_eq!(sql(FieldTest::OneOf(Vec::new())), "TRUE");
        assert_eq!(sql(FieldTest::OneOf(vec!["a".into()])), "((t.at) = ANY (($1::text[])::timestamptz[]))");
        assert_eq!(sql(FieldTest::Contains(vec!["a".into()])), "((t.at) ILIKE ANY ($1::text[]))");
        assert_eq!(sql(FieldTest::StartsWith(vec![String::new()])), "((t.at) IS NOT NULL)");
        assert_eq!(sql(FieldTest::Times(range, Unset::Outside)), "((t.at) >= $1) AND ((t.at) < $2)");
        assert_eq!(
            sql(FieldTest::Times(range, Unset::Now)),
            "(((t.at) >= $1 OR (t.at) IS NULL)) AND ((coalesce((t.at), now()) < $2))"
        );
    }

    #[test]
    fn a_range_contains_what_is_within_its_bounds() {
        let range = Range { gte: Some(1), lt: Some(3), ..Range::default() };
        assert!(range.contains(&1) && range.contains(&2) && !range.contains(&3) && !range.contains(&0));
        assert!(Range::default().contains(&0));
    }

    #[test]
    fn wildcards_are_escaped() {
        assert_eq!(containing("a%_\\"), "%a\\%\\_\\\\%");
    }
}
