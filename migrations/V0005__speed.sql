-- phase: expand
-- Another one with each change of a run's task instances that neither the agent nor the scheduler makes: who
-- remembers them reads them again. Runs of before have none until then.
ALTER TABLE dag_run ADD COLUMN revision uuid;
ALTER TABLE dag_run ALTER COLUMN revision SET DEFAULT gen_random_uuid();

-- What runs in a run is looked at with each step that it takes.
CREATE INDEX task_instance_under_way ON task_instance (dag_id, run_id) WHERE state IN ('running', 'restarting');
