"""Pictures that a run on a user's own data keeps for its evaluation: never trained on.

Which ones follows from their names alone: a picture is held out by a hash of its path inside the
data, so that neither the seed nor the order of a table decides, and another machine holds out the
same. Of class folders the same share of every class is kept. A picture with several captions is
held out with all of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from miniclip.files import as_path, write_bytes
from miniclip.training.listing import Listing
from miniclip.training.table_rows import Row

RECORD = "held-out.json"
SHARE = 0.1  # of the pictures, where nothing else is asked for


@dataclass(frozen=True)
class HeldOut:
    """What a run's folder says of the pictures that it has not trained on.

    source: the file or folder that --data named, in full. share: of its pictures. classes: the
    captions of all classes, where these are class folders. rows: the pictures and their captions.
    """

    source: str
    share: float
    classes: tuple[str, ...]
    rows: tuple[Row, ...]

    def write(self, folder: Path) -> None:
        rows = [{"image": str(r.path.absolute()), "captions": r.captions} for r in self.rows]
        content = {**asdict(self), "rows": rows}
        write_bytes({folder / RECORD: json.dumps(content, indent=1).encode()})


def read_held_out(folder: str | Path) -> HeldOut | None:
    """The record of a run; None for what is no folder with one. ValueError naming a broken file."""
    file = as_path(folder) / RECORD
    if not file.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(file.read_bytes())
        rows = tuple(Row(Path(r["image"]), tuple(r["captions"])) for r in content["rows"])
        return HeldOut(content["source"], content["share"], tuple(content["classes"]), rows)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: no record of pictures that a run held out ({error})") from error


def hold_out(listing: Listing, source: Path, share: float) -> tuple[Listing, HeldOut]:
    """The listing to train on, and what is kept from it."""
    root = source if source.is_dir() else source.parent
    groups: dict[object, list[Path]] = {}
    for path in dict.fromkeys(row.path for row in listing.rows):
        groups.setdefault(path.parent if listing.classes else None, []).append(path)
    kept: set[Path] = set()
    for group in groups.values():
        number = int(share * len(group) + 0.5)
        kept |= set(sorted(group, key=lambda path: order(path, root))[:number])
    rest = [row for row in listing.rows if row.path not in kept]
    held = tuple(row for row in listing.rows if row.path in kept)
    training = Listing(rest, listing.skips, listing.ignored, listing.classes)
    return training, HeldOut(str(source.resolve()), share, classes_of(listing), held)


def check_share(share: float) -> None:
    """Raise ValueError for what is no share of the pictures, or all of them."""
    is_number = isinstance(share, int | float) and not isinstance(share, bool)
    if not is_number or not 0 <= share < 1:
        raise ValueError(f"held_out: got {share!r}, expected a share from 0 to below 1")


def order(path: Path, root: Path) -> bytes:
    """What pictures are sorted by: as good as random, and the same wherever the data lies."""
    inside = path.relative_to(root) if path.is_relative_to(root) else path
    return hashlib.sha256(inside.as_posix().encode("utf-8", errors="surrogatepass")).digest()


def classes_of(listing: Listing) -> tuple[str, ...]:
    """The captions of class folders, each once; none of a table."""
    return unique(row.captions for row in listing.rows) if listing.classes else ()


def unique(captions: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """Every caption once, in the order in which they come first."""
    return tuple(dict.fromkeys(text for several in captions for text in several))
