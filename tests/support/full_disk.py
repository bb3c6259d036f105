"""A disk that is full when a test says so: writes below a folder that fail like those of ENOSPC."""

import builtins
import contextlib
import errno
from pathlib import Path


class Disk:
    """Stands in for `open`. fails: the number of a write (from 1) -> whether it fails.

    capacity: bytes of all files in the folder, beyond which a write fails; None: no end.
    written: the file of every write so far.
    """

    def __init__(self, folder, fails=lambda number: False):
        self.folder, self.fails = Path(folder), fails
        self.written, self.capacity = [], None
        self.open = builtins.open

    def used(self):
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())

    def write(self, file, data):
        self.written.append(file.name)
        file.flush()
        too_much = self.capacity is not None and self.used() + len(data) > self.capacity
        if self.fails(len(self.written)) or too_much:
            raise OSError(errno.ENOSPC, "No space left on device")  # no name: so does a write
        return file.write(data)

    def __call__(self, name, mode="r", *arguments, **more):
        file = self.open(name, mode, *arguments, **more)
        is_ours = isinstance(name, (str, Path)) and self.folder in Path(name).absolute().parents
        return Written(file, self) if is_ours and mode[0] in "wax" else file

    def ends(self):
        """The numbers of the first and the last write of every file, as it was opened."""
        numbers = range(1, len(self.written) + 1)
        around = [None, *self.written, None]
        return [n for n in numbers if around[n - 1] != around[n] or around[n] != around[n + 1]]

    @contextlib.contextmanager
    def mounted(self):
        builtins.open = self
        try:
            yield self
        finally:
            builtins.open = self.open


class Written:
    """A file whose writes the disk hears of."""

    def __init__(self, file, disk):
        self.file, self.disk = file, disk

    def write(self, data):
        return self.disk.write(self.file, data)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()
