"""Steps of training, ours and PyTorch's: the documented ones, by what they do to weights."""

import numpy as np
import pytest
from bench_checks import ODD_RN, ODD_TEXT, ODD_VIT, VIT, needs
from notes import Notes

from miniclip.bench import inputs as bench_inputs
from miniclip.bench import peers
from miniclip.bench import training as bench_training
from miniclip.bench.measure import Subject
from miniclip.models import CLIP, CLIPConfig


def test_steps_are_those_of_the_documents():
    """What the shipped models were trained with, but for the rate, which hardly moves here."""
    numbers = bench_training.RATE, bench_training.BETAS, bench_training.EPS
    assert numbers == (1e-5, (0.9, 0.98), 1e-6)
    assert (bench_training.DECAY, bench_training.CLIP_AT) == (0.1, 1.0)
    assert bench_training.TOLERANCE == 1e-4
    assert bench_training.FULL == "numba-full-texts"


def test_training_starts_from_random_weights(monkeypatch):
    notes = Notes()
    monkeypatch.setattr(bench_training, "living_state", notes.of("living", "living"))
    for what, state in (("random", "trained"), ("shipped", "living"), ("from disk", "living")):
        monkeypatch.setattr(
            bench_training, "load_weights", notes.of("load", ("config", "trained", what))
        )
        assert bench_training.load("m", "gelu") == ("config", state)
    assert notes == [
        ("load", "m", "gelu"), ("load", "m", "gelu"), ("living", "config"),
        ("load", "m", "gelu"), ("living", "config"),
    ]  # fmt: skip


@pytest.fixture
def networks(monkeypatch):
    """The networks that steps are made for, ours and the original's, in the order of making."""
    made = []
    makers = {"CLIP": CLIP, "original_clip": peers.original_clip}

    def kept(name):
        def make(*arguments, **options):
            made.append(makers[name](*arguments, **options))
            return made[-1]

        return make

    for name in makers:
        monkeypatch.setattr(bench_training, name, kept(name))
    return made


def both_steps(networks, config, state):
    """Our step, our network, PyTorch's step, the original."""
    images, ids = bench_inputs.pictures(config, 4), bench_inputs.token_ids(config, 4)
    ours = bench_training.our_step(config, state, images, ids)
    theirs = next(iter(bench_training.torch_training(config, state, 4))).run
    return ours, networks[0], theirs, networks[1]


@pytest.mark.parametrize("scale", [1.0, 4.8])
def test_weights_move_as_pytorchs_do(networks, scale):
    """By what they moved in two steps: the rate, decay and the temperature's clamp show."""
    needs("torch", "clip")
    state = bench_inputs.living_state(ODD_VIT)
    state["logit_scale"] = np.array(scale, np.float32)  # 4.8 is above ln 100
    before = {name: x.copy() for name, x in state.items()}
    ours, mine, theirs, original = both_steps(networks, ODD_VIT, state)
    for run in (ours, theirs):
        losses = [run(), run()]
        assert [type(loss) for loss in losses] == [float, float]
    assert all(np.array_equal(state[name], x) for name, x in before.items())
    after = mine.state_dict()
    for name, p in original.named_parameters():
        far, own = p.detach().numpy() - state[name], after[name] - state[name]
        # where a gradient is near zero, rounding decides about Adam's first steps
        assert np.mean(np.abs(own - far) < 2e-7) > 0.9, name
        if name not in ("token_embedding.weight", "logit_scale"):  # rows of no text; the clamp
            assert np.median(np.abs(own)) == pytest.approx(2e-5, rel=0.6), name
    got = float(after["logit_scale"])
    assert got == pytest.approx(float(original.logit_scale.detach()), abs=1e-6)
    if scale > np.log(100):  # one step below the clamp, or at it
        assert got == pytest.approx(np.log(100), abs=1.1e-5)


def test_a_step_is_gradients_clipping_adam_and_clamp(monkeypatch, networks):
    """In this order, ours as PyTorch's, with the documented numbers."""
    needs("torch", "clip")
    import torch

    notes = Notes()
    state = bench_inputs.living_state(ODD_VIT)
    ours, mine, theirs, original = both_steps(networks, ODD_VIT, state)
    clip, clip_theirs = bench_training.clip_gradients, torch.nn.utils.clip_grad_norm_

    def noted(clip):
        def call(parameters, largest):
            parameters = list(parameters)
            norm = float(clip(parameters, largest))
            notes.append((len(parameters), largest, norm > 1))
            return norm

        return call

    monkeypatch.setattr(bench_training, "clip_gradients", noted(clip))
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", noted(clip_theirs))
    count = len(dict(original.named_parameters()))
    for run, parameters in (
        (ours, [p.grad for p in dict(mine.named_parameters()).values()]),
        (theirs, [p.grad for p in original.parameters()]),
    ):
        assert parameters == [None] * count
        run()
        run()
    assert notes == [(count, 1.0, True)] * 4
    gradients = [np.asarray(p.grad) for p in dict(mine.named_parameters()).values()]
    assert np.sqrt(sum((g.astype(float) ** 2).sum() for g in gradients)) == pytest.approx(1, 1e-4)
    for name, p in original.named_parameters():  # of the second step alone
        own = np.asarray(dict(mine.named_parameters())[name].grad)
        np.testing.assert_allclose(own, p.grad.numpy(), atol=2e-4, err_msg=name)


def test_pytorchs_optimiser_is_set_as_ours(monkeypatch, networks):
    needs("torch", "clip")
    import torch

    made = []
    adamw = torch.optim.AdamW

    def noted(groups, **options):
        made.append((groups, options))
        return adamw(groups, **options)

    monkeypatch.setattr(torch.optim, "AdamW", noted)
    state = bench_inputs.living_state(ODD_VIT)
    both_steps(networks, ODD_VIT, state)
    ((groups, options),) = made
    assert options == {"lr": 1e-5, "betas": (0.9, 0.98), "eps": 1e-6, "fused": True}
    names = {id(p): name for name, p in networks[1].named_parameters()}
    decay = {names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]}
    assert len(decay) == len(names)
    for name, value in decay.items():
        matrix = state[name].ndim >= 2 and "embedding" not in name
        assert value == (0.1 if matrix else 0.0), name


def test_our_optimiser_is_set_as_documented(monkeypatch):
    notes = Notes()

    class Optimizer:
        def __init__(self, ops, parameters, *numbers):
            notes.append((ops.name, len(parameters), *numbers))

        def step(self, *numbers):
            notes.append(("step", *numbers))

    monkeypatch.setattr(bench_training, "AdamW", Optimizer)
    monkeypatch.setattr(bench_training, "clamp_log_scale", lambda parameters: notes.append(
        ("clamp", len(parameters))))  # fmt: skip
    state = bench_inputs.living_state(VIT)
    images, ids = bench_inputs.pictures(VIT, 2), bench_inputs.token_ids(VIT, 2)
    bench_training.our_step(VIT, state, images, ids)()
    count = len(state)
    assert notes == [
        ("numba", count, (0.9, 0.98), 1e-6, 0.1), ("step", 1e-5), ("clamp", count),
    ]  # fmt: skip


def test_ours_with_ids_cut_and_whole(monkeypatch):
    """The first subject's ids end behind the longest text of the batch, the second's nowhere."""
    notes = Notes()
    monkeypatch.setattr(bench_training, "our_step", notes.of("step", lambda *_: notes.of("run")))
    monkeypatch.setattr(bench_training, "keep_freed_memory", notes.of("keep"))
    ids = np.zeros((2, 11), np.int64)
    ids[0, :4], ids[1, :7] = [48, 1, 2, 49], [48, 5, 4, 3, 2, 1, 49]
    monkeypatch.setattr(bench_training, "token_ids", notes.of("ids", ids))
    monkeypatch.setattr(bench_training, "pictures", notes.of("pictures", "pictures"))
    found = bench_training.our_training(ODD_VIT, "state", 2)
    assert [s.name for s in found] == ["numba", "numba-full-texts"]
    keep, pictures, of_ids, cut, whole = notes
    assert (keep, pictures) == (("keep",), ("pictures", ODD_VIT, 2))
    assert of_ids == ("ids", ODD_VIT, 2)
    assert cut[:4] == whole[:4] == ("step", ODD_VIT, "state", "pictures")
    np.testing.assert_array_equal(cut[4], ids[:, :7])
    np.testing.assert_array_equal(whole[4], ids)


@pytest.mark.parametrize("config", [ODD_VIT, ODD_RN], ids=["vit", "rn"])
def test_pytorch_trains_in_the_layout_of_its_name(networks, config):
    needs("torch", "clip")
    import torch

    state = bench_inputs.living_state(config)
    names = [s.name for s in bench_training.torch_training(config, state, 2)]
    assert names == ["torch", "torch channels_last"][: 1 + config.vision.is_resnet]
    originals = [n for n in networks if isinstance(n, torch.nn.Module)]
    assert [n.training for n in originals] == [True] * len(names)
    for name, model in zip(names, originals, strict=True):
        if config.vision.is_resnet:
            weight = model.visual.layer1[0].conv2.weight
            last = weight.is_contiguous(memory_format=torch.channels_last)
            assert last == (not weight.is_contiguous()) == ("channels_last" in name)


def test_pictures_are_laid_out_as_the_network(monkeypatch):
    needs("torch", "clip")
    import torch

    given = []
    monkeypatch.setattr(bench_training, "torch_step", lambda *arguments: given.append(arguments))
    list(bench_training.torch_training(ODD_RN, "state", 3))
    usual, other = given
    assert (usual[:2], other[:2]) == ((ODD_RN, "state"), (ODD_RN, "state"))
    assert (len(usual), other[4]) == (4, torch.channels_last)
    assert usual[2].is_contiguous()
    assert other[2].is_contiguous(memory_format=torch.channels_last)
    for arguments in given:
        np.testing.assert_array_equal(arguments[2].numpy(), bench_inputs.pictures(ODD_RN, 3))
        np.testing.assert_array_equal(arguments[3].numpy(), bench_inputs.token_ids(ODD_RN, 3))


def test_losses_of_two_steps_agree_within_a_ten_thousandth():
    def subject(name, *losses):
        return Subject(name, iter(losses).__next__)

    near = bench_training.check_losses(
        [subject("a", 2.0, 1.0), subject("b", 2.0, 1 - 2**-14), subject("c", 2 + 2**-14, 1.0)]
    )
    assert near == {"a": 0.0, "b": 2**-14, "c": 2**-15}
    for losses in ((2.0, 1 + 2**-13), (2.0, 1 - 2**-13), (2 + 2**-12, 1.0), (np.nan, 1.0)):
        with pytest.raises(ValueError) as error:
            bench_training.check_losses([subject("a", 2.0, 1.0), subject("b", *losses)])
        assert str(error.value) == (
            f"b: losses {list(losses)} of the first two steps, expected [2.0, 1.0] as a has; it "
            "is not timed"
        )


def test_a_limit_is_refused_itself(monkeypatch):
    monkeypatch.setattr(bench_training, "TOLERANCE", 2**-14)
    losses = {"a": iter([1.0, 1.0]), "b": iter([1.0, 1 + 2**-14])}
    with pytest.raises(ValueError, match=r"^b: losses"):
        bench_training.check_losses([Subject(n, x.__next__) for n, x in losses.items()])


def test_operations_of_a_pair_are_both_towers_three_times():
    config = CLIPConfig(24, VIT.vision, ODD_TEXT)
    assert bench_training.training_flops(config) == 3 * (
        bench_training.image_flops(config) + bench_training.text_flops(config)
    )
