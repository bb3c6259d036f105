"""`miniclip bench` as a whole: beside PyTorch and ONNX Runtime, and as a command."""

import contextlib
import json
import mmap
import platform
import re
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
from bench_checks import RN, TEXT, TINY, VIT, Machine, needs

from miniclip import cli
from miniclip.bench import flops, measure, memory, memory_child, peers, report, run, subjects
from miniclip.bench import inputs as bench_inputs
from miniclip.bench import threads as bench_threads
from miniclip.bench import training as bench_training
from miniclip.bench.measure import Subject
from miniclip.cpu import team as team_file
from miniclip.models import CLIP, OPENAI_CONFIGS, CLIPConfig, TextConfig, VisionConfig, get_config

# ------------------------------------------------------------------------ operations


def test_operations_of_a_block_by_hand():
    # 3 tokens, width 4, MLP 8: q, k, v, out 3*4*16, scores and mix 2*3*3*4, MLP 3*2*4*8
    assert flops.block_products(3, 4, 8) == 192 + 72 + 192


def test_operations_of_the_smallest_towers_by_hand():
    text = CLIPConfig(5, None, TextConfig(3, 10, 4, 2, 2, mlp_width=8))
    assert flops.text_flops(text) == 2 * (2 * 456 + 4 * 5)
    vision = VisionConfig(4, 1, 4, 2, patch_size=2, mlp_width=8)  # 4 patches of 12 numbers
    by_hand = 4 * 12 * 4 + (5 * 4 * 16 + 2 * 5 * 5 * 4 + 5 * 2 * 4 * 8) + 4 * 6
    assert flops.image_flops(CLIPConfig(6, vision, None)) == 2 * by_hand


@pytest.mark.parametrize(
    ("name", "image", "text"),
    [
        ("ViT-B/32", 4.41, 2.98),
        ("ViT-B/16", 17.56, 2.98),
        ("ViT-L/14", 81.01, 6.65),
        ("RN50", 5.79, 2.98),
        ("RN101", 9.50, 2.98),
    ],
)
def test_billions_of_multiply_adds_of_the_originals(name, image, text):
    assert flops.image_flops(get_config(name)) / 2e9 == pytest.approx(image, abs=0.006)
    assert flops.text_flops(get_config(name)) / 2e9 == pytest.approx(text, abs=0.006)


@TINY
def test_operations_are_those_that_pytorch_counts(config):
    needs("torch", "clip")
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    def counted(f, *shape, dtype=torch.float32):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            f(torch.zeros(shape, dtype=dtype))
        return counter.get_total_flops()

    side = config.vision.image_resolution
    with torch.device("meta"):  # shapes alone: on a processor attention would not be counted
        model = peers.construct(config).eval()
        texts = counted(model.encode_text, 1, 12, dtype=torch.int64)
        images = counted(model.visual, 1, 3, side, side)
    assert texts == flops.text_flops(config)
    width, tokens = 32 * config.vision.width, config.vision.grid**2 + 1
    # the packaged original pools with all queries, of which one is read
    all_queries = (tokens - 1) * (width**2 + 2 * tokens * width + width * config.embed_dim)
    extra = 2 * all_queries if config.vision.is_resnet else 0
    assert images - extra == flops.image_flops(config)


def test_a_plain_mean_costs_a_projection_alone():
    pool = flops.pool_products(5, 32 * 8, 24)
    average = CLIPConfig(24, VisionConfig(64, (1, 2, 1, 1), 8, 4, pool="average"), TEXT)
    assert flops.image_flops(RN) - flops.image_flops(average) == 2 * (pool - 32 * 8 * 24)


def test_towers_that_are_not_there():
    with pytest.raises(ValueError, match="no image tower"):
        flops.image_flops(CLIPConfig(24, None, TEXT))
    with pytest.raises(ValueError, match="no text tower"):
        flops.text_flops(CLIPConfig(24, VIT.vision, None))


# ------------------------------------------------------------------------ inputs


@TINY
def test_random_weights_live(config):
    state = bench_inputs.living_state(config, seed=3)
    again = bench_inputs.living_state(config, seed=3)
    assert all(np.array_equal(state[n], again[n]) for n in state)
    assert {x.dtype for x in state.values()} == {np.dtype("float32")}
    assert not any((x == 0).any() for x in state.values())
    network = CLIP(config, seed=None)
    network.load_state_dict(state)
    for tower, x in (
        (network.visual, bench_inputs.pictures(config, 2)),
        (network.text, bench_inputs.token_ids(config, 2)),
    ):
        a, b = tower(x)
        assert 0.2 < a.std() < 5
        assert np.linalg.norm(a - b) > 0.05 * np.linalg.norm(a)  # two inputs, two embeddings


def test_ids_are_as_long_as_captions():
    ids = bench_inputs.token_ids(OPENAI_CONFIGS["RN50"], 300)
    assert ids.shape == (300, 77)
    ends = ids.argmax(axis=1)
    assert set(ends + 1) == set(range(6, 23))
    for row, end in zip(ids, ends, strict=True):
        assert (row[0], row[end]) == (49406, 49407)
        assert ((row[1:end] > 0) & (row[1:end] < 49406)).all()
        assert not row[end + 1 :].any()


def test_ids_of_a_short_context_and_of_no_room():
    assert bench_inputs.token_ids(VIT, 50).max(axis=1).tolist() == [39] * 50
    nothing = CLIPConfig(24, None, TextConfig(12, 3, 32, 2, 1))
    with pytest.raises(ValueError, match="end-of-text id of 2"):
        bench_inputs.token_ids(nothing, 1)


# ------------------------------------------------------------------------ turns


def test_everybody_takes_turns_and_each_round_starts_with_another():
    machine = Machine()
    three = [machine.subject(n, [t]) for n, t in (("A", 1.0), ("B", 2.0), ("C", 4.0))]
    times = measure.interleave(three, machine.limits(rounds=4, pause=0.25))
    assert "".join(machine.log) == "ABCBCACABABC"
    assert times == {"A": [1] * 4, "B": [2] * 4, "C": [4] * 4}  # pauses are not counted
    assert machine.pauses == 12


def test_times_stand_in_their_rounds():
    machine = Machine()
    two = [machine.subject("A", [1.0, 2.0, 3.0]), machine.subject("B", [10.0])]
    assert measure.interleave(two, machine.limits(rounds=3, pause=0.25))["A"] == [1, 2, 3]


def test_rounds_go_on_until_the_time_is_up():
    machine = Machine()
    limits = machine.limits(seconds=30.0, pause=0.0)
    assert len(measure.interleave([machine.subject("A", [3.0])], limits)["A"]) == 10
    slow = measure.interleave([machine.subject("A", [99.0])], limits)["A"]
    assert len(slow) == measure.LEAST_ROUNDS


def test_a_turn_waits_while_threads_of_the_last_one_spin():
    machine = Machine(busy=[2.0, 1.0, 0.5, 0.01])
    measure.wait_until_quiet(machine.limits(pause=0.02))
    assert machine.pauses == 4
    hasty = Machine(busy=[1.0] * 1000)
    measure.wait_until_quiet(hasty.limits(pause=0))
    assert hasty.pauses == 1
    forever = Machine(busy=[1.0] * 1000)
    measure.wait_until_quiet(forever.limits())
    assert forever.pauses == measure.MOST_PAUSES


def test_short_runs_are_repeated_and_their_mean_counts():
    machine = Machine()
    short = measure.with_repeats(machine.subject("A", [0.01]), machine.limits())
    assert short.repeats == 5
    long = measure.with_repeats(machine.subject("A", [0.2]), machine.limits())
    assert long.repeats == 1
    machine.log.clear()
    # the run that wakes threads takes 9 and is not counted
    subject = machine.subject("A", [9.0, 1.0, 2.0, 3.0], repeats=3)
    assert measure.turn(subject, machine.limits()) == pytest.approx(2.0)
    assert machine.log == ["A"] * 4


# ------------------------------------------------------------------------ numbers


def test_medians_and_quartiles():
    assert measure.spread([5.0, 1.0, 2.0, 4.0, 3.0]) == measure.Spread(3.0, 2.0, 4.0)


def test_ratios_are_of_rounds():
    theirs, ours = [2.0, 4.0, 6.0, 8.0, 30.0], [1.0, 4.0, 4.0, 2.0, 10.0]
    # within rounds: 2, 1, 1.5, 4, 3; the medians' ratio, 6 / 4, is another
    assert measure.ratio(theirs, ours) == measure.Spread(2.0, 1.5, 3.0)
    # and may lie outside the quartiles: 5 / 2 here
    assert measure.ratio([1.0, 5.0, 6.0], [1.0, 2.0, 9.0]).median == 1.0
    with pytest.raises(ValueError):
        measure.ratio(theirs, ours[:4])


def test_the_better_layout_counts():
    times = {"torch": [2.0, 2.0, 9.0], "torch channels_last": [3.0, 1.0, 1.0], "numba": [0.1] * 3}
    assert measure.best_of(times, "torch") == "torch channels_last"
    assert measure.best_of({"torch": [1.0], "torch channels_last": [2.0]}, "torch") == "torch"


@pytest.mark.parametrize(
    "wrong", [[1.0, 2.001], [1.0, np.nan], [np.inf, 2.0], [1.0]], ids=["off", "nan", "inf", "shape"]
)
def test_wrong_outputs_are_not_timed(wrong):
    outputs = {"numpy": np.array([1.0, 2.0]), "torch": np.array([1.0, 2.00001])}
    errors = measure.check_outputs(outputs, "numpy")
    assert errors["numpy"] == 0
    assert errors["torch"] == pytest.approx(1e-5 / 5**0.5)
    with pytest.raises(ValueError, match="onnxruntime: output differs from that of numpy"):
        measure.check_outputs({**outputs, "onnxruntime": np.array(wrong)}, "numpy")


def made_up_case():
    second = subjects.CEILING_FLOPS / 1e11  # the ceiling is 100 GFLOP/s, once 50
    times = {
        "plan": [0.1, 0.2, 0.4],
        "numba": [0.3, 0.3, 0.3],
        "torch": [0.4, 0.6, 0.8],
        "torch channels_last": [0.3, 0.5, 0.9],
        "matmul": [second, second, 2 * second],
    }
    errors = dict.fromkeys(times, 0.0)
    return report.Case("m", "random", "image", 8, 10**10, ("plan",), times, errors)


def test_the_record_of_made_up_times():
    record = report.case_record(made_up_case())
    plan = record["subjects"]["plan"]
    assert plan["times_ms"] == pytest.approx([100, 200, 400])
    assert (plan["median_ms"], plan["best_ms"]) == pytest.approx((200, 100))
    assert plan["quartiles_ms"] == pytest.approx([150, 300])
    assert plan["per_second"] == pytest.approx(40)
    assert plan["gflops"] == pytest.approx(50)
    assert plan["share"] == pytest.approx(0.5)
    assert record["ceiling"]["samples"] == pytest.approx([100, 100, 50])
    assert record["ceiling"]["best"] == record["ceiling"]["median"] == pytest.approx(100)
    numba, torch = record["ratios"]
    assert (numba["subject"], numba["ours"]) == ("numba", "plan")
    assert numba["ratio"] == pytest.approx(1.5)
    assert torch["subject"] == "torch channels_last"
    assert torch["ratio"] == pytest.approx(2.5)
    assert torch["quartiles"] == pytest.approx([2.375, 2.75])
    assert (record["gflop"], record["rounds"], set(record["subjects"])) == (
        10.0,
        3,
        {"plan", "numba", "torch", "torch channels_last"},
    )
    json.dumps(record, allow_nan=False)


def test_the_table_of_made_up_times():
    text = report.case_text(made_up_case())
    lines = text.splitlines()
    assert lines[0] == "m (random weights), images, batch 8: 10.0 GFLOP, 3 rounds"
    assert lines[2].split()[:2] == ["plan", "200.0"]  # the fastest first
    assert "torch channels_last / plan: 2.50 (2.38 to 2.75)" in lines
    assert lines[-1] == "ceiling: 100 GFLOP/s at best, median 100"
    busy = {"best": 100.0, "median": 80.0}
    assert "others used the machine" in report.ceiling_line({"ceiling": busy})


def test_the_machine_is_named(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nmodel name\t: A Fine CPU: 2 GHz\nmodel name\t: B\n")
    assert report.processor_name(cpuinfo) == "A Fine CPU: 2 GHz"
    assert report.processor_name(tmp_path / "none") == (platform.processor() or platform.machine())
    versions = report.versions_record()
    assert versions["numpy"] == np.__version__
    assert "blas" in versions


# ------------------------------------------------------------------------ peers


def outputs_of(config, tower):
    state = bench_inputs.living_state(config)
    x = run.make_input(config, tower, 2)
    ours = ["numba", "numpy"]
    pipelines = {name: subjects.make_pipeline(config, state, name) for name in ours}
    everybody = subjects.our_subjects(ours, pipelines, tower, x)
    return everybody, state, x


@pytest.mark.parametrize("tower", run.TOWERS)
@TINY
def test_pytorch_computes_the_same(config, tower):
    needs("torch", "clip")
    everybody, state, x = outputs_of(config, tower)
    everybody += peers.torch_subjects(config, state, tower, x)
    errors = measure.check_outputs(measure.warm_up(everybody), "numpy")
    layouts = ["torch"] if tower == "text" else ["torch", "torch channels_last"]
    assert list(errors) == ["numba", "numpy", *layouts]
    wrong = ("c_fc.bias", "layer3.0.bn2.running_mean")
    state = {n: v + 0.01 if n.endswith(wrong) else v for n, v in state.items()}
    everybody += peers.torch_subjects(config, state, tower, x)[:1]  # takes the other's place
    with pytest.raises(ValueError, match="torch: output differs"):
        measure.check_outputs(measure.warm_up(everybody), "numpy")


@pytest.mark.parametrize(("config", "tower"), [(VIT, "image"), (VIT, "text"), (RN, "image")])
def test_onnxruntime_computes_the_same(config, tower, capfd):
    needs("torch", "clip", "onnxruntime", "onnx", "onnxscript")
    everybody, state, x = outputs_of(config, tower)
    everybody.append(peers.onnxruntime_subject(config, state, tower, x, 1))
    assert "onnxruntime" in measure.check_outputs(measure.warm_up(everybody), "numpy")
    assert capfd.readouterr().out == ""  # the exporter's own report stays out of ours


@pytest.mark.parametrize(
    ("where", "changes"),
    [
        ("vision", {"activation": "gelu"}),
        ("vision", {"mlp_width": 96}),
        ("text", {"eps": 1e-6}),
        ("text", {"proj": False, "width": 24, "heads": 2}),
    ],
)
def test_what_the_original_cannot_express(where, changes):
    needs("torch", "clip")
    import dataclasses

    tower = dataclasses.replace(getattr(VIT, where), **changes)
    config = dataclasses.replace(VIT, **{where: tower})
    with pytest.raises(ValueError, match=rf"against: the original model.py has no {where}\."):
        peers.original_clip(config, {})


def test_a_missing_peer_says_how_to_get_it(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(peers.importlib, "import_module", missing)
    with pytest.raises(ImportError, match="against: needs torch, which is missing: pip install"):
        peers.check_peers(["onnxruntime"])


def test_a_missing_original_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"openai-clip, whose .* is missing: pip install"):
        peers.original_file()


# ------------------------------------------------------------------------ training


@TINY
def test_training_steps_are_pytorchs(config):
    needs("torch", "clip")
    state = bench_inputs.living_state(config)
    everybody = bench_training.our_training(config, state, 4)
    everybody += bench_training.torch_training(config, state, 4)
    errors = bench_training.check_losses(everybody)
    layouts = ["torch", "torch channels_last"][: 1 + config.vision.is_resnet]
    assert list(errors) == ["numba", "numba-full-texts", *layouts]
    before = CLIP(config, seed=None)
    before.load_state_dict(state)  # nobody trained the weights that all start from
    assert np.array_equal(before.state_dict()["text_projection"], state["text_projection"])
    fresh = bench_training.our_training(config, bench_inputs.living_state(config), 4)[0]
    assert fresh.run() == pytest.approx(bench_training.our_training(config, state, 4)[0].run())


def test_a_step_that_does_not_learn_is_refused():
    state = bench_inputs.living_state(VIT)
    ours = bench_training.our_training(VIT, state, 4)
    loss = bench_training.our_training(VIT, state, 4)[0].run()
    with pytest.raises(ValueError, match=r"torch: losses .* expected .* as numba has"):
        bench_training.check_losses([*ours, Subject("torch", lambda: loss)])


def test_a_training_step_costs_three_forward_passes():
    both = flops.image_flops(VIT) + flops.text_flops(VIT)
    assert bench_training.training_flops(VIT) == 3 * both


# ------------------------------------------------------------------------ threads and plans


def test_threads_are_limited_and_restored(monkeypatch):
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def blas():
        return [
            p["num_threads"] for p in threadpoolctl.threadpool_info() if p["user_api"] == "blas"
        ]

    before, told = blas(), []
    monkeypatch.setattr(team_file, "set_threads", told.append)
    torch = types.SimpleNamespace(get_num_threads=lambda: 7, set_num_threads=told.append)
    with contextlib.suppress(KeyError), bench_threads.limited(1, torch):
        assert set(blas()) == {1}
        assert told == [1, 1]
        raise KeyError
    assert blas() == before
    assert told == [1, 1, 7, None]  # PyTorch and the plans, before and after


def test_without_threadpoolctl_nothing_is_measured(monkeypatch):
    """It is an extra: one line says how to get it, before a model is made."""
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)  # importing it is an error
    told = r"bench: needs threadpoolctl, .*: pip install threadpoolctl"
    with pytest.raises(ImportError, match=told), bench_threads.limited(1):
        pass
    lines = []
    for kind in run.KINDS:
        with pytest.raises(ImportError, match=told):
            run.bench(run.Options(kind), lines.append)
    assert lines == []


def test_plans_are_measured_beside_the_modules():
    state = bench_inputs.living_state(VIT)
    pipelines = {n: subjects.make_pipeline(VIT, state, n) for n in ("numba", "numpy")}
    x = bench_inputs.token_ids(VIT, 2)
    everybody = subjects.our_subjects(subjects.OURS, pipelines, "text", x)
    assert [s.name for s in everybody] == ["plan", "numba", "numpy"]
    measure.check_outputs(measure.warm_up(everybody), "numpy")


def test_a_plan_is_left_out_where_there_is_none():
    pipeline = subjects.make_pipeline(VIT, bench_inputs.living_state(VIT), "numba")
    block = pipeline.network.visual.transformer.resblocks.children_["0"]
    block.forward = lambda x: x  # which no plan knows
    x = bench_inputs.pictures(VIT, 1)
    (modules,) = subjects.our_subjects(["plan", "numba"], {"numba": pipeline}, "image", x)
    assert modules.name == "numba"
    with pytest.raises(ValueError, match="ours: got plan alone, but the image tower"):
        subjects.our_subjects(["plan"], {"numba": pipeline}, "image", x)


# ------------------------------------------------------------------------ memory


def test_own_memory_is_read_from_the_system(tmp_path):
    status = tmp_path / "status"
    status.write_text("VmHWM:\t  999999 kB\nRssAnon:\t    2048 kB\nRssFile:\t 5 kB\n")
    assert memory.own_memory(status) == 2.0
    for text in ("VmHWM: 3 kB\n", None):
        status.unlink() if text is None else status.write_text(text)
        with pytest.raises(RuntimeError, match=r"memory: needs RssAnon in .*, which only Linux"):
            memory.own_memory(status)


def test_peaks_and_quarters():
    with_samples = memory_child.Sampler.__new__(memory_child.Sampler)
    with_samples.samples = [10.0, 12.0, 50.0, 20.0, 20.0, 20.0, 21.0, 20.0]
    peak = with_samples.peak()
    assert (peak.before, peak.peak, peak.first, peak.last) == (10, 50, 12, 21)
    assert peak.above == 40


@pytest.mark.skipif(not memory.STATUS.exists(), reason="the system does not tell")
def test_the_sampler_sees_what_comes_and_goes():
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # from the system: malloc may have some left
    deadline = time.monotonic() + 60
    with memory_child.Sampler() as sampler, mmap.mmap(-1, 64 << 20, private) as block:
        for page in range(0, 64 << 20, mmap.PAGESIZE):
            block[page] = 1
        while sampler.samples[-1] < sampler.samples[0] + 50 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert sampler.peak().above > 50


@pytest.mark.skipif(not memory.STATUS.exists(), reason="the system does not tell")
def test_memory_of_a_process_of_its_own(tiny_model, capsys):
    asked = ["bench", "--memory", "--models", tiny_model, "--batches", "4", "--pictures", "20"]
    file = tiny_model.parent / "memory.json"
    assert cli.main([*map(str, asked), "--threads", "1", "--json", str(file)]) == 0
    cases = json.loads(file.read_text())["cases"]
    assert [(c["subject"], c["count"], c["repeated"]) for c in cases] == [
        ("ours", 4, False),
        ("ours", 20, True),
    ]
    assert all(0 < c["before"] <= c["peak"] for c in cases)
    assert "20 pictures in chunks" in capsys.readouterr().out


def test_a_process_that_fails_tells_its_last_words():
    job = memory.Job("ours", "no such model", 1, False, 1)
    with pytest.raises(RuntimeError, match="model: got 'no such model'"):
        memory.measure(job)


# ------------------------------------------------------------------------ the command


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    pipeline = subjects.make_pipeline(VIT, bench_inputs.living_state(VIT), "numpy")
    pipeline.save(folder / "model.safetensors")
    return folder / "model.safetensors"


@pytest.fixture(autouse=True)
def small_ceiling(monkeypatch):
    """The structure of a record does not need a product of the full size."""
    monkeypatch.setattr(subjects, "CEILING_SIDE", 64)


def bench(*arguments):
    quick = ["--rounds", "2", "--pause", "0", "--threads", "1"]
    return cli.main(["bench", *map(str, arguments), *quick])


def test_the_command_measures_and_keeps_a_record(tiny_model, capsys):
    file = tiny_model.parent / "bench.json"
    ours = ["--ours", "numpy", "numba"]
    assert bench("--models", tiny_model, "--batches", 2, *ours, "--json", file) == 0
    record = json.loads(file.read_text())
    assert record["kind"] == "inference"
    assert set(record["machine"]) == {"processor", "system", "cores", "threads", "load"}
    assert record["machine"]["threads"] == 1
    assert record["versions"]["numpy"] == np.__version__
    assert [(c["tower"], c["batch"]) for c in record["cases"]] == [
        ("image", 2),
        ("text", 2),
    ]
    for case in record["cases"]:
        assert (case["weights"], case["ours"], case["rounds"]) == ("from disk", ["numba"], 2)
        assert [len(s["times_ms"]) for s in case["subjects"].values()] == [2, 2]
        assert len(case["ceiling"]["samples"]) == 2
        assert [r["subject"] for r in case["ratios"]] == ["numpy"]
        assert all(error < 1e-4 for error in case["differences"].values())
    out = capsys.readouterr().out
    assert out.count("ceiling: ") == 2
    assert "texts, batch 2" in out


def test_the_command_compares_training(tiny_model, capsys):
    needs("torch", "clip")
    file = tiny_model.parent / "training.json"
    asked = ["--training", "--models", tiny_model, "--batches", 3, "--against", "torch"]
    assert bench(*asked, "--json", file) == 0
    (case,) = json.loads(file.read_text())["cases"]
    assert (case["weights"], case["tower"], case["batch"]) == ("random", "training", 3)
    assert [(r["subject"], r["ours"]) for r in case["ratios"]] == [
        ("torch", "numba"),
        ("torch", "numba-full-texts"),
    ]


def test_the_command_compares_embeddings(tiny_model, capsys):
    needs("torch", "clip")
    asked = ["--models", tiny_model, "--batches", 1, "--towers", "image", "--ours", "numba"]
    assert bench(*asked, "--against", "torch") == 0
    assert "torch" in capsys.readouterr().out


def test_wrong_work_ends_the_command(tiny_model, capsys, monkeypatch):
    needs("torch", "clip")
    wrong = [Subject("torch", lambda: np.zeros((1, 24)))]
    monkeypatch.setattr(peers, "torch_subjects", lambda *arguments: wrong)
    asked = ["--models", tiny_model, "--batches", 1, "--against", "torch"]
    assert bench(*asked) == 2
    assert "torch: output differs from that of numpy by 1 (relative)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "ViT-B/33"], "models: got 'ViT-B/33', expected one of RN50, "),
        (["--models", "org/repository"], "models: got 'org/repository', expected one of RN50, "),
        (["--models", "no/such.safetensors"], "--models: there is no file or folder"),
        (["--towers", "sound"], "towers: got 'sound', expected one of image, text"),
        (["--ours", "cupy"], "ours: got 'cupy', expected one of "),
        (["--against", "jax"], "against: got 'jax', expected torch or onnxruntime"),
        (["--batches", "0"], "batches: got 0, expected at least 1"),
        (["--training", "--batches", "1"], "batches: got 1, expected at least 2"),
        (["--rounds", "0"], "rounds: got 0, expected at least 1"),
        (["--seconds", "-1"], "seconds: got -1.0, expected at least 0"),
        (["--pause", "nan"], "pause: got nan, expected at least 0"),
        (["--threads", "0"], "threads: got 0, expected at least 1"),
        (["--memory", "--pictures", "0"], "pictures: got 0, expected at least 1"),
        (["--json", "no/such/folder.json"], "json: there is no folder no/such"),
    ],
)
def test_wrong_arguments_are_told_before_anything_is_measured(capsys, arguments, message):
    assert cli.main(["bench", *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err
    assert output.err.count("\n") == 1


def test_onnxruntime_neither_trains_nor_is_measured_for_memory(monkeypatch, capsys):
    monkeypatch.setattr(peers, "check_peers", lambda names: None)
    for kind in ("training", "memory"):
        assert cli.main(["bench", f"--{kind}", "--against", "onnxruntime"]) == 2
        message = f"against: got onnxruntime for {kind}, expected torch"
        assert message in capsys.readouterr().err


def test_ratios_in_the_docs_lie_within_their_quartiles():
    """Such as "1.62 (1.58 to 1.63)": what stands outside has been taken by another rule."""
    pages = sorted((Path(__file__).parents[2] / "docs").rglob("*.md"))
    found = 0
    for page in pages:
        for text in re.findall(r"\d+\.\d+ \(\d+\.\d+ to \d+\.\d+\)", page.read_text()):
            value, low, high = (float(number) for number in re.findall(r"[\d.]+", text))
            assert low <= value <= high, f"{page.name}: {text}"
            found += 1
    assert found > 40
