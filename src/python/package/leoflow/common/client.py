"""HTTP client for run/api.sock. It does not use http.client, whose import takes longer than all requests of a task."""

from __future__ import annotations

import json
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

# Time for which a failed request is repeated, for example while the server is upgraded or the datastore restarts.
RETRY_SECONDS = 600
# Time limit of one read or write.
TIMEOUT_SECONDS = 45


class ServerError(Exception):
    """The server refused a request with the HTTP status `status`, or did not answer (status 0)."""

    def __init__(self, status, detail):
        super().__init__(detail or f"the server answered {status}")
        self.status = status


class Client:
    def __init__(self, path, token=None, retry_seconds=None):
        self.path = path
        self.token = token
        self.retry_seconds = RETRY_SECONDS if retry_seconds is None else retry_seconds

    def request(self, method: str, target: str, body: Any = None) -> Any:
        """Returns the decoded JSON answer. Repeats a failed request, which the server may have carried out: it recognizes
        a repeated POST by its key, and all other requests are idempotent. Raises ServerError."""
        key = os.urandom(16).hex() if method == "POST" else None
        deadline = time.monotonic() + self.retry_seconds
        pause = 0.05
        while True:
            try:
                status, answer = self.send_once(method, target, body, key)
                if status not in (408, 502, 503, 504):
                    break
                problem = f"it answered {status}"
            except OSError as error:
                problem = str(error)
            if time.monotonic() > deadline:
                raise ServerError(0, f"Leoflow's server does not answer: {problem}")
            time.sleep(pause)
            pause = min(pause * 2, 1.0)
        content = json.loads(answer) if answer else None
        if status >= 400:
            detail = content.get("detail") if isinstance(content, dict) else None
            raise ServerError(status, detail if isinstance(detail, str) else json.dumps(detail))
        return content

    def send_once(self, method, target, body, key):
        payload = b"" if body is None else json.dumps(body, ensure_ascii=False).encode()
        head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(payload)}\r\n"
        if self.token:
            head += f"Authorization: Bearer {self.token}\r\n"
        if key:
            head += f"Idempotency-Key: {key}\r\n"
        if body is not None:
            head += "Content-Type: application/json\r\n"
        with self.connect() as stream:
            try:
                stream.sendall(head.encode() + b"\r\n" + payload)
            except BrokenPipeError:
                # The server stopped reading; its answer has the reason.
                pass
            with stream.makefile("rb") as answer:
                return read_answer(answer)

    def connect(self) -> socket.socket:
        return connect(self.path, TIMEOUT_SECONDS)


def connect(path: str, timeout: float | None = None) -> socket.socket:
    """Connects to a Unix socket with a path of any length. `timeout` in seconds."""
    import socket

    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.settimeout(timeout)
    try:
        # Linux accepts 107 bytes, macOS 103; a longer path is reached through its folder.
        if len(os.fsencode(path)) <= 103:
            stream.connect(path)
        else:
            connect_through_folder(stream, *os.path.split(path))
    except BaseException:
        stream.close()
        raise
    return stream


def connect_through_folder(stream, folder, name):
    if hasattr(os, "O_PATH"):
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        try:
            stream.connect(f"/proc/self/fd/{descriptor}/{name}")
        finally:
            os.close(descriptor)
    else:
        import tempfile

        with tempfile.TemporaryDirectory() as temporary:
            os.symlink(folder, os.path.join(temporary, "f"))
            stream.connect(os.path.join(temporary, "f", name))


def read_answer(answer):
    """Reads an HTTP response; returns its status and body."""
    status_line = answer.readline().split(b" ", 2)
    if len(status_line) < 2:
        raise ConnectionError("the connection was cut")
    length, chunked = None, False
    while True:
        line = answer.readline().strip()
        if not line:
            break
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
        elif name.lower() == b"transfer-encoding" and value.strip().lower() == b"chunked":
            chunked = True
    if chunked:
        body = b""
        while True:
            size = int(answer.readline() or b"0", 16)
            if size == 0:
                break
            body += answer.read(size)
            answer.readline()
    else:
        body = answer.read() if length is None else answer.read(length)
        if length is not None and len(body) < length:
            raise ConnectionError("the answer was cut short")
    return int(status_line[1]), body


def quote(text: str) -> str:
    """Percent-encodes a path segment."""
    return "".join(chr(byte) if chr(byte).isascii() and chr(byte).isalnum() else f"%{byte:02X}" for byte in text.encode())
