"""What the code that runs now is inside of: a `with DAG(…)`, or a task."""

_dags = []
_context = None


def dag():
    return _dags[-1] if _dags else None


def enter_dag(one):
    _dags.append(one)


def leave_dag():
    _dags.pop()


def set_context(context):
    global _context
    _context = context


def context():
    return _context
