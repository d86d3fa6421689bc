//! The numbers of elements that the tasks and groups of a run are mapped over.

use crate::model::keys::RunKey;
use crate::planner::graph::Graph;
use crate::planner::snapshot::Returned;
use crate::store::StoreError;
use crate::store::instance_key::KEY;
use crate::store::rows::fetch_all;
use leoflow_postgres::GenericClient;
use std::collections::{HashMap, HashSet};
use tokio_postgres::types::ToSql;

/// Returns the lengths of the lists that other tasks are mapped over, by the id of the task that has returned the list.
/// Removed instances do not count.
pub async fn of_run(
    client: &impl GenericClient,
    key: &RunKey,
    graph: &Graph,
) -> Result<HashMap<String, Returned>, StoreError> {
    let sources = graph.length_sources();
    let mut lengths = HashMap::new();
    if sources.is_empty() {
        return Ok(lengths);
    }
    let query = format!(
        "
        SELECT task_id, map_index,
               -- An XCom that its task has pushed explicitly, or a user has set, has no reported length.
               coalesce(mapped_length, CASE json_typeof(value)
                   WHEN 'array' THEN json_array_length(value)
                   WHEN 'object' THEN CASE WHEN value->>'__classname__' = 'builtins.tuple'
                                                AND json_typeof(value->'__data__') = 'array'
                                           THEN json_array_length(value->'__data__')
                                           ELSE (SELECT count(*)::integer FROM json_object_keys(value)) END
               END) AS length
        FROM xcom JOIN task_instance ti USING ({KEY})
        WHERE dag_id = $1 AND run_id = $2 AND task_id = ANY ($3) AND key = 'return_value'
          AND (map_index < 0 OR ti.state IS DISTINCT FROM 'removed')"
    );
    let parameters: [&(dyn ToSql + Sync); 3] = [&key.dag_id, &key.run_id, &sources];
    for (task_id, map_index, length) in fetch_all::<(String, i32, Option<i32>)>(client, &query, &parameters).await? {
        if map_index >= 0 {
            let mut indexes = match lengths.remove(&task_id) {
                Some(Returned::Instances(indexes)) => indexes,
                _ => HashSet::new(),
            };
            indexes.insert(map_index);
            lengths.insert(task_id, Returned::Instances(indexes));
        } else if let Some(length) = length {
            lengths.insert(task_id, Returned::Elements(usize::try_from(length).unwrap_or(0)));
        }
    }
    Ok(lengths)
}
