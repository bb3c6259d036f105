"""`load`: from a name or a file to a model that takes paths, pictures and strings."""

from __future__ import annotations

from pathlib import Path

from miniclip import backends
from miniclip.checkpoints import hub
from miniclip.checkpoints.known import Known
from miniclip.checkpoints.layouts import LoadedModel, read_model
from miniclip.inputs.preprocess import Transform
from miniclip.inputs.tokenizer import Tokenizer
from miniclip.models import CLIP
from miniclip.pipeline.knowledge import Knowledge
from miniclip.pipeline.pipeline import Pipeline


def load(
    what: str | Path,
    backend: str = "auto",
    dtype: str = "float32",
    *,
    activation: str | tuple[str, str] | None = None,
    head_width: int | tuple[int, int] | None = None,
    stride: int | None = None,
    revision: str | None = None,
    tokenizer: Tokenizer | None = None,
) -> Pipeline:
    """Load a CLIP.

    what: a model's name ("ViT-B/32", "RN50"; see `available_models`), a hub repository
    ("openai/clip-vit-base-patch32"), a folder, or a .safetensors file.
    backend: one of `miniclip.backends.NAMES`, or "auto": the fastest of them that works here.
    dtype: "float32" or "float64".
    activation ("quick_gelu", "gelu", "gelu_tanh"), head_width and stride: for a bare file, whose
    tensors do not show them; they overrule the configuration beside the file. activation and
    head_width may be pairs, for images and texts.
    revision: of a hub repository. tokenizer: instead of the one that comes with the checkpoint.
    Raises CheckpointError or HubError naming the file, ValueError naming the argument.
    """
    found = hub.resolve(what, revision)
    # what the table of known checkpoints says where the file is silent
    defaults = None if found.known is None else {"activation": found.known.activation}
    loaded = read_model(
        found.path, activation=activation, head_width=head_width, stride=stride, defaults=defaults
    )
    network = CLIP(loaded.config, seed=None)
    network.load_state_dict(loaded.state)
    network.to(backends.choose(backend), dtype)
    transform = make_transform(loaded, found.known)
    folder = found.path if found.path.is_dir() else found.path.parent
    knows = Knowledge.read(folder)
    return Pipeline(network, transform, tokenizer, name=found.name, folder=folder, knows=knows)


def make_transform(loaded: LoadedModel, known: Known | None) -> Transform | None:
    """Preprocessing as the folder says, else as the table says, else the original's."""
    if loaded.config.vision is None:
        return None
    fields = (
        {} if known is None else {k: v for k, v in known.preprocessing.items() if v is not None}
    )
    fields |= {k: v for k, v in loaded.preprocessing.items() if v is not None}
    fields["size"] = loaded.config.vision.image_resolution  # checked against what the folder says
    return Transform(**fields)
