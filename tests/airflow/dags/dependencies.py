"""Every way to define an edge, without failures."""

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, chain, task

with DAG(
    dag_id="dependencies",
    schedule=None,
    tags=["edges", "compare"],
    doc_md="# Edges\n\nA task says what ran before it, by what it could pull.",
):

    def say(name):
        return BashOperator(task_id=name, bash_command=f"echo {name}")

    start = EmptyOperator(task_id="start")
    end = EmptyOperator(task_id="end")
    a, b, c, d, e, f, g, h = (say(name) for name in "abcdefgh")

    start >> a >> [b, c]
    d << [b, c]
    [e, f] << d
    join = EmptyOperator(task_id="join", doc_md="Does nothing, in the middle.")
    [e, f] >> join
    # Two lists of the same length are linked pairwise.
    chain(join, [g, h], [left := say("left"), right := say("right")], say("last"))

    @task
    def seen(names, ti=None):
        return ti.xcom_pull(task_ids=names)

    before_join = seen.override(task_id="before_join")(["a", "b", "c", "d", "e", "f"])
    join >> before_join >> end
    # Only g precedes left, so h is not pulled.
    left >> seen.override(task_id="before_left")(["a", "g"]) >> end
    # A duplicate edge counts once.
    start >> a
    [left, right] >> end
    end << right
