"""The import folders of a DAG file."""

import os
import sys
import tempfile
import unittest
import unittest.mock
from pathlib import Path

from leoflow.entry.workspace import Workspace


class TestLinkedProjects(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name).resolve()
        (self.folder / "repository/sales").mkdir(parents=True)
        (self.folder / "repository/common").mkdir()
        (self.folder / "workspace").mkdir()
        os.symlink(self.folder / "repository/sales", self.folder / "workspace/sales")

    def workspace(self, *names):
        return Workspace([str(self.folder / name) for name in names])

    def test_modules_beside_the_target_are_imported(self):
        workspace = self.workspace("workspace/sales", "workspace")
        repository = str(self.folder / "repository")
        self.assertEqual(workspace.paths_after_packages, [repository])
        self.assertTrue(workspace.owns(f"{repository}/common/x.py"))

    def test_other_folders_do_not_import_modules_beside_them(self):
        self.assertEqual(self.workspace("repository/sales", "repository").paths_after_packages, [])
        self.assertEqual(self.workspace("workspace/sales").paths_after_packages, [])

    def test_a_folder_with_python_itself_is_left_out(self):
        with unittest.mock.patch.object(sys, "base_prefix", str(self.folder / "repository/.pyenv/3.12")):
            self.assertEqual(self.workspace("workspace/sales", "workspace").paths_after_packages, [])
