"""What the code that runs now is inside of: a `with DAG(…)`, a task group, or a task."""

_dags = []
_groups = []
_context = None
# The mapped task of which an instance is being made.
_unmapped = None


def dag():
    return _dags[-1] if _dags else None


def enter_dag(one):
    _dags.append(one)
    _groups.append(one.task_group)


def leave_dag():
    _dags.pop()
    _groups.pop()


def group(of_dag=None):
    """The innermost group of that DAG; its root where none is open."""
    for one in reversed(_groups):
        if of_dag is None or one.dag is of_dag:
            return one
    return of_dag.task_group if of_dag is not None else None


def enter_group(one):
    _groups.append(one)


def leave_group():
    _groups.pop()


def unmap(task):
    global _unmapped
    _unmapped = task


def unmapped():
    return _unmapped


def set_context(context):
    global _context
    _context = context


def context():
    return _context
