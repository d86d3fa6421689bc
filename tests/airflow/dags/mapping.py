"""Dynamic mapping over lists, dicts and results."""

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, task

with DAG("mapping", schedule=None):

    @task
    def numbers():
        return [1, 2, 3]

    @task
    def words():
        return {"a": 1, "b": 2}

    @task
    def add(x, y=10):
        return x + y

    @task
    def show(item):
        return item

    @task
    def total(values):
        return sum(values)

    @task
    def count(values):
        return len(list(values))

    n = numbers()
    added = add.partial(y=5).expand(x=n)
    total(added)
    product = add.override(task_id="product").expand(x=[1, 2], y=n)
    total.override(task_id="product_total")(product)
    pairs = show.expand(item=words())
    count(pairs)
    show.override(task_id="literal_dict").expand(item={"k": "v", "l": "w"})
    BashOperator.partial(task_id="shell", do_xcom_push=True).expand(bash_command=["echo one", "echo two"])
    show.override(task_id="of_kwargs").expand_kwargs([{"item": "p"}, {"item": "q"}])

    @task
    def keywords():
        return [{"x": 1, "y": 1}, {"x": 2, "y": 2}]

    add.override(task_id="from_keywords").expand_kwargs(keywords())
