"""Prints what the files of a project need, as JSON, without running them; see `leoflow/survey/`."""

from __future__ import annotations

import json
import sys

from leoflow.survey.project import Survey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(options: dict[str, Any]) -> None:
    """Reads the options of each project as a line of standard input; prints a line for each."""
    for project in map(json.loads, sys.stdin):
        survey = Survey(project["top"], project["project"], project["roots"])
        sys.stdout.write(json.dumps(survey.read(project["files"])) + "\n")
