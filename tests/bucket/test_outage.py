"""A server that answers 503 for a while: a run waits for it, or stops, and loses nothing."""

import http.client
import http.server
import threading
import time
from collections.abc import Iterator

import pytest
from etils import epath

from tests.bucket.conftest import BUCKET, Server, environment
from tests.bucket.test_runs import fetched, lines, steps
from tests.running import Commands, assert_same_run, wait_for


class Proxy:
    """Passes requests on to the server, or answers 503 while `down` is set."""

    def __init__(self, server: Server):
        self.down = threading.Event()
        self.refused = 0
        upstream = server.url.removeprefix("http://")
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                length = self.headers.get("Content-Length")
                body = self.rfile.read(int(length)) if length else self._chunks()
                if proxy.down.is_set():
                    proxy.refused += 1
                    self._answer(503, [], b"unavailable")
                    return
                onward = http.client.HTTPConnection(upstream, timeout=30)
                headers = {
                    k: v for k, v in self.headers.items() if k.lower() != "transfer-encoding"
                }
                onward.request(self.command, self.path, body, headers)
                answer = onward.getresponse()
                self._answer(answer.status, answer.getheaders(), answer.read())
                onward.close()

            def _chunks(self) -> bytes:
                body = b""
                if self.headers.get("Transfer-Encoding") == "chunked":
                    while size := int(self.rfile.readline(), 16):
                        body += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                return body

            def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers:
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        here = value.replace(server.url, proxy.url)  # where an upload goes on
                        self.send_header(name, here)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = handle_any

            def log_message(self, format: str, *args: object) -> None: ...

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    proxy = Proxy(server)
    yield proxy
    proxy.close()


@pytest.mark.slow
def test_a_short_outage_is_waited_for(podium: Commands, proxy, folder, finished, tmp_path):
    behind = podium.with_env(environment(proxy.url))
    process = behind.start(*behind.train(folder))
    wait_for(lambda: lines(folder) > 2, process)
    proxy.down.set()
    time.sleep(5)
    proxy.down.clear()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert proxy.refused > 0, "the outage hit nothing"
    assert_same_run(fetched(folder, tmp_path), finished)


@pytest.mark.slow
def test_a_long_outage_stops_the_run_and_loses_nothing(
    podium: Commands, proxy, folder, finished, tmp_path
):
    behind = podium.with_env(environment(proxy.url))
    process = behind.start(*behind.train(folder))
    wait_for(lambda: bool(steps(folder)), process)
    proxy.down.set()
    _, err = process.communicate(timeout=300)
    proxy.down.clear()
    assert process.returncode == 2, err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert f"{folder} cannot be reached (" in line
    before = steps(folder)
    assert before, "nothing had been saved"
    again = behind(*behind.train(folder))
    assert again.returncode == 0, again.stderr
    assert f"resuming after step {before[-1]} of 12 in {folder}" in again.stderr
    assert_same_run(fetched(folder, tmp_path), finished)


@pytest.mark.slow
def test_a_server_that_is_not_there(podium: Commands):
    nobody = podium.with_env(environment("http://127.0.0.1:9"))
    done = nobody(*nobody.train(epath.Path(f"gs://{BUCKET}/run")))
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: gs://{BUCKET}/run cannot be reached (")
    assert "Traceback" not in done.stderr
