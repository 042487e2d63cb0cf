"""A disk that is small or read-only: a file system in memory where root may mount one, limits and modes elsewhere."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

_PAGE = 4096


class SmallDisk:
    """`folder` as a disk of its own of `size_bytes`."""

    def __init__(self, folder: Path, size_bytes: int = 64 << 20) -> None:
        self._folder, self._size_bytes, self._is_mounted = folder, size_bytes, False

    def __enter__(self) -> SmallDisk:
        self._is_mounted = self._mount(f"size={self._size_bytes}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_mounted:
            subprocess.run(["umount", "-l", self._folder], check=True)

    @contextmanager
    def limited(self, room_bytes: int) -> Iterator[None]:
        """While there is room for so many bytes more; without a mount, in each file."""
        room_bytes = max(room_bytes // _PAGE * _PAGE, _PAGE)
        if self._is_mounted:
            self._mount(f"remount,size={self._used() + room_bytes}")
            yield
            self._mount(f"remount,size={self._size_bytes}")
            return
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room_bytes, before[1]))
        yield
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    @contextmanager
    def protected(self) -> Iterator[None]:
        """While nothing can be written."""
        mode = self._folder.stat().st_mode
        if self._is_mounted:
            self._mount("remount,ro")
        else:
            self._folder.chmod(0o555)
        yield
        if self._is_mounted:
            self._mount("remount,rw")
        else:
            self._folder.chmod(mode)

    def _used(self) -> int:
        found = os.statvfs(self._folder)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def _mount(self, options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(self._folder)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
