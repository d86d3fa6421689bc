"""The entry: `python _leoflow_entry.py parse|task|ask|test|triggers|zygote OPTIONS`, OPTIONS as JSON."""

import json
import os
import sys

if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    # First, whatever the user's files are called: `leoflow` is ours, and `airflow` too where Airflow is not installed.
    sys.path[0] = here
    what, options = sys.argv[1], json.loads(sys.argv[2])
    from leoflow.entry import working_folder

    working_folder.enter(options)
    if what != "zygote":
        from leoflow.entry import dotenv

        # Before Airflow or a library is imported, which may read variables then and never again.
        dotenv.load_first(options.get("work_in") or [])
    if "base_url" in options:
        # What links to the web page are made of; a project's .env may say another.
        os.environ.setdefault("AIRFLOW__API__BASE_URL", options["base_url"])
    if "airflow_home" in options:
        from leoflow.common import real_sdk

        real_sdk.use(options["airflow_home"])
    else:
        sys.path.insert(0, os.path.join(here, "small"))
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
