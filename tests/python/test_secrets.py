"""Secrets are hidden in what is shown."""

import json
import os
import unittest

from leoflow.authoring.connection import Connection
from leoflow.common import masking


class Secrets(unittest.TestCase):
    def setUp(self):
        self.addCleanup(masking._secrets.clear)
        self.addCleanup(masking.tell, None)

    def test_by_the_name_of_what_holds_them(self):
        masking.note_secret("config", {"api_key": "s3cretvalue", "host": "example", "list": [{"token": "othersecret"}]})
        self.assertEqual(masking.hide("s3cretvalue at example with othersecret"), "*** at example with ***")

    def test_in_every_form_in_which_they_are_written(self):
        masking.mask('p"ss wörd/')
        for shown in ('p"ss wörd/', json.dumps('p"ss wörd/'), "p%22ss%20w%C3%B6rd%2F", "p%22ss+w%C3%B6rd%2F"):
            self.assertNotIn("ss", masking.hide(shown).replace("***", ""), shown)

    def test_short_ones_and_airflow_are_not(self):
        masking.mask("abcd")
        masking.mask("Airflow")
        self.assertEqual(masking.hide("abcd Airflow"), "abcd Airflow")

    def test_of_a_connection(self):
        Connection.from_text("c", "postgres://ada:lovelace1@host/db?api_key=alsosecret")
        self.assertEqual(masking.hide("lovelace1 alsosecret ada"), "*** *** ada")

    def test_the_keeper_hears_of_each_once(self):
        reader, writer = os.pipe()
        masking.tell(writer)
        masking.mask("hidden-value")
        masking.mask("hidden-value")
        os.close(writer)
        with os.fdopen(reader) as pipe:
            self.assertEqual([json.loads(line) for line in pipe], ["hidden-value"])

    def test_a_keeper_that_has_left_is_no_error(self):
        reader, writer = os.pipe()
        os.close(reader)
        self.addCleanup(os.close, writer)
        masking.tell(writer)
        masking.mask("whatever-it-is")
        self.assertEqual(masking.hide("whatever-it-is"), "***")


class Uris(unittest.TestCase):
    def test_a_connection_goes_there_and_back(self):
        given = Connection("c", conn_type="my_sql", login="a:b", password="p@ss/", host="h", port=5, schema="s", extra={"x": "1"})
        found = Connection.from_text("c", given.get_uri())
        for name in ("conn_type", "login", "password", "host", "port", "schema", "extra_dejson"):
            self.assertEqual(getattr(found, name), getattr(given, name), name)
