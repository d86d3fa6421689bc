"""The secrets backend of the small package."""

import json
import os
import tempfile
import unittest
from unittest.mock import patch

from leoflow.authoring.connection import Connection
from leoflow.authoring.variable import Variable
from leoflow.common import masking, task_log
from leoflow.common.exceptions import AirflowException
from leoflow.common.settings import secrets_backend
from leoflow.running import keeper_pipe

NAME = "AIRFLOW__SECRETS__BACKEND"


class SecretsBackend(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.addCleanup(masking._secrets.clear)

    def use(self, backend=secrets_backend.LOCAL_FILES, **files):
        """Configures a backend; `files` has the name and the text of the file of each argument."""
        arguments = {}
        for kind, (name, text) in files.items():
            arguments[secrets_backend.ARGUMENTS[kind]] = path = os.path.join(self.folder.name, name)
            with open(path, "w") as file:
                file.write(text)
        patcher = patch.dict(os.environ, {NAME: backend, f"{NAME}_KWARGS": json.dumps(arguments)})
        patcher.start()
        self.addCleanup(patcher.stop)

    def test_a_file_precedes_environment_and_datastore(self):
        self.use(variables=("v.json", '{"region": "north", "limits": {"rows": 3}, "text": "[1]"}'))
        stored = {"value": "stored"}
        with patch.dict(os.environ, AIRFLOW_VAR_REGION="south", AIRFLOW_VAR_OTHER="west"), \
                patch("leoflow.authoring.variable.read", return_value=stored):
            self.assertEqual([Variable.get(key) for key in ("region", "other", "third")], ["north", "west", "stored"])
            self.assertEqual(Variable.get("limits", deserialize_json=True), {"rows": 3})
            self.assertEqual(Variable.get("text", deserialize_json=True), [1])

    def test_connections_are_texts_or_objects(self):
        fields = {"conn_type": "postgres", "host": "h", "port": 5, "extra_dejson": {"sslmode": "require"}}
        texts = {"a": "http://u:secretword@h:80/p", "b": fields, "c": ["ftp://h"]}
        self.use(connections=("c.json", json.dumps(texts)))
        self.assertEqual(Connection.get("a").password, "secretword")
        self.assertEqual(masking.hide("is secretword"), "is ***")
        self.assertEqual((Connection.get("b").port, Connection.get("b").extra_dejson), (5, {"sslmode": "require"}))
        self.assertEqual(Connection.get("c").conn_type, "ftp")

    def test_an_invalid_connection_is_an_error(self):
        for value, problem in (({"hots": 1}, "unknown field 'hots'"), ({"extra": "", "extra_dejson": {}}, "both extra"),
                               ({"conn_id": "y"}, "another conn_id"), (3, "is a int")):
            with self.assertRaisesRegex(AirflowException, problem):
                Connection.from_value("x", value)

    def test_an_env_file_is_verbatim(self):
        self.use(variables=("v.env", "# comment\n\nA=\"quoted\"  # x\nB=c=d\n"))
        self.assertEqual((Variable.get("A"), Variable.get("B")), ('"quoted"  # x', "c=d"))

    def test_a_file_with_an_error_is_logged_without_its_values(self):
        self.use(variables=("v.env", "TOKEN=verysecret\nTOKEN=another\n"), connections=("c.txt", ""))
        with patch.object(task_log, "log_event") as log, patch.dict(os.environ, AIRFLOW_VAR_TOKEN="environment"):
            self.assertEqual(Variable.get("TOKEN"), "environment")
        self.assertRegex(log.call_args.args[2], r"v\.env:2: TOKEN has several values")
        self.assertNotIn("verysecret", log.call_args.args[2])
        self.assertRegex("\n".join(secrets_backend.problems()), r"connections_file_path.*must end in \.env, \.json")

    def test_arguments_have_variables_of_their_own(self):
        self.use()
        path = os.path.join(self.folder.name, "v.json")
        with open(path, "w") as file:
            file.write('{"a": "b"}')
        with patch.dict(os.environ, {f"{NAME}_KWARG__VARIABLES_FILE_PATH": path}):
            self.assertEqual(Variable.get("a"), "b")

    def test_invalid_arguments_are_an_error(self):
        self.use()
        for text, problem in (("{", "not a JSON object"), ("[]", "not a JSON object"), ('{"path": "x"}', "no argument 'path'")):
            with patch.dict(os.environ, {f"{NAME}_KWARGS": text}), self.assertRaisesRegex(AirflowException, problem):
                secrets_backend.paths()

    def test_secrets_in_its_arguments_are_masked(self):
        with patch.dict(os.environ, {f"{NAME}_KWARGS": '{"token": "vault-token"}', "AIRFLOW__SMTP__SMTP_PASSWORD": "mail-word"}):
            keeper_pipe.mask_environment()
        self.assertEqual(masking.hide("vault-token mail-word"), "*** ***")

    def test_another_backend_names_the_package_to_add(self):
        for backend, package in (("airflow.providers.hashicorp.secrets.vault.VaultBackend", "apache-airflow-providers-hashicorp"),
                                 ("my.Backend", "apache-airflow")):
            self.use(backend)
            with self.assertRaisesRegex(AirflowException, f"leoflow.* add {package}[` ]"):
                secrets_backend.paths()


if __name__ == "__main__":
    unittest.main()
