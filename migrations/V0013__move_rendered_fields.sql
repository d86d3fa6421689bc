-- phase: data
-- From task_instance.rendered to rendered_task_instance_fields. What a task wrote there meanwhile is newer.
-- step: batch
WITH part AS MATERIALIZED (
    SELECT dag_id, run_id, task_id, map_index FROM task_instance
    WHERE (dag_id, run_id, task_id, map_index)
          > (coalesce($1::jsonb->>0, ''), coalesce($1->>1, ''), coalesce($1->>2, ''), coalesce(($1->>3)::integer, -2))
    ORDER BY dag_id, run_id, task_id, map_index LIMIT $2),
-- Nobody is waited for: another round has what somebody holds.
held AS MATERIALIZED (
    SELECT ti.dag_id, ti.run_id, ti.task_id, ti.map_index, ti.rendered
    FROM part JOIN task_instance ti USING (dag_id, run_id, task_id, map_index)
    WHERE ti.rendered IS NOT NULL
    FOR NO KEY UPDATE OF ti SKIP LOCKED),
moved AS (
    INSERT INTO rendered_task_instance_fields (dag_id, run_id, task_id, map_index, rendered_fields)
    SELECT dag_id, run_id, task_id, map_index, rendered FROM held
    ON CONFLICT DO NOTHING),
cleared AS (
    UPDATE task_instance ti SET rendered = NULL FROM held
    WHERE (ti.dag_id, ti.run_id, ti.task_id, ti.map_index)
          = (held.dag_id, held.run_id, held.task_id, held.map_index)
    RETURNING 1)
SELECT (SELECT jsonb_build_array(dag_id, run_id, task_id, map_index) FROM part
        ORDER BY dag_id DESC, run_id DESC, task_id DESC, map_index DESC LIMIT 1),
       (SELECT count(*) FROM cleared);
-- step: left
SELECT count(*) FROM task_instance WHERE rendered IS NOT NULL;
