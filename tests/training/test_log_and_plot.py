"""What a run says of itself: lines, warnings at their exact bounds, the log, the plot."""

import errno
import json
import math

import pytest
from matplotlib.figure import Figure

from miniclip.training import report

MEASURES = {"scale": 20.0, "image_cosine": 0.1, "text_cosine": 0.1}


def record(step=0, loss=1.0, references=None, measures=None):
    references = {"chance": 3.0, "floor": 0.5} if references is None else references
    return report.Record(step, 2, loss, references, 1.25, 1e-3, measures or {}, 7, 70, 1.5)


# ------------------------------------------------------------------------ a record


def test_a_row_has_all_numbers_in_the_order_of_the_log():
    assert list(record(3, 2.0, measures={"accuracy": 0.5}).row().items()) == [
        ("step", 3), ("epoch", 2), ("loss", 2.0), ("chance", 3.0), ("floor", 0.5),
        ("gradient", 1.25), ("rate", 1e-3), ("accuracy", 0.5), ("pairs", 7), ("samples", 70),
        ("seconds", 1.5),
    ]  # fmt: skip


def test_lines_for_people():
    given = record(0, 2.0, measures={"accuracy": 0.123456})
    assert given.short() == "loss 2.000 (chance 3.000)"
    assert given.line() == "loss 2.000 (chance 3.000, floor 0.500)  gradient 1.25  accuracy 0.123"
    assert record(0, 2.0, {"floor": 0.5}).short() == "loss 2.000"


# ------------------------------------------------------------------------ warnings


def told(records, warm_up=0, largest=100.0):
    lines = []
    watcher = report.Watcher(lines.append)
    for one in records:
        watcher.look(one, warm_up, largest)
    return lines


def steps(n, **changes):
    return [record(step, **changes) for step in range(n)]


def test_guessing_word_by_word_and_at_its_bounds():
    """Above 97 % of the way from the floor to chance, for 300 steps in a row."""
    references = {"chance": 3.0, "floor": 1.0}
    bound = 1.0 + 0.97 * (3.0 - 1.0)
    (line,) = told(steps(300, loss=bound + 1e-9, references=references))
    assert line == (
        "warning: the loss has stayed at 3.000, which is what guessing gives, for 300 steps: "
        "nothing is learned (too high a rate, captions that do not belong to their pictures, or "
        "an unshuffled file?)"
    )
    assert told(steps(299, loss=bound + 1e-9, references=references)) == []
    assert told(steps(400, loss=bound, references=references)) == []
    broken = steps(400, loss=3.0, references=references)
    broken[200] = record(200, 1.0, references)  # one good step: the count begins anew
    assert told(broken) == []
    assert len(told(steps(310, loss=3.0, references=references), 10)) == 1
    assert told(steps(309, loss=3.0, references=references), 10) == []


@pytest.mark.parametrize("name", ["image", "text"])
def test_collapse_word_by_word_and_at_its_bounds(name):
    def one(cosine, step=5):
        return [record(step, measures=MEASURES | {f"{name}_cosine": cosine})]

    assert told(one(0.99)) == []
    assert told(one(0.991)) == [
        f"warning: step 5: all {name} embeddings are alike (mean cosine 0.9910): the {name} tower "
        "has collapsed; try a lower learning rate"
    ]
    assert len(told(one(1.0, 5), warm_up=5)) == 1
    assert told(one(1.0, 4), warm_up=5) == []
    assert len(told(one(1.0, 5) + one(1.0, 6))) == 1


def test_the_limit_of_the_scale_word_by_word_and_at_its_bounds():
    def pinned(scale, n, largest=200.0):
        return told(steps(n, measures=MEASURES | {"scale": scale}), 10**6, largest)

    assert pinned(200.0, 300) == [
        "warning: the scale has been at its limit 200 for 300 steps: the model is as sure as it "
        "may be; more data or a larger batch would teach it more"
    ]
    assert pinned(200.0, 299) == pinned(0.999 * 200.0, 400) == []
    assert len(pinned(0.9991 * 200.0, 300)) == 1
    broken = steps(400, measures=MEASURES | {"scale": 200.0})
    broken[150] = record(150, measures=MEASURES)
    assert told(broken, 0, 200.0) == []


def test_each_warning_is_given_once_and_all_of_them():
    bad = {"scale": 100.0, "image_cosine": 1.0, "text_cosine": 1.0}
    lines = told(steps(1000, loss=3.0, measures=bad))
    assert len(lines) == 4
    assert all(line.startswith("warning: ") for line in lines)


def test_a_measure_that_is_not_given_warns_of_nothing():
    assert told(steps(700, references={}, measures={"accuracy": 1.0})) == []


# ------------------------------------------------------------------------ the log


def test_a_resumed_run_takes_its_steps_again(tmp_path):
    path = tmp_path / "log.jsonl"
    rows = [{"step": n, "loss": n / 2} for n in range(5)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 5, "lo')
    log = report.Log(path, pytest.fail)
    log.keep_before(3)
    assert path.read_text() == "".join(json.dumps(row) + "\n" for row in rows[:3])
    before = path.stat().st_ino
    log.keep_before(3)  # nothing to drop: a full disk would be no reason to end here
    assert path.stat().st_ino == before
    log.write(record(3))
    assert report.read_log(path)[3] == record(3).row()
    report.Log(tmp_path / "none.jsonl", pytest.fail).keep_before(0)
    assert not (tmp_path / "none.jsonl").exists()


def test_what_is_no_row_is_left_out(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('3\n[1]\n"step"\n{"loss": 1}\nno JSON\n\n{"step": 7}\n')
    assert report.read_log(path) == [{"step": 7}]


def test_a_log_that_cannot_be_written_names_itself_and_why(tmp_path):
    lines = []
    path = tmp_path / "missing" / "log.jsonl"
    log = report.Log(path, lines.append)
    assert log.lost == 0
    log.write(record())
    log.write(record())
    assert log.lost == 2
    (line,) = lines
    assert line.startswith(f"warning: {path} could not be written ([Errno {errno.ENOENT}] ")
    assert line.endswith("); training continues")


# ------------------------------------------------------------------------ the plot


def test_smoothing_by_another_share():
    """The mean of what came, weighted by how long ago it was."""
    assert report.smoothed([4.0, 2.0], 0.5) == pytest.approx([4.0, (0.5 * 4 + 2) / 1.5])
    assert report.smoothed([4.0, 2.0], 0.0) == [4.0, 2.0]
    assert report.smoothed([4.0, 2.0])[1] == pytest.approx((0.95 * 4 + 2) / 1.95)
    assert report.smoothed([]) == []


def panels(rows, tmp_path, monkeypatch):
    """The axes of a log's plot, and how it is saved."""
    saved = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **more: saved.append((self, more)))
    log = tmp_path / report.LOG
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report.plot_log(log, tmp_path / report.PLOT)
    ((figure, more),) = saved
    assert more == {"dpi": 110}
    return figure, figure.axes


def test_the_plot_by_its_lines(tmp_path, monkeypatch):
    rows = [{"step": 5 * n, "loss": 2.0 - n / 4, "rate": n / 100, "extra": n / 2} for n in range(4)]
    for row in rows[1:]:
        row |= {"chance": 3.0 + row["step"], "floor": 0.5}
    figure, (top, extra, rate) = panels(rows, tmp_path, monkeypatch)
    assert figure.get_size_inches().tolist() == [8, 6]  # an inch for every small panel
    assert figure.get_layout_engine().__class__.__name__ == "ConstrainedLayoutEngine"
    assert top.get_gridspec().get_height_ratios() == (3, 1, 1)
    assert top.get_shared_x_axes().joined(top, rate)
    at = [row["step"] for row in rows]
    losses = [row["loss"] for row in rows]
    expected = {
        "loss of each step": (at, losses),
        "loss (smoothed)": (at, report.smoothed(losses)),
        "chance": (at[1:], report.smoothed([8.0, 13.0, 18.0])),
        "floor": (at[1:], [0.5, 0.5, 0.5]),
    }
    assert [line.get_label() for line in top.lines] == list(expected)
    for line in top.lines:
        steps, values = expected[line.get_label()]
        assert line.get_xdata().tolist() == steps
        assert line.get_ydata().tolist() == pytest.approx(values)
    single, smooth, chance, floor = top.lines
    assert (single.get_color(), single.get_linewidth()) == ("0.8", 0.7)
    assert (chance.get_color(), chance.get_linestyle(), chance.get_linewidth()) == ("k", "--", 0.8)
    assert (floor.get_color(), floor.get_linestyle(), floor.get_linewidth()) == ("g", ":", 0.8)
    assert smooth.get_color() not in ("0.8", "k", "g")
    for axes, name in ((extra, "extra"), (rate, "rate")):
        assert axes.get_ylabel() == name
        assert axes.lines[0].get_xdata().tolist() == at
        assert axes.lines[0].get_ydata().tolist() == [row[name] for row in rows]
    assert (top.get_ylabel(), rate.get_xlabel()) == ("loss", "step")
    assert [text.get_text() for text in top.get_legend().get_texts()] == list(expected)


def test_a_log_without_rows_has_no_plot(tmp_path):
    (tmp_path / report.LOG).write_text("\n")
    report.plot_log(tmp_path / report.LOG, tmp_path / report.PLOT)
    assert not (tmp_path / report.PLOT).exists()


def test_the_plot_is_a_picture_of_its_size(tmp_path):
    from PIL import Image

    (tmp_path / report.LOG).write_text(json.dumps(record(0).row()) + "\n")
    report.plot_log(tmp_path / report.LOG, tmp_path / report.PLOT)
    assert Image.open(tmp_path / report.PLOT).size == (8 * 110, 5 * 110)


def test_names_that_no_number_may_have():
    with pytest.raises(ValueError, match=r"^measures: got 'loss', which the log has already; re"):
        record(measures={"loss": 1.0})
    with pytest.raises(ValueError, match=r"^reference_lines: got 'best', expected chance or floor"):
        record(references={"best": math.pi})
