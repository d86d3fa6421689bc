"""Downloads the objects of a folder in the bucket of copy_servers.py. Usage: fetch_objects.py ENDPOINT PREFIX FOLDER"""

import os
import sys

import boto3
from botocore.config import Config

endpoint, prefix, folder = sys.argv[1:]
# The server refuses checksums.
config = Config(request_checksum_calculation="when_required", response_checksum_validation="when_required")
keys = {"aws_access_key_id": "id", "aws_secret_access_key": "key", "region_name": "us-east-1"}
s3 = boto3.client("s3", endpoint_url=endpoint, config=config, **keys)
os.makedirs(folder)
for found in s3.list_objects_v2(Bucket="bucket", Prefix=prefix + "/").get("Contents", []):
    s3.download_file("bucket", found["Key"], os.path.join(folder, os.path.basename(found["Key"])))
