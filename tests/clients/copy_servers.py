"""An S3 server and an SFTP server on loopback, for tests of copies of backups. Prints their ports as JSON, and ends at the
end of its input.

Usage: copy_servers.py FOLDER. The folder has `client_key`, a key of ssh-keygen that may log in; its folder `sftp` is what
the SFTP server shows. While the file FOLDER/lie exists, the S3 server returns other bytes than it was sent; while
FOLDER/refuse exists, it answers uploads with an error in the middle.
"""

import asyncio
import json
import os
import sys
import threading

import asyncssh
import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server


class Faulty:
    """A server that lies or fails when a file says so."""

    def __init__(self, application, folder):
        self.application, self.folder = application, folder

    def __call__(self, environ, start_response):
        is_object = environ["PATH_INFO"].count("/") > 1 and "list-type" not in environ.get("QUERY_STRING", "")
        if environ["REQUEST_METHOD"] == "PUT" and "partNumber=2" in environ["QUERY_STRING"] and self.has("refuse"):
            start_response("507 Insufficient Storage", [("Content-Length", "0")])
            return [b""]
        if any("CHECKSUM" in name for name in environ):
            # As Backblaze does: many clients have failed there since their libraries send checksums by default.
            start_response("400 Bad Request", [("Content-Length", "0")])
            return [b""]
        answer = self.application(environ, start_response)
        if environ["REQUEST_METHOD"] == "GET" and is_object and self.has("lie"):
            content = b"".join(answer)
            return [content[:-1] + bytes([content[-1] ^ 1])]
        return answer

    def has(self, name):
        return os.path.exists(os.path.join(self.folder, name))


async def main(folder):
    application = Faulty(DomainDispatcherApplication(create_backend_app), folder)
    s3 = make_server("127.0.0.1", 0, application, threaded=True)
    threading.Thread(target=s3.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{s3.server_port}"
    keys = {"aws_access_key_id": "id", "aws_secret_access_key": "key", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=address, **keys).create_bucket(Bucket="bucket")

    root = os.path.join(folder, "sftp")
    os.makedirs(root, exist_ok=True)
    sftp = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
        authorized_client_keys=os.path.join(folder, "client_key.pub"),
        sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=root),
    )
    print(json.dumps({"s3": address, "sftp": sftp.get_port()}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main(sys.argv[1]))
