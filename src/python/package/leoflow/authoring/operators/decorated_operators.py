"""The operators of `@task.bash`, `@task.branch`, `@task.short_circuit` and `@task.sensor`, in a module of their own
because most DAG files do not need them."""

from leoflow.authoring.operators.branching import BranchPythonOperator, ShortCircuitOperator
from leoflow.authoring.operators.standard import AvailableArguments, BashOperator, keyword_arguments
from leoflow.authoring.operators.taskflow import Decorated
from leoflow.authoring.sensors.standard import PythonSensor
from leoflow.common.exceptions import Unsupported


class DecoratedBranch(Decorated, BranchPythonOperator):
    operator_name = "@task.branch"
    airflow_name = "_BranchPythonDecoratedOperator"


class DecoratedShortCircuit(Decorated, ShortCircuitOperator):
    operator_name = "@task.short_circuit"
    airflow_name = "_ShortCircuitDecoratedOperator"


class DecoratedSensor(Decorated, PythonSensor):
    operator_name = "@task.sensor"
    airflow_name = "DecoratedSensorOperator"
    template_fields = ("op_args", "op_kwargs")


class DecoratedBash(Decorated, BashOperator):
    operator_name = "@task.bash"
    airflow_name = "_BashDecoratedOperator"
    template_fields = ("op_args", "op_kwargs", "bash_command", "env", "cwd")

    def set_up(self, *, python_callable, op_args, op_kwargs, multiple_outputs, **others):
        if multiple_outputs:
            raise Unsupported("multiple_outputs of @task.bash")
        self.python_callable = python_callable
        self.op_args = op_args
        self.op_kwargs = op_kwargs
        BashOperator.__init__(self, bash_command="", **others)

    def execute(self, context):
        arguments = keyword_arguments(self.python_callable, self.op_args, AvailableArguments(context, self.op_kwargs), self.op_kwargs)
        command = self.python_callable(*self.op_args, **arguments)
        if not isinstance(command, str) or not command.strip():
            raise TypeError("The returned value from the TaskFlow callable must be a non-empty string.")
        self.bash_command = command
        # The command that the function returned may be a template.
        context["ti"].render_templates(self, context)
        return self.run_command(self.bash_command, context)
