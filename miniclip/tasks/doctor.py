"""`miniclip doctor`: what this installation consists of, and whether it computes what it should.

Input: nothing. Output: a Report: versions, the machine, each backend with the ops that are its own,
and the folders in use. Metric: for each backend the largest difference of a picture's and a text's
embedding by `mini-vit` from what PyTorch computed with the original model in float64, against a
tolerance. Chance: random weights miss it by a hundred times the tolerance. Page: docs/doctor.md.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np

import miniclip
from miniclip import backends
from miniclip.files import cache_folder
from miniclip.notes import in_one_line
from miniclip.ops.array import Array

# Whatever needs more than NumPy is imported where it is used: what cannot be imported is a finding.

NEEDED = ["numpy", "numba", "safetensors", "pillow", "regex", "ftfy", "huggingface_hub", "tqdm"]
NEEDED += ["matplotlib"]
SHOULD_WORK = ("numpy", "numba")  # what every installation has; the others where they are installed

MODEL = "mini-vit"
TEXT = "a red circle above a blue square"
# The first numbers of both embeddings, of length 1, and their cosine: by the original CLIP's
# model.py in PyTorch, float64, with the weights of mini-vit. A test computes them again.
IMAGE_STARTS = (0.0393651874, 0.0876195435, 0.0983083524, 0.0206633847)
TEXT_STARTS = (0.0373969454, -0.0000228035, -0.0676602398, -0.0036893836)
COSINE = 0.0709954895
TOLERANCE = 1e-4  # of numbers of about 0.1, computed in float32


@dataclass(frozen=True)
class Backend:
    """A backend: whether it works and gives the known answer, and which ops are the textbook's."""

    name: str
    works: bool
    should_work: bool
    note: str  # why not, or by how much the known answer was missed
    textbook_ops: list[str]


@dataclass(frozen=True)
class Folder:
    """A folder in use, and how large it is."""

    what: str
    path: str
    bytes: int
    note: str = ""


@dataclass(frozen=True)
class Report:
    """What `examine` found."""

    versions: dict[str, str]
    machine: dict[str, str]
    backends: list[Backend]
    auto: str  # the backend that "auto" means here
    folders: list[Folder]
    problems: list[str]  # what should work and does not

    @property
    def ok(self) -> bool:
        return not self.problems

    def as_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return {"ok": self.ok, **asdict(self)}

    def as_text(self) -> str:
        """For people: a paragraph for each part, the problems last."""
        lines = [f"{name} {version}" for name, version in self.versions.items()]
        lines += [f"{name}: {value}" for name, value in self.machine.items()]
        lines += [f"backend {describe(b)}" for b in self.backends]
        lines += [f"backend auto: {self.auto}"]
        for folder in self.folders:
            note = f" ({folder.note})" if folder.note else ""
            lines.append(f"{folder.what}: {folder.path}, {folder.bytes / 2**20:.1f} MiB{note}")
        return "\n".join([*lines, *(self.problems or ["everything that should work does"])])


def describe(backend: Backend) -> str:
    """One line about a backend."""
    if not backend.works:
        return f"{backend.name}: does not work: {backend.note}"
    return f"{backend.name}: works, {backend.note}; {backends.whose_ops(backend.textbook_ops)}"


def examine() -> Report:
    """Look at everything. Never raises: what cannot be found out is said in its place."""
    versions = {name: attempt(version, name) for name in ("miniclip", *NEEDED)}
    found = [examine_backend(name) for name in backends.NAMES]
    problems = [f"problem: {n} is {v}" for n, v in versions.items() if v.startswith("missing")]
    problems += [
        f"problem: backend {b.name}: {b.note}" for b in found if b.should_work and not b.works
    ]
    return Report(
        {"python": platform.python_version(), **versions},
        {name: attempt(look) for name, look in MACHINE.items()},
        found,
        attempt(backends.choose, "auto"),
        [examine_folder(*each) for each in FOLDERS],
        problems,
    )


def attempt(look: Callable[..., Any], *arguments: Any) -> str:
    """What a function finds, as text, or why it finds nothing."""
    try:
        return str(look(*arguments))
    except Exception as error:
        return f"unknown ({in_one_line(error)})"


def version(name: str) -> str:
    if name == "miniclip":
        return f"{miniclip.__version__}, in {Path(miniclip.__file__).parent}"
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return f"missing, expected it installed (pip install {name})"


# --- The machine ----------------------------------------------------------------------------------


def processor() -> str:
    """The model's name where the system tells it."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def vectors() -> str:
    simd = import_module("miniclip.cpu.simd")
    return f"{8 * simd.VECTOR_BYTES} bits, {simd.LANES} numbers in float32"


def threads() -> str:
    return f"{import_module('miniclip.cpu.team').team().members} of {os.cpu_count()} cores"


MACHINE: dict[str, Callable[[], str]] = {
    "system": lambda: f"{platform.system()} {platform.release()} ({platform.machine()})",
    "processor": processor,
    "vectors": vectors,
    "threads": threads,
}


# --- The backends ---------------------------------------------------------------------------------


def examine_backend(name: str) -> Backend:
    should = name in SHOULD_WORK or attempt(backends.is_installed, name) == "True"
    reason, inherited = backends.why_not(name), []
    if reason is None:
        try:
            inherited = backends.textbook_ops(backends.get(name))
            missed = largest_miss(answers(name))
            note = f"off from the known answer by {missed:.0e}, allowed {TOLERANCE:.0e}"
            return Backend(name, missed <= TOLERANCE, should, note, inherited)
        except Exception as error:
            reason = in_one_line(error)
    return Backend(name, False, should, reason, inherited)


def picture() -> Array:
    """A picture that no file is needed for: (64, 64, 3), uint8."""
    y, x = np.mgrid[:64, :64]
    channels = (7 * x + 3 * y, x * y, 5 * x * x + 11 * y)
    return np.stack([c % 256 for c in channels], axis=-1).astype(np.uint8)


def answers(backend: str) -> tuple[Array, Array]:
    """Embeddings (1, E) of the picture and the text by the shipped model, on the host."""
    model = import_module("miniclip.pipeline").load(MODEL, backend=backend)
    image = model.encode_image(picture(), normalize=True)
    text = model.encode_text(TEXT, normalize=True)
    to_numpy = model.network.ops.to_numpy
    return to_numpy(image), to_numpy(text)


def largest_miss(embeddings: tuple[Array, Array]) -> float:
    """The largest difference from the known numbers; NaN and infinity are infinitely far off."""
    image, text = embeddings
    if not np.isfinite([image, text]).all():
        return float("inf")
    got = [*image[0, : len(IMAGE_STARTS)], *text[0, : len(TEXT_STARTS)], float(image[0] @ text[0])]
    difference = np.abs(np.subtract(got, [*IMAGE_STARTS, *TEXT_STARTS, COSINE]))
    return float(difference.max())


# --- The folders ----------------------------------------------------------------------------------


def compiled_code() -> tuple[Path, str]:
    """Where machine code is kept, and why not if it is not."""
    folder, reason = import_module("miniclip.cpu.cache").kept()
    return cache_folder() / "compiled", "" if folder else f"nothing is kept: {reason}"


def decoded_pictures() -> tuple[Path, str]:
    return import_module("miniclip.training.store").pictures_folder(), ""


def shipped_models() -> tuple[Path, str]:
    return import_module("miniclip.checkpoints.shipped").weights_folder(), ""


def downloads() -> tuple[Path, str]:
    hub_errors = import_module("miniclip.checkpoints.hub_errors")
    return hub_errors.hub_cache(), "with whatever else Hugging Face's hub keeps"


FOLDERS: list[tuple[str, Callable[[], tuple[Path, str]]]] = [
    ("compiled code", compiled_code),
    ("decoded pictures", decoded_pictures),
    ("models that come along", shipped_models),
    ("downloaded weights", downloads),
]


def examine_folder(what: str, look: Callable[[], tuple[Path, str]]) -> Folder:
    try:
        path, note = look()
        if not path.is_dir():
            return Folder(what, str(path), 0, note or "not there yet")
        return Folder(what, str(path), size_of(path), note)
    except Exception as error:
        return Folder(what, "unknown", 0, in_one_line(error))


def size_of(folder: Path) -> int:
    """Bytes of all files below; links (the hub keeps each file once) count nothing."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                status = os.lstat(os.path.join(root, name))
            except OSError:  # deleted meanwhile
                continue
            total += 0 if os.path.islink(os.path.join(root, name)) else status.st_size
    return total
