"""The e-mail of a failed task, read by a mail server of the test."""

import os
import signal
import socket
import socketserver
import sys
import tempfile
import threading
import unittest
import unittest.mock
from email import message_from_string
from types import SimpleNamespace

from leoflow.common.exceptions import AirflowException
from leoflow.entry import parse
from leoflow.running import error_email


class MailServer(socketserver.ThreadingTCPServer):
    """Answers every command, and keeps the recipients and the messages."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Session)
        self.recipients, self.messages = [], []


class Session(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"220 ready\r\n")
        for line in self.rfile:
            command = line.split()[0].upper()
            if command == b"RCPT":
                self.server.recipients.append(line.decode().split("<")[1].split(">")[0])
            if command == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = list(iter(self.rfile.readline, b".\r\n"))
                self.server.messages.append(message_from_string(b"".join(lines).decode()))
            self.wfile.write(b"250 ok\r\n" if command != b"QUIT" else b"221 bye\r\n")


def render(value, context):
    if isinstance(value, list):
        return [render(item, context) for item in value]
    return value.replace("{{n}}", str(context["max_tries"]))


class Instance(SimpleNamespace):
    def __str__(self):
        return "<TaskInstance: d.t r>"


class ErrorEmail(unittest.TestCase):
    def setUp(self):
        self.server = MailServer()
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.port = self.server.server_address[1]

    def send(self, email, **variables):
        ti = Instance(try_number=2, max_tries=3, log_url="http://localhost/a?b&c", hostname="here")
        task = SimpleNamespace(email=email, render_template=render)
        with unittest.mock.patch.dict(os.environ, variables):
            error_email.send(task, {"ti": ti, "exception": ValueError("1 < 2\nand more")})
        return self.server.messages[-1]

    def settings(self):
        return {"AIRFLOW_CONN_SMTP_DEFAULT": f"smtp://127.0.0.1:{self.port}?disable_ssl=true&disable_tls=true&from_email=me%40x.io"}

    def test_is_that_of_airflow(self):
        message = self.send("a@x.io, b@x.io;c@x.io", **self.settings())
        self.assertEqual(self.server.recipients, ["a@x.io", "b@x.io", "c@x.io"])
        self.assertEqual((message["Subject"], message["From"]), ("Airflow alert: <TaskInstance: d.t r>", "me@x.io"))
        text = message.get_payload(decode=True).decode()
        for part in ("Try 2 out of 4", "1 &lt; 2<br>and more", 'href="http://localhost/a?b&amp;c"', "Host: here"):
            self.assertIn(part, text)
        self.assertEqual(message.get_content_type(), "text/html")

    def test_recipients_have_names_and_templates(self):
        message = self.send(["Data Team <team{{n}}@x.io>"], **self.settings())
        self.assertEqual((self.server.recipients, message["To"]), (["team3@x.io"], "Data Team <team3@x.io>"))
        self.send("Ops <a@x.io>; b@x.io", **self.settings())
        self.assertEqual(self.server.recipients[1:], ["a@x.io", "b@x.io"])
        self.assertIsNotNone(message["Date"])

    def test_a_backend_of_the_settings_sends(self):
        sent = []
        module = SimpleNamespace(send=lambda to, subject, body, **options: sent.append((to, subject, options)))
        with unittest.mock.patch.dict(sys.modules, {"mailer": module}), self.assertRaises(IndexError):
            self.send("a@x.io", AIRFLOW__EMAIL__EMAIL_BACKEND="mailer.send")
        options = {"conn_id": "smtp_default", "from_email": "airflow@airflow"}
        self.assertEqual(sent, [(["a@x.io"], "Airflow alert: <TaskInstance: d.t r>", options)])

    def test_a_server_that_hangs_is_given_up(self):
        with socket.create_server(("127.0.0.1", 0)) as silent, unittest.mock.patch.object(error_email, "LIMIT", 0.2):
            settings = {"AIRFLOW_CONN_SMTP_DEFAULT": f"smtp://127.0.0.1:{silent.getsockname()[1]}?disable_ssl=true"}
            with self.assertRaisesRegex(AirflowException, "could not be sent within"):
                self.send("a@x.io", **settings)
        self.assertEqual(signal.getitimer(signal.ITIMER_REAL), (0, 0))

    def test_sender_and_templates_are_settings(self):
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as subject:
            subject.write("Broken\n{{n}}\n")
            subject.flush()
            own = {"AIRFLOW__EMAIL__FROM_EMAIL": "us@x.io", "AIRFLOW__EMAIL__SUBJECT_TEMPLATE": subject.name}
            message = self.send(["a@x.io"], **self.settings(), **own)
        self.assertEqual((message["Subject"], message["From"]), ("Broken 3", "us@x.io"))

    def test_settings_name_the_server_without_a_connection(self):
        variables = {"HOST": "127.0.0.1", "PORT": str(self.port), "STARTTLS": "False"}
        variables = {f"AIRFLOW__SMTP__SMTP_{name}": value for name, value in variables.items()}
        with unittest.mock.patch("leoflow.authoring.connection.read", lambda kind, key: None):
            self.assertEqual(self.send("a@x.io", **variables)["From"], "airflow@airflow")
            with self.assertRaisesRegex(AirflowException, "no mail server is known: create the connection 'mine'"):
                self.send("a@x.io", AIRFLOW__EMAIL__EMAIL_CONN_ID="mine")

    def test_a_connection_has_airflows_defaults(self):
        with unittest.mock.patch.dict(os.environ, {"AIRFLOW_CONN_SMTP_DEFAULT": "smtp://me:secret@mail.x.io"}):
            server = error_email.MailServer.configured()
        self.assertEqual((server.host, server.login, server.password), ("mail.x.io", "me", "secret"))
        self.assertEqual((server.is_ssl, server.starts_tls, server.is_verified, server.timeout), (True, False, True, 30))
        self.assertEqual(server.retries, 5)
        with unittest.mock.patch.dict(os.environ, {"AIRFLOW_CONN_SMTP_DEFAULT": "smtp://mail.x.io?retry_limit=0"}):
            self.assertEqual(error_email.MailServer.configured().retries, 0)


if __name__ == "__main__":
    unittest.main()


class TestWhichTasksSend(unittest.TestCase):
    def test_a_mapped_operator_of_the_sdk_has_its_arguments_in_partial_kwargs(self):
        def mapped(**arguments):
            return SimpleNamespace(task_id="m", partial_kwargs=arguments)

        self.assertTrue(parse.sends_email(mapped(email="x@y.z")))
        self.assertFalse(parse.sends_email(mapped(email="x@y.z", email_on_failure=False, email_on_retry=True)))
        self.assertTrue(parse.sends_email(mapped(email="x@y.z", email_on_failure=False, retries=1)))
        self.assertFalse(parse.sends_email(mapped(email=None)))
