"""The trigger process: its access to the project's modules and to the support packages."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest
from pathlib import Path

import leoflow

ENTRY = Path(leoflow.__file__).parent.parent / "_leoflow_entry.py"
AGENT = 3
# Folder of the support packages.
SUPPORT = "support/site-packages"
# A fake pendulum, so that the result does not depend on an installed pendulum.
PENDULUM = """
    import datetime

    class DateTime(datetime.datetime):
        pass

    DateTime.__module__ = "pendulum.datetime"

    def instance(value):
        return DateTime.fromtimestamp(value.timestamp(), tz=value.tzinfo)
"""
TRIGGERS = """
    import asyncio
    import importlib
    import os

    # Not imported here: in Airflow, another module imports this submodule.
    importlib.util

    from airflow.triggers.base import BaseTrigger, TriggerEvent
    import shadowed

    class Says(BaseTrigger):
        async def run(self):
            yield TriggerEvent([os.environ["SAID"], shadowed.WHOSE])

    class Waits(BaseTrigger):
        def write(self, text):
            with open("calls", "a") as file:
                file.write(text + " ")

        async def run(self):
            self.write("run")
            await asyncio.sleep(60)
            yield TriggerEvent(None)

        async def on_kill(self):
            await asyncio.sleep(0)
            self.write("on_kill")

        async def cleanup(self):
            self.write("cleanup")
"""
SOON = {"__classname__": "pendulum.datetime.DateTime", "__version__": 2,
        "__data__": {"timestamp": 0.0, "tz": ["UTC", "pendulum.tz.timezone.Timezone", 1, True]}}
INSTANCE = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": 1}


def write(folder, name, text):
    path = Path(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))


def send(connection, **request):
    connection.sendall(json.dumps({"id": 1, **request}).encode() + b"\n")


class TestTriggerProcess(unittest.TestCase):
    def start(self, support):
        """Starts the process in the test's folder; returns it and our end of its connection."""
        ours, theirs = socket.socketpair()
        options = {"roots": [self.folder], "work_in": [self.folder], "socket": "/nowhere"}
        if support:
            options["support"] = f"{self.folder}/{SUPPORT}"
        # `-s -S` hides the packages of this machine.
        arguments = [sys.executable, "-E", "-s", "-S", "-X", "utf8", str(ENTRY), "triggers", json.dumps(options)]
        place_descriptors = lambda: os.dup2(theirs.fileno(), AGENT)  # noqa: E731
        environment = {"PATH": os.environ["PATH"]}
        started = subprocess.Popen(arguments, env=environment, preexec_fn=place_descriptors, pass_fds=[AGENT])  # noqa: PLW1509
        theirs.close()
        return started, ours

    def ask(self, classpath, kwargs, support):
        """Runs a trigger; returns the payload of its event."""
        started, ours = self.start(support)
        with ours, started:
            send(ours, classpath=classpath, kwargs=kwargs, next_kwargs={}, of=INSTANCE)
            lines = (json.loads(line) for line in ours.makefile("rb"))
            answer = next((line for line in lines if "log" not in line), None)
            ours.shutdown(socket.SHUT_WR)
            started.wait(20)
        self.assertIsNotNone(answer, "the process has ended")
        self.assertNotIn("failed", answer)
        return answer["next_kwargs"]["event"]

    def calls(self, *messages):
        """Starts a waiting trigger, sends these messages and ends the host; returns the trigger's methods that were
        called."""
        started, ours = self.start(support=True)
        file = Path(self.folder, "calls")
        with ours, started:
            send(ours, classpath="local_triggers.Waits", kwargs={}, next_kwargs={}, of=INSTANCE)
            while not file.exists() or not file.read_text():
                time.sleep(0.01)
            for message in messages:
                ours.sendall(json.dumps(message).encode() + b"\n")
            ours.shutdown(socket.SHUT_WR)
            started.wait(20)
        return file.read_text().split()

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        write(self.folder, f"{SUPPORT}/pendulum.py", PENDULUM)
        write(self.folder, f"{SUPPORT}/shadowed.py", "WHOSE = 'a package'")
        write(self.folder, "shadowed.py", "WHOSE = 'the project'")
        write(self.folder, "local_triggers.py", TRIGGERS)
        write(self.folder, ".env", "SAID=here")

    def test_a_pendulum_date_keeps_its_class(self):
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

    def test_on_kill_is_called_when_a_user_has_ended_the_task(self):
        self.assertEqual(self.calls({"cancel": 1, "killed": True}), ["run", "on_kill", "cleanup"])

    def test_a_timeout_or_the_end_of_the_host_does_not_call_on_kill(self):
        for messages in ([{"cancel": 1}], []):
            with self.subTest(messages=messages):
                Path(self.folder, "calls").unlink(missing_ok=True)
                self.assertEqual(self.calls(*messages), ["run", "cleanup"])


if __name__ == "__main__":
    unittest.main()
