"""Sends requests at a steady rate while an operation is measured. Used by scripts/try-upgrade and scripts/bench."""

import http.client
import json
import threading
import time


def log_in(port, password):
    body = json.dumps({"username": "admin@leoflow.local", "password": password})
    return json.loads(send_request(port, "POST", "/auth/token", body)[1])["access_token"]


def send_request(port, method, path, body=None, token=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


class Load:
    """Sends `rate` requests per second from 32 threads, each on its own connection, until `end`. Most are reads; every
    eighth creates a variable, whose key is in `written` once it is acknowledged."""

    def __init__(self, port, token, rate):
        self.port, self.token, self.rate = port, token, rate
        self.stopped = threading.Event()
        self.lock = threading.Lock()
        self.sent, self.failed, self.written, self.seconds = 0, [], [], []
        self.threads = [threading.Thread(target=self.send_repeatedly, args=(at,)) for at in range(32)]
        self.begun = time.monotonic()
        for thread in self.threads:
            thread.start()

    def send_repeatedly(self, number):
        step = len(self.threads) / self.rate
        turn = 0
        while not self.stopped.is_set():
            due = self.begun + number / self.rate + turn * step
            time.sleep(max(0, due - time.monotonic()))
            self.request(number, turn)
            turn += 1

    def request(self, number, turn):
        kind = turn % 8
        key = f"load_{number}_{turn}"
        path = ["/api/v2/variables", "/", "/api/healthz", "/api/v2/dags", "/", "/api/healthz", "/auth/login", "/"][kind]
        method, body = ("POST", json.dumps({"key": key, "value": "x"})) if kind == 0 else ("GET", None)
        begun = time.monotonic()
        try:
            status, content = send_request(self.port, method, path, body, self.token)
            failure = None if status < 400 else f"{method} {path}: {status} {content[:200]!r}"
        except OSError as error:
            failure = f"{method} {path}: {error!r}"
        except http.client.HTTPException as error:
            failure = f"{method} {path}: {error!r}"
        with self.lock:
            self.sent += 1
            self.seconds.append(time.monotonic() - begun)
            if failure:
                self.failed.append(failure)
            elif method == "POST":
                self.written.append(key)

    def end(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join()
