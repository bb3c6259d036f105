"""The peers: the original model.py on PyTorch, and what PyTorch exports of it on ONNX Runtime.

Both are optional and imported when asked for. They get the same weights as miniclip; PyTorch even
the same memory.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from miniclip.bench.measure import Subject
from miniclip.models import CLIPConfig, TextConfig, VisionConfig
from miniclip.ops.array import Array

PEERS = ("torch", "onnxruntime")
CHANNELS_LAST = "torch channels_last"
NEEDS = {
    "torch": ("torch",),
    "onnxruntime": ("torch", "onnxruntime", "onnx", "onnxscript"),  # torch exports
}
OPSET = 20


def need(library: str) -> Any:
    """Import an optional library. ImportError that says how to get it."""
    try:
        return importlib.import_module(library)
    except ImportError as error:
        if error.name != library:
            raise  # it is there, and broken
        raise ImportError(f"against: needs {library}, which is missing: {HOW}") from None


HOW = "pip install torch openai-clip (and onnxruntime onnx onnxscript, for onnxruntime)"


def check_peers(names: Sequence[str]) -> None:
    """Raise ValueError for an unknown peer, ImportError for one that is not installed."""
    for name in names:
        if name not in PEERS:
            raise ValueError(f"against: got {name!r}, expected {' or '.join(PEERS)}")
        for library in NEEDS[name]:
            need(library)
        original_file()


def original_file() -> Path:
    """Where the original's model.py lies: importing its package would take torchvision."""
    spec = importlib.util.find_spec("clip")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / "model.py").is_file():
            return Path(folder) / "model.py"
    raise ImportError(f"against: needs openai-clip, whose model.py is missing: {HOW}")


# ------------------------------------------------------------------------ the original


def original_clip(config: CLIPConfig, state: Mapping[str, Array], copy: bool = False) -> Any:
    """The original CLIP in evaluation mode, float32, with these weights.

    It uses the arrays' memory; copy: its own. Raises ValueError for a configuration that the
    original cannot express.
    """
    torch = need("torch")
    with torch.device("meta"):  # without values, which the state brings
        model = construct(config)
    for block in model.transformer.resblocks:  # masks are no buffers: made again, with values
        block.attn_mask = model.build_attention_mask()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        tensors = {name: torch.from_numpy(np.asarray(x)) for name, x in state.items()}
    for name in model.state_dict():
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(0)
    if copy:
        tensors = {name: x.clone() for name, x in tensors.items()}
    model.load_state_dict(tensors, strict=True, assign=True)
    return model.eval()


def construct(config: CLIPConfig) -> Any:
    """The original's CLIP for a configuration. Overlapping patches are a stride set afterwards."""
    vision, text = config.vision, config.text
    if vision is None or text is None:
        raise ValueError("against: the original model.py has both towers, expected both in models")
    check_expressible("vision", vision)
    check_expressible("text", text)
    module = import_original()
    name = "ModifiedResNet" if vision.is_resnet else "VisionTransformer"
    setattr(module, name, with_sizes(getattr(module, name), vision))
    model = module.CLIP(
        config.embed_dim,
        vision.image_resolution,
        vision.layers,
        vision.width,
        vision.patch_size,
        text.context_length,
        text.vocab_size,
        text.width,
        text.heads,
        text.layers,
    )
    if not vision.is_resnet:
        model.visual.conv1.stride = (vision.patch_stride, vision.patch_stride)
    return model


def import_original() -> Any:
    """model.py as a module of its own, which may be changed."""
    spec = importlib.util.spec_from_file_location("bench_original_clip", original_file())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def with_sizes(tower: Any, vision: VisionConfig) -> Any:
    """The original's image tower, with the configuration's heads and number of positions.

    The original takes width / 64 heads, and one position a patch that does not overlap.
    """
    fixed: dict[str, int] = {"heads": vision.heads}
    if vision.patch_size is not None:
        fixed["input_resolution"] = vision.grid * vision.patch_size

    class WithSizes(tower):
        def __init__(self, **sizes: Any) -> None:
            super().__init__(**{**sizes, **fixed})

    return WithSizes


def check_expressible(name: str, tower: VisionConfig | TextConfig) -> None:
    """Raise ValueError naming the field for which the original has no choice."""
    expected = {"activation": "quick_gelu", "eps": 1e-5, "proj": True}
    if isinstance(tower, VisionConfig):
        expected["pool"] = "attention"
    if tower.mlp_width is not None:
        expected["mlp_width"] = 4 * tower.width
    for field, value in expected.items():
        if getattr(tower, field) != value:
            raise ValueError(
                f"against: the original model.py has no {name}.{field} of "
                f"{getattr(tower, field)!r}, expected {value!r}"
            )


# ------------------------------------------------------------------------ PyTorch


def torch_subjects(
    config: CLIPConfig, state: Mapping[str, Array], tower: str, x: Array
) -> list[Subject]:
    """PyTorch in inference mode; image towers in both memory layouts, the better one counts."""
    torch = need("torch")
    model, inputs = original_clip(config, state), torch.from_numpy(x)
    if tower == "text":
        return [Subject("torch", inference(model.encode_text, inputs))]
    other = original_clip(config, state).visual.to(memory_format=torch.channels_last)
    other_inputs = inputs.to(memory_format=torch.channels_last)
    return [
        Subject("torch", inference(model.visual, inputs)),
        Subject(CHANNELS_LAST, inference(other, other_inputs)),
    ]


def inference(tower: Callable[[Any], Any], inputs: Any) -> Callable[[], Any]:
    torch = need("torch")

    def run() -> Any:
        with torch.inference_mode():
            return tower(inputs)

    return run


# ------------------------------------------------------------------------ ONNX Runtime


def onnxruntime_subject(
    config: CLIPConfig, state: Mapping[str, Array], tower: str, x: Array, threads: int
) -> Subject:
    """The exported tower in a session of its own: all optimisations of the graph, this batch."""
    model = original_clip(config, state)
    module = model.visual if tower == "image" else text_module(model)
    with tempfile.TemporaryDirectory(prefix="miniclip-bench-") as folder:
        path = Path(folder) / "tower.onnx"
        export(module, x, path)
        session = make_session(path, threads)
    return Subject("onnxruntime", lambda: session.run(None, {"x": x})[0])


def text_module(model: Any) -> Any:
    """`encode_text` as a module, as the exporter wants one."""
    torch = need("torch")

    class TextTower(torch.nn.Module):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.clip = model

        def forward(self, ids: Any) -> Any:
            return self.clip.encode_text(ids)

    return TextTower().eval()


def export(module: Any, x: Array, path: Path) -> None:
    """Write the tower as ONNX for inputs of this shape, without the exporter's own report."""
    torch = need("torch")
    with quietly(), torch.inference_mode():
        torch.onnx.export(
            module,
            (torch.from_numpy(x),),
            str(path),
            dynamo=True,
            opset_version=OPSET,
            input_names=["x"],
            output_names=["y"],
            verbose=False,
        )


def make_session(path: Path, threads: int) -> Any:
    """A session on the processor that has read its file when this returns."""
    runtime = need("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Neither warnings, nor log lines, nor what is printed: an error still comes out."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
