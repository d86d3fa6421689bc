"""Entry point: `python _leoflow_entry.py parse|task|ask|test|triggers|zygote|shell|survey|link|pytest OPTIONS`, with OPTIONS as JSON."""

import json
import os
import sys

# Set in a process that `compile_again` has restarted.
COMPILED_AGAIN = "LEOFLOW_COMPILED_AGAIN"


def load(job, options, here):
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
        from leoflow.entry.warm.zygote import main
    elif job == "shell":
        from leoflow.entry.shell import main
    elif job == "survey":
        from leoflow.survey.main import main
    elif job == "link":
        from leoflow.outside.virtual_env import main
    elif job == "pytest":
        from leoflow.outside.pytest_run import main
    else:
        from leoflow.entry.foreground import main
    return main


class CompiledModules:
    """The compiled modules of this package. Python keeps truncated ones when the disk becomes full, and every later import
    of them fails with an EOFError. <https://github.com/python/cpython/issues/126606>"""

    def __init__(self, folder):
        self.folder = folder
        self.are_new = os.environ.pop(COMPILED_AGAIN, None) is not None

    def compile_again(self, error):
        """Removes the compiled modules and restarts the process; raises the error if that did not help."""
        if self.are_new:
            raise error
        import shutil

        in_package = (path for path, _, _ in os.walk(self.folder) if path.endswith("__pycache__"))
        for folder in [sys.pycache_prefix] if sys.pycache_prefix else list(in_package):
            shutil.rmtree(folder, ignore_errors=True)
        os.environ[COMPILED_AGAIN] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    # First on the module search path, so that user files cannot shadow `leoflow` or the small package's `airflow`.
    sys.path[0] = here
    job, options = sys.argv[1], json.loads(sys.argv[2])
    compiled = CompiledModules(here)
    try:
        main = load(job, options, here)
    except EOFError as error:
        compiled.compile_again(error)
    sys.argv = [options.get("path") or options.get("folder") or job]
    if job == "zygote":
        main(options, compiled.compile_again)
    else:
        main(options)
