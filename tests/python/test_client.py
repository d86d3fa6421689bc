"""The client of run/api.sock, with a server that sends errors and incomplete answers."""

import os
import socket
import tempfile
import threading
import unittest
import unittest.mock

from leoflow.common import leoflow_server
from leoflow.common.client import Client, ServerError, quote


class Server:
    """Sends the next of `answers` to each connection, and records the requests."""

    def __init__(self, folder, answers):
        self.path = os.path.join(folder, "s")
        self.requests = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        self.thread = threading.Thread(target=self.serve, args=(answers,), daemon=True)
        self.thread.start()

    def serve(self, answers):
        for answer in answers:
            stream, _ = self.listener.accept()
            with stream:
                self.requests.append(stream.recv(65536).decode())
                stream.sendall(answer)

    def close(self):
        self.listener.close()
        self.thread.join(5)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}"


NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}"


class DefaultConnections(unittest.TestCase):
    def test_fs_default_exists_until_the_user_creates_it(self):
        with tempfile.TemporaryDirectory() as folder:
            server = Server(folder, [NOT_FOUND, NOT_FOUND, OK])
            self.addCleanup(server.close)
            with unittest.mock.patch.object(leoflow_server, "_client", Client(server.path, None, 5.0)):
                self.assertEqual(leoflow_server.read("connections", "fs_default"), {"conn_type": "fs", "extra": '{"path": "/"}'})
                self.assertIsNone(leoflow_server.read("variables", "fs_default"))
                self.assertEqual(leoflow_server.read("connections", "fs_default"), {"a": 1})


class Requests(unittest.TestCase):
    def ask(self, *answers, retry_seconds=5.0):
        with tempfile.TemporaryDirectory() as folder:
            server = Server(folder, answers)
            try:
                return Client(server.path, "secret", retry_seconds).request("POST", "/x", {"y": "ü"}), server.requests
            finally:
                server.close()

    def test_sends_a_complete_request(self):
        answer, requests = self.ask(OK)
        self.assertEqual(answer, {"a": 1})
        self.assertIn("POST /x HTTP/1.1\r\n", requests[0])
        self.assertIn("Authorization: Bearer secret\r\n", requests[0])
        self.assertIn("Content-Length: 11\r\n", requests[0])
        self.assertTrue(requests[0].endswith('{"y": "ü"}'))

    def test_reads_a_chunked_answer(self):
        answer, _ = self.ask(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n")
        self.assertEqual(answer, {"a": 1})

    def test_repeats_requests_while_the_server_restarts(self):
        busy = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
        cut = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"
        answer, requests = self.ask(busy, cut, b"", OK)
        self.assertEqual((answer, len(requests)), ({"a": 1}, 4))

    def test_a_repeated_post_has_the_key_of_the_first(self):
        _, requests = self.ask(b"", b"", OK)
        _, others = self.ask(OK)
        keys = [[line for line in text.split("\r\n") if line.startswith("Idempotency-Key: ")] for text in requests + others]
        self.assertEqual((len(keys[0]), keys[1:3]), (1, [keys[0], keys[0]]))
        self.assertEqual(len(keys[3]), 1)
        self.assertNotEqual(keys[0], keys[3])

    def test_gives_up_after_retry_seconds(self):
        with tempfile.TemporaryDirectory() as folder, self.assertRaisesRegex(ServerError, "does not answer"):
            Client(os.path.join(folder, "missing"), retry_seconds=0.1).request("GET", "/x")

    def test_a_refusal_has_the_servers_message(self):
        refusal = b"HTTP/1.1 404 Not Found\r\nContent-Length: 19\r\n\r\n{\"detail\":\"no way\"}"
        with self.assertRaisesRegex(ServerError, "no way") as caught:
            self.ask(refusal)
        self.assertEqual(caught.exception.status, 404)

    def test_connects_to_a_long_path(self):
        with tempfile.TemporaryDirectory() as folder:
            nested = os.path.join(folder, *["d" * 50] * 3)
            os.makedirs(nested)
            here = os.getcwd()
            os.chdir(nested)
            try:
                listener = socket.socket(socket.AF_UNIX)
                listener.bind("s")
                listener.listen()
            finally:
                os.chdir(here)
            with listener, Client(os.path.join(nested, "s")).connect():
                pass

    def test_quotes_names_in_paths(self):
        self.assertEqual(quote("a b/ü%"), "a%20b%2F%C3%BC%25")
