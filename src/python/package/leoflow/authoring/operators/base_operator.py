"""BaseOperator: the base class of custom operators.

<https://airflow.apache.org/docs/apache-airflow/stable/howto/custom-operator.html>
"""

from leoflow.authoring.dag.default_args import OperatorMeta
from leoflow.authoring.operators.abstract_operator import AbstractOperator


class PartialMeta(OperatorMeta):
    """Defines `partial` on operator classes but not on their instances, as in Airflow."""

    def partial(cls, *, task_id, dag=None, task_group=None, params=None, **arguments):
        # Imported here, because few DAG files have mapped tasks.
        from leoflow.authoring.mapping.mapped_operator import OperatorPartial

        return OperatorPartial(cls, {"task_id": task_id, "dag": dag, "task_group": task_group, "params": params, **arguments})


class BaseOperator(AbstractOperator, metaclass=PartialMeta):
    """A task of a DAG."""
