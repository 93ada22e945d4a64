"""Object stores on loopback that speak the real protocols: S3 (moto) and GCS (an emulator)."""

import contextlib
import dataclasses
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).parents[2]
BUCKET = "bucket"
KINDS = ("s3", "gs")


@dataclasses.dataclass(frozen=True)
class Store:
    """One server and what a process has to know to find it."""

    url: str  # of a bucket that is there
    missing: str  # of one that is not
    environment: dict


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait(address, server):
    for _ in range(300):
        assert server.poll() is None, "the server has ended"
        try:
            urllib.request.urlopen(address, timeout=1).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(address)


def _described(kind, address):
    if kind == "s3":
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p"]
        environment = {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        return [*command, address.rsplit(":", 1)[1]], environment
    command = [sys.executable, "-m", "tests.train.gcs_server", address.rsplit(":", 1)[1], BUCKET]
    environment = {
        "STORAGE_EMULATOR_HOST": address,
        "TENSORSTORE_GCS_HTTP_URL": address,
        "GOOGLE_CLOUD_PROJECT": "test",
        "NO_GCE_CHECK": "true",
        # Else gcsfs asks the real service of what kind each bucket is.
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }
    return command, environment


@contextlib.contextmanager
def serve(kind, **settings):
    """Runs a server of "s3" or "gs" with one empty bucket, and gives its `Store`."""
    address = f"http://127.0.0.1:{_free_port()}"
    command, environment = _described(kind, address)
    server = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"AWS_DEFAULT_REGION": "us-east-1"} | settings,
    )
    try:
        _wait(address, server)
        if kind == "s3":
            import boto3  # of the extra `stores`, which tests that are not slow do without

            keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
            client = boto3.client("s3", "us-east-1", endpoint_url=address, **keys)
            client.create_bucket(Bucket=BUCKET)
        yield Store(f"{kind}://{BUCKET}", f"{kind}://absent-{BUCKET}", environment)
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()
