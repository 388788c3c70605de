"""A client of a test's server, over the loopback."""

import contextlib
import re
import urllib.request
from pathlib import Path

from keras_tokenlearner.serving.local import LocalServer, local_server
from tests.bounds import reset_peak


class Server(LocalServer):
    """A server with a client for each protocol, and readings of its memory and its metrics."""

    def v1(self, body, **headers):
        """Return the status and the JSON of the answer to a V1 request."""
        return self.ask(f"/v1/models/{self.name}:predict", body, **headers)

    def v2(self, body, **headers):
        """Return the status and the JSON of the answer to a V2 request."""
        return self.ask(f"/v2/models/{self.name}/infer", body, **headers)

    def metric(self, name):
        """Return a number that `GET /metrics` shows, or 0 if it is not there."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
            text = answer.read().decode()
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def memory(self, kind="VmRSS"):
        """Return the memory of the process in MiB, or with `VmHWM` its peak.

        The result is 0 if the system reports no value.
        """
        status = Path(f"/proc/{self.pid}/status")
        if not status.is_file():
            return 0
        line = next(row for row in status.read_text().splitlines() if row.startswith(kind))
        return int(line.split()[1]) / 1024

    def memory_reset(self):
        """Set the peak of the memory to the present memory, and return it in MiB."""
        reset_peak(self.pid)
        return self.memory("VmHWM")


@contextlib.contextmanager
def serving(path, *options):
    """Serve an exported model while the context lasts."""
    with local_server(path, *options) as server:
        yield Server(**vars(server))
