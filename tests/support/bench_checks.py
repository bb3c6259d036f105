"""What tests of `miniclip bench` share: small models and a made-up clock."""

import itertools
from importlib.util import find_spec

import pytest

from miniclip.bench.measure import Limits, Subject
from miniclip.models import CLIPConfig, TextConfig, VisionConfig

TEXT = TextConfig(context_length=12, vocab_size=40, width=32, heads=2, layers=2)
VIT = CLIPConfig(24, VisionConfig(32, 2, 32, 4, patch_size=8, stride=4), TEXT)  # overlapping
RN = CLIPConfig(24, VisionConfig(64, (1, 2, 1, 1), 8, 4), TEXT)
# Every size another, so that none can stand in another's place.
ODD_TEXT = TextConfig(context_length=11, vocab_size=50, width=40, heads=5, layers=3)
ODD_VIT = CLIPConfig(24, VisionConfig(28, 2, 48, 6, patch_size=7), ODD_TEXT)
ODD_RN = CLIPConfig(20, VisionConfig(64, (1, 1, 2, 1), 8, 2), ODD_TEXT)
TINY = pytest.mark.parametrize("config", [VIT, RN], ids=["vit", "rn"])


def needs(*libraries):
    for library in libraries:
        if find_spec(library) is None:
            pytest.skip(f"{library} is not installed: optional, for comparisons")


class Machine:
    """A clock that only runs when somebody works; `busy`: what spins on in coming pauses."""

    def __init__(self, busy=()):
        self.now = self.work = 0.0
        self.busy, self.log, self.pauses = list(busy), [], 0

    def limits(self, **changes):
        return Limits(**changes, clock=lambda: self.now, cpu=lambda: self.work, sleep=self.sleep)

    def sleep(self, seconds):
        self.now += seconds
        self.pauses += 1
        if self.busy:
            self.work += self.busy.pop(0) * seconds

    def subject(self, name, seconds, repeats=1):
        durations = itertools.cycle(seconds)

        def work():
            self.log.append(name)
            self.now += next(durations)

        return Subject(name, work, repeats)
