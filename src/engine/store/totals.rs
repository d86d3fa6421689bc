//! The built-in invariants: totals over the history and the secrets that no backup, restore or migration may change.
//! The queries name columns instead of `*`, because a later migration may add columns.

use leoflow_base::config::Invariant;

/// Name and query of each invariant. A sum of hashes does not depend on the order of rows, and PostgreSQL's hashes do
/// not change between its versions, because hash partitions rely on them.
const QUERIES: &[(&str, &str)] = &[
    (
        "DAG runs by state",
        "SELECT coalesce(jsonb_object_agg(state, runs), '{}') \
         FROM (SELECT state, count(*) AS runs FROM dag_run GROUP BY state) AS states",
    ),
    (
        "task instances by state",
        "SELECT coalesce(jsonb_object_agg(coalesce(state, 'none'), instances), '{}') \
         FROM (SELECT state, count(*) AS instances FROM task_instance GROUP BY state) AS states",
    ),
    ("time of all tries", "SELECT sum(end_date - start_date) FROM task_try"),
    ("XComs", "SELECT sum(hashtextextended(task_id || value::text, map_index)) FROM xcom"),
    ("variables", "SELECT sum(hash_record_extended(ROW(key, value_encrypted), 0)) FROM variable"),
    (
        "connections",
        "SELECT sum(hash_record_extended(ROW(connection_id, conn_type, host, login, schema, port, \
         password_encrypted, extra_encrypted), 0)) FROM connection",
    ),
];

/// The built-in invariants.
fn built_in() -> Vec<Invariant> {
    QUERIES.iter().map(|(name, query)| Invariant { name: (*name).to_owned(), query: (*query).to_owned() }).collect()
}

/// True for a built-in invariant of this release. If its query fails because of a missing column, another release has
/// renamed the column; the data is not damaged.
pub fn is_built_in(invariant: &Invariant) -> bool {
    QUERIES.contains(&(invariant.name.as_str(), invariant.query.as_str()))
}

/// The built-in invariants and the user's own, which replace built-in ones of the same name.
pub fn with_own(own: &[Invariant]) -> Vec<Invariant> {
    let is_replaced = |built_in: &Invariant| own.iter().any(|own| own.name == built_in.name);
    built_in().into_iter().filter(|built_in| !is_replaced(built_in)).chain(own.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_invariant_replaces_a_built_in_one() {
        let own = |name: &str| Invariant { name: name.to_owned(), query: "SELECT 1".to_owned() };
        let all = with_own(&[own("XComs"), own("orders")]);
        assert_eq!(all.len(), QUERIES.len() + 1);
        let xcoms: Vec<&Invariant> = all.iter().filter(|invariant| invariant.name == "XComs").collect();
        assert_eq!(xcoms, [&own("XComs")]);
        assert!(built_in().iter().all(|invariant| Invariant::is_name(&invariant.name) && is_built_in(invariant)));
        assert!(!is_built_in(&own("XComs")));
    }
}
