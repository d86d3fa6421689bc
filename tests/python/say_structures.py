"""The structures of the DAGs in a folder, a JSON line for each: `say_structures.py FOLDER [AIRFLOW_HOME]`.

With a home for Airflow they are as Airflow's own SDK makes them, which has to be in this Python; else as our package does.
"""

import contextlib
import io
import json
import sys
from pathlib import Path

from leoflow.common import real_sdk

folder = Path(sys.argv[1]).resolve()
if sys.argv[2:]:
    real_sdk.use(sys.argv[2])
    real_sdk.enter_project([str(folder)])

from leoflow.entry import sides  # noqa: E402 - what it imports depends on the above.
from leoflow.entry.workspace import Workspace  # noqa: E402

side = sides.current()
for path in sorted(folder.glob("*.py")):
    workspace = Workspace([str(folder)])
    # In a text of its own: the files print.
    with contextlib.redirect_stdout(io.StringIO()):
        said = side.structures(side.dags_of(workspace, str(path)), workspace)
    for dag in said:
        print(json.dumps({**dag, "file": path.name}))
