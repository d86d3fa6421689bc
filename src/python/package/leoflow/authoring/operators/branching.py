"""Operators that decide which of their downstream tasks run.

<https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/dags.html#branching>
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from datetime import datetime, time, timedelta, timezone

from leoflow.authoring.dag.task_group import TaskGroup
from leoflow.authoring.operators.base_operator import BaseOperator
from leoflow.authoring.operators.standard import PythonOperator
from leoflow.common.exceptions import AirflowException, DownstreamTasksSkipped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import tzinfo
    from typing import Any

# XCom key of the decision. The scheduler also applies the decision to tasks that are cleared or expanded later.
SKIPMIXIN_KEY = "skipmixin_key"


class SkipMixin:
    skips_downstream = True

    @staticmethod
    def _decide(ti, decision, tasks):
        """Stores the decision as an XCom and skips the tasks."""
        ti.xcom_push(key=SKIPMIXIN_KEY, value=decision)
        # A mapped instance decides only about downstream instances with its own map index; the scheduler skips them.
        if ti.map_index == -1 and tasks:
            raise DownstreamTasksSkipped(tasks=tasks)

    def skip(self, ti, tasks):
        ids = [task.task_id for task in tasks]
        if ids:
            self._decide(ti, {"skipped": ids}, ids)

    def skip_all_except(self, ti, branch_task_ids):
        """Skips the direct downstream tasks, except the chosen tasks and those downstream of a chosen task."""
        chosen = check_choice(branch_task_ids)
        task = ti.task
        dag = task.dag
        unknown = {task_id for task_id in chosen if task_id not in dag.task_dict}
        if unknown:
            raise AirflowException(
                f"'branch_task_ids' must contain only valid task_ids. Invalid tasks found: {unknown}."
            )
        downstream = task.downstream_task_ids
        if not downstream:
            return
        followed = set(chosen)
        for task_id in chosen:
            followed |= dag.get_task(task_id).get_flat_relative_ids(upstream=False)
        skipped = [task_id for task_id in sorted(downstream) if task_id not in followed]
        self._decide(ti, {"followed": [task_id for task_id in sorted(downstream) if task_id in followed]}, skipped)


def check_choice(chosen):
    """Returns the chosen task ids as a set. Raises AirflowException for anything that is not a task id."""
    if chosen is None:
        return set()
    if isinstance(chosen, str):
        return {chosen}
    if isinstance(chosen, Iterable):
        chosen = set(chosen)
        invalid = {(item, type(item).__name__) for item in chosen if not isinstance(item, str)}
        if invalid:
            raise AirflowException(
                "Unable to branch to the specified tasks. The branching function returned invalid "
                f"'branch_task_ids': {invalid}. Please check that your function returns an Iterable of valid task "
                "IDs that exist in your DAG."
            )
        return chosen
    raise AirflowException(
        f"'branch_task_ids' must be either None, a task ID, or an Iterable of IDs, but got {type(chosen).__name__!r}."
    )


class BranchMixIn(SkipMixin):
    def do_branch(self, context, branches_to_execute):
        self.skip_all_except(context["ti"], self.expand_groups(branches_to_execute))
        return branches_to_execute

    def expand_groups(self, chosen):
        """Replaces each chosen task group by its root tasks."""
        if chosen is None or isinstance(chosen, str):
            chosen = chosen if chosen is None else [chosen]
        if chosen is None or not isinstance(chosen, Iterable):
            return chosen
        task_ids = []
        for choice in chosen:
            group = self.dag.group_ids.get(choice) if isinstance(choice, str) else None
            task_ids += [root.task_id for root in group.get_roots()] if isinstance(group, TaskGroup) else [choice]
        return task_ids


class BaseBranchOperator(BranchMixIn, BaseOperator):
    def choose_branch(self, context):
        raise NotImplementedError

    def execute(self, context):
        return self.do_branch(context, self.choose_branch(context))


class BranchByResultMixIn(BranchMixIn):
    """Mixin that precedes an operator class: the operator's result is the branch to follow."""

    def execute(self, context):
        return self.do_branch(context, super().execute(context))


class BranchPythonOperator(BranchByResultMixIn, PythonOperator):
    pass


class ShortCircuitOperator(SkipMixin, PythonOperator):
    def __init__(self, *, ignore_downstream_trigger_rules=True, **others):
        super().__init__(**others)
        self.ignore_downstream_trigger_rules = ignore_downstream_trigger_rules

    def execute(self, context):
        condition = super().execute(context)
        if condition or not self.downstream_task_ids:
            return condition
        ids = self.get_flat_relative_ids() if self.ignore_downstream_trigger_rules else self.downstream_task_ids
        downstream = [self.dag.get_task(task_id) for task_id in sorted(ids)]
        self.skip(context["ti"], [task for task in downstream if not task.is_teardown])
        return condition


class LatestOnlyOperator(BaseBranchOperator):
    """Skips its downstream tasks in scheduled runs other than the latest; manual runs continue."""

    ui_color = "#e9ffdb"

    def choose_branch(self, context):
        run = context["dag_run"]
        if run.run_type == "manual" or context["ti"].is_latest_run():
            return list(self.downstream_task_ids)
        return []


def reference_time(context: Mapping[str, Any], use_logical_date: bool, tzinfo: tzinfo | None) -> datetime:
    """Returns the run's logical date, or the current time."""
    run = context["dag_run"]
    if use_logical_date:
        return run.logical_date or run.run_after
    return datetime.now(tzinfo or timezone.utc)


class BranchDateTimeOperator(BaseBranchOperator):
    def __init__(self, *, follow_task_ids_if_true, follow_task_ids_if_false, target_lower, target_upper,
                 use_task_logical_date=False, **others):
        super().__init__(**others)
        if target_lower is None and target_upper is None:
            raise AirflowException(
                "Both target_upper and target_lower are None. At least one must be defined to be compared to the "
                "current datetime"
            )
        self.follow_task_ids_if_true = follow_task_ids_if_true
        self.follow_task_ids_if_false = follow_task_ids_if_false
        self.target_lower = target_lower
        self.target_upper = target_upper
        self.use_task_logical_date = use_task_logical_date

    def choose_branch(self, context):
        zone = self.dag.timezone
        now = reference_time(context, self.use_task_logical_date, zone)
        lower, upper = self.on_date(self.target_lower, now), self.on_date(self.target_upper, now)
        if lower is not None and upper is not None and upper < lower:
            upper += timedelta(days=1)
        is_inside = not (upper is not None and upper < now or lower is not None and lower > now)
        return self.follow_task_ids_if_true if is_inside else self.follow_task_ids_if_false

    def on_date(self, target, now):
        """Converts a limit to a datetime; a time is on the day of `now`."""
        if target is None:
            return None
        if isinstance(target, time):
            target = datetime.combine(now, target)
        return target if target.tzinfo else target.replace(tzinfo=self.dag.timezone)


class WeekDay(enum.IntEnum):
    MONDAY = 1
    TUESDAY = 2
    WEDNESDAY = 3
    THURSDAY = 4
    FRIDAY = 5
    SATURDAY = 6
    SUNDAY = 7

    @classmethod
    def get_weekday_number(cls, name):
        upper = name.upper()
        if upper not in cls.__members__:
            raise AttributeError(f'Invalid Week Day passed: "{name}"')
        return cls[upper]

    @classmethod
    def convert(cls, day):
        return cls.get_weekday_number(day) if isinstance(day, str) else day

    @classmethod
    def validate_week_day(cls, days):
        if not isinstance(days, (str, WeekDay, Iterable)):
            raise TypeError(
                f"Unsupported Type for week_day parameter: {type(days)}. Input should be iterable type: str, set, list, "
                "dict or Weekday enum type"
            )
        if isinstance(days, (str, WeekDay)):
            days = {days}
        return {cls.convert(day) for day in days}


class BranchDayOfWeekOperator(BaseBranchOperator):
    def __init__(self, *, follow_task_ids_if_true, follow_task_ids_if_false, week_day, use_task_logical_date=False,
                 **others):
        super().__init__(**others)
        self.follow_task_ids_if_true = follow_task_ids_if_true
        self.follow_task_ids_if_false = follow_task_ids_if_false
        self.week_day = week_day
        self.use_task_logical_date = use_task_logical_date
        self._week_days = WeekDay.validate_week_day(week_day)

    def choose_branch(self, context):
        now = reference_time(context, self.use_task_logical_date, self.dag.timezone)
        return self.follow_task_ids_if_true if now.isoweekday() in self._week_days else self.follow_task_ids_if_false
