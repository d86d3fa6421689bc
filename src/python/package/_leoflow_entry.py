"""The entry: `python _leoflow_entry.py parse|task|ask|test|triggers|zygote OPTIONS`, OPTIONS as JSON."""

import json
import os
import sys

if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    # First, whatever the user's files are called: `leoflow` is ours, and `airflow` too where Airflow is not installed.
    sys.path[0] = here
    what, options = sys.argv[1], json.loads(sys.argv[2])
    if "airflow_home" in options:
        from leoflow.common import real_sdk

        real_sdk.use(options["airflow_home"])
    else:
        sys.path.insert(0, os.path.join(here, "small"))
    from leoflow.entry import working_folder

    working_folder.enter(options)
    if "uv" in options:
        from leoflow.common import uv

        uv.offer(options["uv"], options["uv_cache"])
    sys.argv = [options.get("path") or options.get("folder") or what]
    if what == "parse":
        from leoflow.entry.parse import main
    elif what == "task":
        from leoflow.entry.task import main
    elif what == "ask":
        from leoflow.entry.ask import main
    elif what == "triggers":
        from leoflow.entry.triggers import main
    elif what == "zygote":
        from leoflow.entry.zygote import main
    else:
        from leoflow.entry.foreground import main
    main(options)
