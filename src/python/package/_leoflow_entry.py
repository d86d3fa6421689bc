"""Entry point: `python _leoflow_entry.py parse|task|ask|test|triggers|zygote|shell|survey OPTIONS`, with OPTIONS as JSON."""

import json
import os
import sys

if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    # First on the module search path, so that user files cannot shadow `leoflow` or the small package's `airflow`.
    sys.path[0] = here
    job, options = sys.argv[1], json.loads(sys.argv[2])
    from leoflow.entry import working_folder

    working_folder.enter(options)
    if job != "zygote":
        from leoflow.entry import dotenv

        # Precedes the import of Airflow and of libraries, which may read variables only at import.
        dotenv.load_first(options.get("work_in") or [])
    if "home_option" in options:
        from leoflow.common.hints import commands

        commands.use_home(options["home_option"])
    if "base_url" in options:
        # Base of links to the web UI. A project's .env takes precedence.
        os.environ.setdefault("AIRFLOW__API__BASE_URL", options["base_url"])
    if "airflow_home" in options:
        from leoflow.common import real_sdk

        real_sdk.activate(options["airflow_home"])
    else:
        sys.path.insert(0, os.path.join(here, "small"))
    if "uv" in options:
        from leoflow.common import uv

        uv.add_to_path(options["uv"], options["uv_cache"])
    sys.argv = [options.get("path") or options.get("folder") or job]
    if job == "parse":
        from leoflow.entry.parse import main
    elif job == "task":
        from leoflow.entry.task import main
    elif job == "ask":
        from leoflow.entry.ask import main
    elif job == "triggers":
        from leoflow.entry.triggers import main
    elif job == "zygote":
        from leoflow.entry.zygote import main
    elif job == "shell":
        from leoflow.entry.shell import main
    elif job == "survey":
        from leoflow.survey.main import main
    else:
        from leoflow.entry.foreground import main
    main(options)
