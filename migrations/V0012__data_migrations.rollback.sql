-- carried back: rendered_task_instance_fields, data_migration, task_instance
UPDATE task_instance ti SET rendered = f.rendered_fields FROM rendered_task_instance_fields f
    WHERE (ti.dag_id, ti.run_id, ti.task_id, ti.map_index) = (f.dag_id, f.run_id, f.task_id, f.map_index);
DROP TABLE rendered_task_instance_fields;
DROP TABLE data_migration;
