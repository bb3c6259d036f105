"""The original and its export: of every size, with our weights, as their documents say."""

import contextlib
import dataclasses
import logging
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
from bench_checks import ODD_RN, ODD_TEXT, ODD_VIT, needs
from notes import Notes

from miniclip.bench import inputs as bench_inputs
from miniclip.bench import measure, peers, subjects
from miniclip.models import CLIPConfig


@pytest.mark.parametrize("config", [ODD_VIT, ODD_RN], ids=["vit", "rn"])
def test_the_original_is_built_to_size(config):
    """All weights fit, whatever the sizes; heads are the configuration's, masks have values."""
    needs("torch", "clip")
    import torch

    state = bench_inputs.living_state(config)
    model = peers.original_clip(config, state)
    assert not model.training
    for name, p in model.named_parameters():
        assert (p.dtype, p.device.type) == (torch.float32, "cpu")
        np.testing.assert_array_equal(p.detach().numpy(), state[name], err_msg=name)
    assert model.transformer.resblocks[2].attn.num_heads == 5
    if config is ODD_VIT:
        assert model.visual.transformer.resblocks[1].attn.num_heads == 6
        assert model.visual.conv1.stride == (7, 7)
    else:
        assert model.visual.attnpool.num_heads == 2
        assert int(model.visual.bn1.num_batches_tracked) == 0
    mask = model.transformer.resblocks[1].attn_mask
    assert mask.shape == (11, 11)
    assert mask[0, 1] == -np.inf
    assert mask[1, 0] == 0
    for tower, encode in (("image", model.encode_image), ("text", model.encode_text)):
        pipeline = subjects.make_pipeline(config, state, "numpy")
        x = bench_inputs.pictures(config, 2) if tower == "image" else (
            bench_inputs.token_ids(config, 2))  # fmt: skip
        (ours,) = subjects.our_subjects(["numpy"], {"numpy": pipeline}, tower, x)
        with torch.no_grad():
            theirs = encode(torch.from_numpy(x)).numpy()
        assert measure.difference(theirs, ours.run()) < 1e-4


def test_the_original_takes_our_memory_or_its_own():
    needs("torch", "clip")
    state = bench_inputs.living_state(ODD_VIT)
    for x in state.values():
        x.flags.writeable = False  # as those of a mapped file
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shared = peers.original_clip(ODD_VIT, state)
        own = peers.original_clip(ODD_VIT, state, copy=True)
    for model, same in ((shared, True), (own, False)):
        weight = model.visual.conv1.weight.detach().numpy()
        assert np.shares_memory(weight, state["visual.conv1.weight"]) == same
    missing = {name: x for name, x in state.items() if name != "visual.proj"}
    with pytest.raises(RuntimeError, match=r"visual\.proj"):
        peers.original_clip(ODD_VIT, missing)


EXPRESSIBLE = [
    ("vision", {"activation": "gelu"}, "vision.activation of 'gelu', expected 'quick_gelu'"),
    ("vision", {"eps": 1e-6}, "vision.eps of 1e-06, expected 1e-05"),
    ("vision", {"mlp_width": 96}, "vision.mlp_width of 96, expected 192"),
    ("text", {"activation": "gelu"}, "text.activation of 'gelu', expected 'quick_gelu'"),
    ("text", {"mlp_width": 96}, "text.mlp_width of 96, expected 160"),
    ("text", {"eps": 2e-5}, "text.eps of 2e-05, expected 1e-05"),
]


@pytest.mark.parametrize(("tower", "changes", "words"), EXPRESSIBLE)
def test_what_the_original_has_no_choice_for(tower, changes, words):
    changed = dataclasses.replace(getattr(ODD_VIT, tower), **changes)
    with pytest.raises(ValueError) as error:
        peers.check_expressible(tower, changed)
    assert str(error.value) == f"against: the original model.py has no {words}"
    usual = dataclasses.replace(ODD_VIT.vision, mlp_width=192)
    assert peers.check_expressible("vision", usual) is None
    assert peers.check_expressible("text", dataclasses.replace(ODD_TEXT, mlp_width=160)) is None


def test_the_original_has_both_towers_and_an_attention_pool():
    needs("torch", "clip")
    both = "against: the original model.py has both towers, expected both in models"
    pool = dataclasses.replace(ODD_RN.vision, pool="average")
    bare = dataclasses.replace(ODD_VIT.vision, proj=False)
    for config, message in [
        (CLIPConfig(24, None, ODD_TEXT), both),
        (CLIPConfig(24, ODD_VIT.vision, None), both),
        (CLIPConfig(20, pool, ODD_TEXT), "vision.pool of 'average', expected 'attention'"),
        (CLIPConfig(48, bare, ODD_TEXT), "vision.proj of False, expected True"),
    ]:
        with pytest.raises(ValueError) as error:
            peers.construct(config)
        assert str(error.value).endswith(message)


def test_both_layouts_are_what_they_are_called(monkeypatch):
    needs("torch", "clip")
    import torch

    asked = []
    monkeypatch.setattr(peers, "inference", lambda *arguments: asked.append(arguments))
    state, x = bench_inputs.living_state(ODD_RN), bench_inputs.pictures(ODD_RN, 2)
    found = peers.torch_subjects(ODD_RN, state, "image", x)
    assert [s.name for s in found] == ["torch", "torch channels_last"]
    usual, other = asked
    last = {"memory_format": torch.channels_last}
    assert usual[0].layer1[0].conv2.weight.is_contiguous()
    assert usual[1].is_contiguous()
    assert other[0].layer1[0].conv2.weight.is_contiguous(**last)
    assert other[1].is_contiguous(**last)
    assert not other[1].is_contiguous()
    asked.clear()
    ids = bench_inputs.token_ids(ODD_RN, 2)
    assert [s.name for s in peers.torch_subjects(ODD_RN, state, "text", ids)] == ["torch"]
    ((encode, given),) = asked
    assert encode.__name__ == "encode_text"
    np.testing.assert_array_equal(given.numpy(), ids)


def test_inference_mode_is_on():
    needs("torch")
    import torch

    assert peers.inference(lambda x: 2 * x, torch.ones(2))().is_inference()


def test_a_session_uses_what_it_is_given(monkeypatch):
    """All optimisations, one thread between operators, the processor, our threads within them."""
    made = []

    class Runtime:
        SessionOptions = types.SimpleNamespace
        GraphOptimizationLevel = types.SimpleNamespace(ORT_ENABLE_ALL="all")

        @staticmethod
        def InferenceSession(path, options, providers=None):
            made.append((path, vars(options), providers))
            return "a session"

    monkeypatch.setattr(peers, "need", lambda name: {"onnxruntime": Runtime}[name])
    assert peers.make_session(Path("a/tower.onnx"), 3) == "a session"
    wanted = {
        "intra_op_num_threads": 3, "inter_op_num_threads": 1, "graph_optimization_level": "all"
    }  # fmt: skip
    assert made == [(str(Path("a/tower.onnx")), wanted, ["CPUExecutionProvider"])]


@pytest.mark.parametrize("tower", ["image", "text"])
def test_the_exported_tower_is_run(monkeypatch, tower):
    """The right tower of the original, exported for these inputs, read before the file goes."""
    notes = Notes()
    model = types.SimpleNamespace(visual="the image tower")

    class Session:
        def run(self, names, inputs):
            return [("first", names, inputs), "second"]

    def session(path, threads):
        assert path.parent.is_dir()
        return Session()

    monkeypatch.setattr(peers, "original_clip", notes.of("original", model))
    monkeypatch.setattr(peers, "text_module", lambda model: "the text tower")
    monkeypatch.setattr(peers, "export", notes.of("export"))
    monkeypatch.setattr(peers, "make_session", notes.of("session", session))
    subject = peers.onnxruntime_subject("config", "state", tower, "x", 3)
    path = notes[1][3]
    assert path.name == "tower.onnx"
    assert not path.parent.exists()
    assert notes == [
        ("original", "config", "state"), ("export", f"the {tower} tower", "x", path),
        ("session", path, 3),
    ]  # fmt: skip
    assert subject.name == "onnxruntime"
    assert subject.run() == ("first", None, {"x": "x"})


def test_an_export_is_quiet_and_of_these_inputs(monkeypatch, capsys, caplog):
    needs("torch")
    import torch

    asked = []

    def export(module, inputs, path, **options):
        print("a report")
        warnings.warn("a warning", stacklevel=1)
        logging.getLogger("exporter").warning("a line")
        asked.append((module, inputs[0].tolist(), path, options, torch.is_inference_mode_enabled()))

    monkeypatch.setattr(torch.onnx, "export", export)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        peers.export("a tower", np.array([1, 2]), Path("tower.onnx"))
    options = {
        "dynamo": True, "opset_version": 20, "input_names": ["x"], "output_names": ["y"],
        "verbose": False,
    }  # fmt: skip
    assert asked == [("a tower", [1, 2], "tower.onnx", options, True)]
    assert capsys.readouterr().out == ""
    assert caplog.records == []


def test_quiet_ends_as_it_began(capsys):
    for before in (logging.NOTSET, logging.INFO):
        logging.disable(before)
        try:
            with contextlib.suppress(KeyError), peers.quietly():
                assert logging.root.manager.disable == logging.WARNING
                raise KeyError
            assert logging.root.manager.disable == before
        finally:
            logging.disable(logging.NOTSET)
    print("heard")
    assert capsys.readouterr().out == "heard\n"


def test_a_text_module_encodes_texts():
    needs("torch")
    import torch

    class Model(torch.nn.Module):
        def encode_text(self, ids):
            return ids + 1

    tower = peers.text_module(Model())
    assert not tower.training
    assert tower(torch.zeros(2)).tolist() == [1, 1]
    assert isinstance(tower.clip, Model)


def test_peers_are_known_and_there(monkeypatch):
    notes = Notes()
    monkeypatch.setattr(peers, "need", notes.of("need"))
    monkeypatch.setattr(peers, "original_file", notes.of("original"))
    peers.check_peers([])
    assert notes == []
    peers.check_peers(["torch"])
    assert notes == [("need", "torch"), ("original",)]
    notes.clear()
    peers.check_peers(["onnxruntime"])
    libraries = ("torch", "onnxruntime", "onnx", "onnxscript")
    assert notes == [*(("need", name) for name in libraries), ("original",)]
    with pytest.raises(ValueError) as error:
        peers.check_peers(["torch", "jax"])
    assert str(error.value) == "against: got 'jax', expected torch or onnxruntime"


def test_a_library_that_is_there_and_broken_says_so(monkeypatch):
    """Of a missing one the message says how to get it, of another's absence what it said itself."""
    for missing, message in [
        ("torch", f"against: needs torch, which is missing: {peers.HOW}"),
        ("numpy_of_torch", "No module named 'numpy_of_torch'"),
    ]:

        def wanted(name, missing=missing):
            raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

        monkeypatch.setattr(peers.importlib, "import_module", wanted)
        with pytest.raises(ImportError) as error:
            peers.need("torch")
        assert str(error.value) == message


def test_the_originals_file_is_in_one_of_its_folders(tmp_path, monkeypatch):
    for name in ("first", "second", "third"):
        (tmp_path / name).mkdir()
        if name != "first":
            (tmp_path / name / "model.py").write_text("")
    folders = [str(tmp_path / name) for name in ("first", "second", "third")]
    spec = types.SimpleNamespace(submodule_search_locations=folders)
    asked = []
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: asked.append(name) or spec)
    assert peers.original_file() == tmp_path / "second" / "model.py"
    assert asked == ["clip"]
    for nowhere in ([], None, folders[:1]):  # None: a module that is one file
        spec.submodule_search_locations = nowhere
        with pytest.raises(ImportError) as error:
            peers.original_file()
        assert str(error.value) == (
            f"against: needs openai-clip, whose model.py is missing: {peers.HOW}"
        )
