"""Masking of secrets."""

import json
import os
import unittest

from leoflow.authoring.connection import Connection
from leoflow.common import masking


class Secrets(unittest.TestCase):
    def setUp(self):
        self.addCleanup(masking._secrets.clear)
        self.addCleanup(masking.set_keeper, None)

    def test_masks_values_with_sensitive_names(self):
        masking.note_secret("config", {"api_key": "s3cretvalue", "host": "example", "list": [{"token": "othersecret"}]})
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

    def test_does_not_mask_short_values_and_airflow(self):
        masking.mask("abcd")
        masking.mask("Airflow")
        self.assertEqual(masking.hide("abcd Airflow"), "abcd Airflow")

    def test_masks_secrets_of_a_connection(self):
        Connection.from_text("c", "postgres://ada:lovelace1@host/db?api_key=alsosecret")
        self.assertEqual(masking.hide("lovelace1 alsosecret ada"), "*** *** ada")

    def test_the_keeper_receives_each_secret_once(self):
        reader, writer = os.pipe()
        masking.set_keeper(writer)
        masking.mask("hidden-value")
        masking.mask("hidden-value")
        os.close(writer)
        with os.fdopen(reader) as pipe:
            self.assertEqual([json.loads(line) for line in pipe], ["hidden-value"])

    def test_an_exited_keeper_is_no_error(self):
        reader, writer = os.pipe()
        os.close(reader)
        self.addCleanup(os.close, writer)
        masking.set_keeper(writer)
        masking.mask("any-secret")
        self.assertEqual(masking.hide("any-secret"), "***")


class Uris(unittest.TestCase):
    def test_a_connection_survives_a_round_trip(self):
        given = Connection("c", conn_type="my_sql", login="a:b", password="p@ss/", host="h", port=5, schema="s", extra={"x": "1"})
        found = Connection.from_text("c", given.get_uri())
        for name in ("conn_type", "login", "password", "host", "port", "schema", "extra_dejson"):
            self.assertEqual(getattr(found, name), getattr(given, name), name)
