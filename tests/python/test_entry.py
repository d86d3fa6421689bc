"""`_leoflow_entry.py`: the start of each process."""

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ENTRY = Path(__file__).parents[2] / "src" / "python" / "package" / "_leoflow_entry.py"


class EntryTest(unittest.TestCase):
    def test_truncated_compiled_modules_are_compiled_again(self):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "a.py").write_text("import requests\n")
            project = json.dumps({"top": folder, "project": folder, "roots": [folder], "files": [f"{folder}/a.py"]})
            arguments = [sys.executable, "-E", "-X", f"pycache_prefix={folder}/compiled", str(ENTRY), "survey", "{}"]

            def modules():
                output = subprocess.run(arguments, input=project, capture_output=True, text=True, check=True).stdout
                return [fact["what"] for fact in json.loads(output)["modules"]]

            self.assertEqual(modules(), ["requests"])
            compiled = [path for path in Path(folder, "compiled").rglob("*.pyc") if "leoflow" in path.parts]
            self.assertTrue(compiled)
            for path in compiled:
                # Such a file has its header and a part of the code.
                path.write_bytes(path.read_bytes()[:40])
            self.assertEqual(modules(), ["requests"])
            self.assertTrue(any(path.stat().st_size > 40 for path in compiled))
