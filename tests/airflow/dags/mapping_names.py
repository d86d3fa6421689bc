"""Names of mapped instances, and XComs pulled from them."""

from airflow.sdk import DAG, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

with DAG("mapping_names", schedule=None):

    @task(map_index_template="{{ which }}")
    def named(x):
        get_current_context()["which"] = f"number {x}"
        return x * 10

    @task(map_index_template="{{ params.colour }} {{ ti.map_index }}", params={"colour": "red"})
    def early(x):
        return x

    @task
    def look(ti):
        return {
            "all": ti.xcom_pull(task_ids="named"),
            "one": ti.xcom_pull(task_ids="named", map_indexes=1),
            "some": ti.xcom_pull(task_ids="named", map_indexes=[0, 2]),
            "missing": ti.xcom_pull(task_ids="named", map_indexes=7, default="none"),
            "several": ti.xcom_pull(task_ids=["named", "early"]),
            "nobody": ti.xcom_pull(task_ids="nobody"),
        }

    [named.expand(x=[1, 2, 3]), early.expand(x=[4])] >> look()

    @task(map_index_template="{{ which }}")
    def ends(x):
        get_current_context()["which"] = f"ended {x}"
        raise AirflowSkipException if x == 1 else AirflowFailException(str(x))

    ends.expand(x=[1, 2])
