"""A server on this machine that serves bytes, and misbehaves as it is told to."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """What is served, how, and what was asked for.

    Attributes:
        files: path -> content.
        ranges: whether `Range` is answered; else the whole file comes.
        cuts: after so many bytes of the first answers the connection is cut; one entry per answer.
        statuses: of the first answers, in place of a file.
        length: announced in place of the true one; None announces none.
        delay_s: before each 1,000 bytes.
        asked: (path, Range header) of each request.
    """

    files: dict[str, bytes]
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    length: int | None = -1
    delay_s: float = 0.0
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


@contextlib.contextmanager
def serve(served: Served) -> Iterator[Served]:
    """Serve on a free port of 127.0.0.1; `served.url` is the address, ending in /."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(ConnectionError):  # whoever asked was killed
                self.answer()

        def answer(self) -> None:
            wanted = self.headers.get("Range")
            served.asked.append((self.path, wanted))
            if served.statuses and (status := served.statuses.pop(0)) != 200:
                self.send_error(status)
                return
            content = served.files.get(self.path.lstrip("/"))
            if content is None:
                self.send_error(404)
                return
            start = 0
            if served.ranges and wanted:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                if start >= len(content):
                    self.send_response(416)
                    whole = served.length if (served.length or -1) > 0 else len(content)
                    self.send_header("Content-Range", f"bytes */{whole}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header(
                    "Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"
                )
            else:
                self.send_response(200)
            rest = content[start:]
            if served.length is not None:
                announced = len(rest) if served.length < 0 else served.length
                self.send_header("Content-Length", str(announced))
            self.end_headers()
            most = served.cuts.pop(0) if served.cuts else len(rest)
            for place in range(0, min(most, len(rest)), 1000):
                time.sleep(served.delay_s)
                self.wfile.write(rest[place : min(place + 1000, most)])
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Tests are quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}/"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
