-- phase: expand
-- The state in which a user has ended a run whose teardowns still run. The run gets it when they have ended.
ALTER TABLE dag_run ADD COLUMN marked_state text
    CONSTRAINT dag_run_marked_state_check CHECK (marked_state IN ('success', 'failed'));

-- Number of elements of a return value that other tasks are mapped over, as its task has reported it. An XCom backend
-- decides what `value` contains.
ALTER TABLE xcom ADD COLUMN mapped_length integer;
