"""Inputs by map, zip and concat, and a task mapped over a mapped task."""

from airflow.exceptions import AirflowSkipException
from airflow.sdk import DAG, task

with DAG("mapping_shapes", schedule=None):

    @task
    def letters():
        return ["a", "b", "c"]

    @task
    def numbers():
        return [1, 2]

    @task
    def show(x):
        return x

    def upper(text):
        if text == "b":
            raise AirflowSkipException("not b")
        return text.upper()

    @task
    def gather(xs):
        return sorted(str(x) for x in xs)

    l, n = letters(), numbers()
    mapped = show.expand(x=l.map(upper))
    gather(mapped)
    show.override(task_id="zipped").expand(x=l.zip(n))
    show.override(task_id="filled").expand(x=l.zip(n, fillvalue="-"))
    show.override(task_id="joined").expand(x=l.concat(n))
    show.override(task_id="again").expand(x=show.override(task_id="once").expand(x=n))

    @task
    def whole(xs):
        return [type(xs).__name__ != "", len(xs), list(xs)[0]]

    whole(show.override(task_id="each").expand(x=l))
