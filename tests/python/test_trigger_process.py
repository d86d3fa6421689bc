"""The trigger process: its access to the project and to the packages that come with Leoflow."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import textwrap
import unittest
from pathlib import Path

import leoflow

ENTRY = Path(leoflow.__file__).parent.parent / "_leoflow_entry.py"
AGENT = 3
# Folder of the packages that come with Leoflow.
SUPPORT = "support/site-packages"
# A fake pendulum, so that the result does not depend on the machine's.
PENDULUM = """
    import datetime

    class DateTime(datetime.datetime):
        pass

    DateTime.__module__ = "pendulum.datetime"

    def instance(value):
        return DateTime.fromtimestamp(value.timestamp(), tz=value.tzinfo)
"""
TRIGGERS = """
    import importlib
    import os

    # In Airflow, another module imports it.
    importlib.util

    from airflow.triggers.base import BaseTrigger, TriggerEvent
    import shadowed

    class Says(BaseTrigger):
        async def run(self):
            yield TriggerEvent([os.environ["SAID"], shadowed.WHOSE])
"""
SOON = {"__classname__": "pendulum.datetime.DateTime", "__version__": 2,
        "__data__": {"timestamp": 0.0, "tz": ["UTC", "pendulum.tz.timezone.Timezone", 1, True]}}
INSTANCE = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": 1}


def write(folder, name, text):
    path = Path(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))


class TestTriggerProcess(unittest.TestCase):
    def ask(self, classpath, kwargs, support):
        """Runs a trigger in a process in the test's folder; returns the payload of its event."""
        ours, theirs = socket.socketpair()
        options = {"roots": [self.folder], "work_in": [self.folder], "socket": "/nowhere"}
        if support:
            options["support"] = f"{self.folder}/{SUPPORT}"
        # Without the packages of this machine.
        arguments = [sys.executable, "-E", "-s", "-S", "-X", "utf8", str(ENTRY), "triggers", json.dumps(options)]
        place_descriptors = lambda: os.dup2(theirs.fileno(), AGENT)  # noqa: E731
        environment = {"PATH": os.environ["PATH"]}
        with ours, subprocess.Popen(arguments, env=environment, preexec_fn=place_descriptors, pass_fds=[AGENT]) as started:  # noqa: PLW1509
            theirs.close()
            request = {"id": 1, "classpath": classpath, "kwargs": kwargs, "next_kwargs": {}, "of": INSTANCE}
            ours.sendall(json.dumps(request).encode() + b"\n")
            lines = (json.loads(line) for line in ours.makefile("rb"))
            answer = next((line for line in lines if "log" not in line), None)
            ours.shutdown(socket.SHUT_WR)
            started.wait(20)
        self.assertIsNotNone(answer, "the process has ended")
        self.assertNotIn("failed", answer)
        return answer["next_kwargs"]["event"]

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        write(self.folder, f"{SUPPORT}/pendulum.py", PENDULUM)
        write(self.folder, f"{SUPPORT}/shadowed.py", "WHOSE = 'a package'")
        write(self.folder, "shadowed.py", "WHOSE = 'the project'")
        write(self.folder, "local_triggers.py", TRIGGERS)
        write(self.folder, ".env", "SAID=here")

    def test_a_pendulum_date_stays_one(self):
        trigger = "airflow.providers.standard.triggers.temporal.DateTimeTrigger"
        event = self.ask(trigger, {"moment": SOON}, support=True)
        self.assertEqual(event["__classname__"], "pendulum.datetime.DateTime")

    def test_a_pendulum_date_is_read_without_pendulum(self):
        trigger = "airflow.providers.standard.triggers.temporal.DateTimeTrigger"
        event = self.ask(trigger, {"moment": SOON}, support=False)
        self.assertEqual(event["__classname__"], "datetime.datetime")

    def test_has_the_modules_and_variables_of_a_task(self):
        self.assertEqual(self.ask("local_triggers.Says", {}, support=True), ["here", "the project"])
        self.assertFalse(Path(self.folder, "__pycache__").exists(), "nothing is written to the project")


if __name__ == "__main__":
    unittest.main()
