"""Entry point: `python _leoflow_entry.py parse|task|ask|test|triggers|zygote|shell|survey|link OPTIONS`, with OPTIONS as JSON."""

import json
import os
import sys

# Set in a process that has been restarted by `compile_again`.
COMPILED_AGAIN = "LEOFLOW_COMPILED_AGAIN"

def load(job, options):
    """Prepares the process and imports the function of the job, which it returns."""
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
    elif job == "link":
        from leoflow.outside.virtual_env import main
    else:
        from leoflow.entry.foreground import main
    return main


def compile_again():
    """Removes the compiled modules of this package, and restarts the process. Python keeps truncated ones when the disk
    becomes full, and every later import of them fails. <https://github.com/python/cpython/issues/126606>"""
    import shutil

    compiled = [sys.pycache_prefix] if sys.pycache_prefix else [path for path, _, _ in os.walk(here) if path.endswith("__pycache__")]
    for folder in compiled:
        shutil.rmtree(folder, ignore_errors=True)
    os.environ[COMPILED_AGAIN] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    # First on the module search path, so that user files cannot shadow `leoflow` or the small package's `airflow`.
    sys.path[0] = here
    job, options = sys.argv[1], json.loads(sys.argv[2])
    try:
        main = load(job, options)
    except EOFError:
        if os.environ.pop(COMPILED_AGAIN, None):
            raise
        compile_again()
    os.environ.pop(COMPILED_AGAIN, None)
    sys.argv = [options.get("path") or options.get("folder") or job]
    main(options)
