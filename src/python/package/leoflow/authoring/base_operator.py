"""BaseOperator: the base class of custom operators.

<https://airflow.apache.org/docs/apache-airflow/stable/howto/custom-operator.html>
"""

from leoflow.authoring.abstract_operator import AbstractOperator
from leoflow.authoring.default_args import OperatorMeta
from leoflow.authoring.mapping import OperatorPartial


class PartialMeta(OperatorMeta):
    """Defines `partial` on operator classes but not on their instances, as in Airflow."""

    def partial(cls, *, task_id, dag=None, task_group=None, params=None, **arguments):
        return OperatorPartial(cls, {"task_id": task_id, "dag": dag, "task_group": task_group, "params": params, **arguments})


class BaseOperator(AbstractOperator, metaclass=PartialMeta):
    """A task of a DAG."""
