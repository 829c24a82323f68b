"""TCP in front of a real server: a network that is slow, cut, reset, or silently gone."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

BLOCK_BYTES = 16 * 1024

_NO_LINGERING = struct.pack("ii", 1, 0)
"""SO_LINGER, on, of zero seconds."""


class TcpProxy:
    """Forwards to one server what comes in on `port`. Faults hold until `heal`."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        """With `tls`, clients must speak it; to the server it is plain."""
        self._target = host, port
        self._tls = tls
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._flowing = threading.Event()
        self._flowing.set()
        self._refusing = False
        self._delay_s = 0.0
        self._bytes_per_s = float("inf")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def partition(self) -> None:
        """Bytes stop in both directions, and nobody is told."""
        self._flowing.clear()

    def refuse(self) -> None:
        """Every connection is reset, those to come too."""
        self._refusing = True
        self.reset()

    def reset(self) -> None:
        """Reset the connections there are."""
        with self._lock:
            broken, self._open = self._open, set()
        for end in broken:
            _reset(end)

    def slow_down(self, *, delay_s: float = 0.0, bytes_per_s: float = float("inf")) -> None:
        """Each block of bytes comes later, and slower."""
        self._delay_s, self._bytes_per_s = delay_s, bytes_per_s

    def heal(self) -> None:
        """The network is as it should be; what was reset stays so."""
        self._refusing = False
        self.slow_down()
        self._flowing.set()

    def close(self) -> None:
        self._listener.close()
        self.reset()
        self._flowing.set()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                client, _ = self._listener.accept()
                try:
                    if self._refusing:
                        raise ConnectionRefusedError
                    if self._tls is not None:
                        client = self._tls.wrap_socket(client, server_side=True)
                    server = socket.create_connection(self._target, 5)
                except OSError:
                    _reset(client)
                    continue
                server.settimeout(None)
                with self._lock:
                    self._open |= {client, server}
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while block := source.recv(BLOCK_BYTES):
                self._flowing.wait()
                time.sleep(self._delay_s + len(block) / self._bytes_per_s)
                sink.sendall(block)
        with self._lock:
            mine = {source, sink} & self._open
            self._open -= mine
        for end in mine:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def reset_on_close(end: socket.socket) -> None:
    """Closing it is to send RST instead of FIN."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)


def _reset(end: socket.socket) -> None:
    with suppress(OSError):
        reset_on_close(end)
        # A pump that waits in recv keeps the connection alive until it is woken.
        end.shutdown(socket.SHUT_RD)
    end.close()


@contextmanager
def tcp_proxy(host: str, port: int, tls: ssl.SSLContext | None = None) -> Iterator[TcpProxy]:
    proxy = TcpProxy(host, port, tls)
    try:
        yield proxy
    finally:
        proxy.close()
