"""The entry: `python _leoflow_entry.py parse|task|ask|test OPTIONS`, OPTIONS as JSON."""

import json
import os
import sys

if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    # First, whatever the user's files are called: `airflow` and `leoflow` are ours.
    sys.path[0] = here
    what, options = sys.argv[1], json.loads(sys.argv[2])
    # The first that is there: the project, so that what lies beside the DAG is found by its name.
    for folder in options.get("work_in") or []:
        try:
            os.chdir(folder)
            break
        except OSError:
            pass
    sys.argv = [options.get("path") or options.get("folder") or what]
    if what == "parse":
        from leoflow.entry.parse import main
    elif what == "task":
        from leoflow.entry.task import main
    elif what == "ask":
        from leoflow.entry.ask import main
    else:
        from leoflow.entry.foreground import main
    main(options)
