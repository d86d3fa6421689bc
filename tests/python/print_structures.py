"""Prints the structures of the DAGs in a folder, as JSON lines: `print_structures.py FOLDER [AIRFLOW_HOME]`.

With AIRFLOW_HOME, uses Airflow's SDK, which must be installed in this Python; otherwise uses the small package.
"""

import contextlib
import io
import json
import sys
from pathlib import Path

from leoflow.common import real_sdk

folder = Path(sys.argv[1]).resolve()
if sys.argv[2:]:
    real_sdk.activate(sys.argv[2])
    real_sdk.enter_project([str(folder)])

from leoflow.entry import backends  # noqa: E402 - must follow the call above.
from leoflow.entry.workspace import Workspace  # noqa: E402

backend = backends.current()
for path in sorted(folder.glob("*.py")):
    workspace = Workspace([str(folder)])
    # Discards the output of the DAG files.
    with contextlib.redirect_stdout(io.StringIO()):
        structures = backend.structures(backend.dags_of(workspace, str(path)), workspace)
    for dag in structures:
        print(json.dumps({**dag, "file": path.name}))
