"""Bytes between a guest's port and the starter, carried by libvirt's own connection.

QEMU under a daemon is another user's or another host's: it cannot connect to the starter's sockets.
libvirt opens the port there (virDomainOpenChannel, virDomainOpenConsole) and carries it as a stream
of the connection. Here the stream is joined to the socket in libvirt's event thread, so that the
starter still stamps each line as it arrives.
"""

import contextlib
import socket
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.drivers.domain_xml import CHANNEL_NAME

_PIECE = 64 * 1024
_WOULD_BLOCK = -2


@dataclass(slots=True)
class Pump:
    """A stream joined to a socket, until either ends or it is closed."""

    libvirt: Any
    stream: Any
    socket: socket.socket
    watch: int = -1
    waiting: bytes = b""
    open: bool = True
    lock: threading.RLock = field(default_factory=threading.RLock)

    def start(self) -> None:
        """Have libvirt's event thread move what comes from now on."""
        with self.lock:
            readable = self.libvirt.VIR_STREAM_EVENT_READABLE
            self.stream.eventAddCallback(readable, self._take_stream, None)
            self.watch = self.libvirt.virEventAddHandle(
                self.socket.fileno(),
                self.libvirt.VIR_EVENT_HANDLE_READABLE,
                lambda *_: self._take_socket(),
                None,
            )

    def close(self) -> None:
        """Let go of both ends; safe to call twice."""
        with self.lock:
            if not self.open:
                return
            self.open = False
            if self.watch >= 0:
                self.libvirt.virEventRemoveHandle(self.watch)
            for end in (self.stream.eventRemoveCallback, self.stream.abort):
                with contextlib.suppress(self.libvirt.libvirtError):
                    end()
            self.socket.close()

    def _take_stream(self, _stream: Any, events: int, _context: None) -> None:
        with self.lock:
            if not self.open:
                return
            if events & self.libvirt.VIR_STREAM_EVENT_WRITABLE:
                self._send(b"")
            if events & ~self.libvirt.VIR_STREAM_EVENT_WRITABLE and not self._receive():
                self.close()

    def _receive(self) -> bool:
        """Hand on what the guest has said; whether more may come."""
        try:
            while (data := self.stream.recv(_PIECE)) != _WOULD_BLOCK:
                if not data:
                    return False
                self.socket.sendall(data)
        except (self.libvirt.libvirtError, OSError):
            return False
        return True

    def _take_socket(self) -> None:
        with self.lock:
            if not self.open:
                return
            try:
                data = self.socket.recv(_PIECE)
                if data:
                    self._send(data)
                    return
            except (self.libvirt.libvirtError, OSError):
                pass
            self.close()

    def _send(self, data: bytes) -> None:
        """Send to the guest; while the stream is full the socket is left alone."""
        self.waiting += data
        while self.waiting and (sent := self.stream.send(self.waiting)) != _WOULD_BLOCK:
            self.waiting = self.waiting[sent:]
        events = self.libvirt.VIR_STREAM_EVENT_READABLE
        if self.waiting:
            events |= self.libvirt.VIR_STREAM_EVENT_WRITABLE
        self.stream.eventUpdateCallback(events)
        wanted = 0 if self.waiting else self.libvirt.VIR_EVENT_HANDLE_READABLE
        self.libvirt.virEventUpdateHandle(self.watch, wanted)


def open_channel(libvirt: Any, handle: Any, target: Path) -> Pump:
    """Join a domain's agent port to the starter's socket at ``target``."""
    stream = handle.connect().newStream(libvirt.VIR_STREAM_NONBLOCK)
    handle.openChannel(CHANNEL_NAME, stream, 0)
    return _join(libvirt, stream, target)


def open_console(libvirt: Any, handle: Any, target: Path) -> Pump:
    """Join a domain's first serial port to the starter's socket at ``target``."""
    stream = handle.connect().newStream(libvirt.VIR_STREAM_NONBLOCK)
    handle.openConsole(None, stream, 0)
    return _join(libvirt, stream, target)


def _join(libvirt: Any, stream: Any, target: Path) -> Pump:
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        end.connect(str(target))
        pump = Pump(libvirt, stream, end)
        pump.start()
    except BaseException:
        end.close()
        raise
    return pump
