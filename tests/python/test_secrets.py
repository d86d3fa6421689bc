"""Masking of secrets."""

import asyncio
import json
import os
import unittest
import unittest.mock

from leoflow.authoring.connection import Connection
from leoflow.authoring.hooks import BaseHook
from leoflow.common import masking
from leoflow.common.exceptions import AirflowException
from leoflow.running import keeper_pipe


class Secrets(unittest.TestCase):
    def setUp(self):
        self.addCleanup(masking._secrets.clear)
        self.addCleanup(setattr, masking, "on_secret", None)
        self.addCleanup(setattr, keeper_pipe, "_pipe", None)

    def test_masks_values_with_sensitive_names(self):
        masking.mask_sensitive("config", {"api_key": "s3cretvalue", "host": "example", "list": [{"token": "othersecret"}]})
        self.assertEqual(masking.hide("s3cretvalue at example with othersecret"), "*** at example with ***")

    def test_recognizes_sensitive_names(self):
        self.assertEqual((masking.SENSITIVE[0], masking.SENSITIVE[-1]), ("access_key", "webhook_url"))
        for name in masking.SENSITIVE:
            self.assertRegex(name, "^[a-z_]+$")
        self.assertTrue(masking.is_sensitive("DB_Password") and masking.is_sensitive("my_token"))
        self.assertFalse(masking.is_sensitive("host"))

    def test_masks_every_encoding(self):
        masking.mask('p"ss wörd/')
        for shown in ('p"ss wörd/', json.dumps('p"ss wörd/'), "p%22ss%20w%C3%B6rd%2F", "p%22ss+w%C3%B6rd%2F"):
            self.assertNotIn("ss", masking.hide(shown).replace("***", ""), shown)

    def test_masks_representations_in_python(self):
        secret = "p\\a'\"ö\t€"
        masking.mask(secret)
        for shown in (repr(secret), repr([secret]), repr({"a": (secret, "\"'")}), ascii(secret), repr(secret.encode()),
                      str([secret.encode()]), json.dumps(json.dumps([secret]))):
            self.assertIn("***", masking.hide(shown), shown)
        masking.mask("-----BEGIN KEY-----\nbGluZQ==\n-----END KEY-----")
        self.assertEqual(masking.hide("key: bGluZQ== "), "key: *** ")

    def test_does_not_mask_short_values_and_airflow(self):
        masking.mask("abcd")
        masking.mask("Airflow")
        self.assertEqual(masking.hide("abcd Airflow"), "abcd Airflow")

    def test_masks_secrets_of_a_connection(self):
        Connection.from_text("c", "postgres://ada:lovelace1@host/db?api_key=alsosecret")
        self.assertEqual(masking.hide("lovelace1 alsosecret ada"), "*** *** ada")

    def test_the_keeper_receives_each_secret_once(self):
        reader, writer = os.pipe()
        keeper_pipe.connect(writer)
        masking.mask("hidden-value")
        masking.mask("hidden-value")
        keeper_pipe.note_begin()
        os.close(writer)
        with os.fdopen(reader) as pipe:
            self.assertEqual([json.loads(line) for line in pipe], ["hidden-value", None])

    def test_an_exited_keeper_is_no_error(self):
        reader, writer = os.pipe()
        os.close(reader)
        self.addCleanup(os.close, writer)
        keeper_pipe.connect(writer)
        masking.mask("any-secret")
        self.assertEqual(masking.hide("any-secret"), "***")


class Uris(unittest.TestCase):
    def test_a_connection_survives_a_round_trip(self):
        given = Connection("c", conn_type="my_sql", login="a:b", password="p@ss/", host="h", port=5, schema="s", extra={"x": "1"})
        found = Connection.from_text("c", given.get_uri())
        for name in ("conn_type", "login", "password", "host", "port", "schema", "extra_dejson"):
            self.assertEqual(getattr(found, name), getattr(given, name), name)

    def test_a_uri_is_written_and_read_as_in_airflow(self):
        # URI, its fields as Airflow 3.3.2 parses them, and the URI that Airflow writes (None: the same).
        for uri, fields, written in (
            ("s3://key%2Fid:se%2Fcr%40@bucket_name", ("s3", "bucket_name", "key/id", "se/cr@", "", None, None), None),
            ("http://https%3A%2F%2Fexample.org:8443/https", ("http", "https://example.org", None, None, "https", 8443, None), "http://https://example.org:8443/https"),
            ("http://https://example.org:8443/s", ("http", "https://example.org", None, None, "s", 8443, None), None),
            ("generic://:p%20w@", ("generic", "", "", "p w", "", None, None), None),
            ("postgresql://u:p@[::1]:5433/my%20db?sslmode=require", ("postgres", "::1", "u", "p", "my db", 5433, '{"sslmode": "require"}'), "postgres://u:p@%3A%3A1:5433/my%20db?sslmode=require"),
            ("google-cloud-platform://?a=b", ("google_cloud_platform", "", None, None, "", None, '{"a": "b"}'), "google-cloud-platform:///?a=b"),
            ("mysql://u:p@%2Fvar%2FRun%2Fsql.sock/db", ("mysql", "/var/Run/sql.sock", "u", "p", "db", None, None), None),
        ):
            with self.subTest(uri):
                found = Connection(conn_id="c", uri=uri)
                names = ("conn_type", "host", "login", "password", "schema", "port", "extra")
                self.assertEqual(tuple(getattr(found, name) for name in names), fields)
                self.assertEqual(found.get_uri(), uri if written is None else written)


class Constructors(unittest.TestCase):
    def test_json_and_mappings(self):
        found = Connection.from_json('{"conn_type": "postgresql", "port": "5", "extra": {"a": "1", "b": "[2]"}}', conn_id="c")
        self.assertEqual(found.as_json(), '{"conn_type": "postgres", "port": 5, "extra": {"a": "1", "b": "[2]"}}')
        self.assertEqual(found.get_extra_dejson(nested=True), {"a": 1, "b": [2]})
        self.assertEqual(Connection(conn_type="http", host="h", extra="none").to_dict()["extra"], {})
        self.assertEqual(Connection(conn_id="x", password="pw12345").get_password(), "pw12345")
        with self.assertRaisesRegex(ValueError, "`port`"):
            Connection.from_json('{"port": "none"}')

    def test_a_uri_and_values_cannot_be_mixed(self):
        with self.assertRaisesRegex(AirflowException, "can't mix"):
            Connection("c", uri="http://h", host="other")
        with self.assertRaises(AirflowException) as raised:
            Connection("c", uri="http://u:secret@a://b://c")
        self.assertNotIn("secret", str(raised.exception))
        with self.assertRaises(AirflowException) as raised:
            Connection("c", uri="azure://client:secret?tenantId=t")
        self.assertNotIn("secret", str(raised.exception))

    def test_hooks_of_connections(self):
        with unittest.mock.patch.dict(os.environ, AIRFLOW_CONN_FILES="fs://?path=/data", AIRFLOW_CONN_WEB="http://h"):
            self.assertEqual(BaseHook.get_hook("files").get_path(), "/data")
            with self.assertRaisesRegex(AirflowException, "leoflow add"):
                BaseHook.get_hook("web")
            self.assertEqual(asyncio.run(BaseHook.aget_connection("web")).host, "h")
            self.assertFalse(Connection.get("web").test_connection()[0])
