"""The graders of the course: right ways pass, wrong ones are told which term is wrong."""

import subprocess
import sys
import time

import course_values
import numpy as np
import pytest

from miniclip import nn, ops
from miniclip.course import WrongAnswer, check, prove
from miniclip.course.answers import STORED, example_of
from miniclip.course.checks import EXERCISES
from miniclip.course.session import answer_of
from miniclip.course.source import read_parts, with_solution

PARTS = read_parts()
TASKS = {task.name: (part, task) for part in PARTS for task in part.tasks}


def solution_of(name):
    part, task = TASKS[name]
    return answer_of(part, task, with_solution(task.cell.text))


@pytest.mark.parametrize("name", TASKS)
def test_a_grader_proves_itself(name):
    rows = list(prove.prove_task(*TASKS[name]))
    assert [prove.as_line(row) for row in rows if not row.holds] == []
    kinds = [row.kind for row in rows]
    assert kinds.count("right") >= 2
    assert kinds.count("wrong") >= 5
    assert kinds.count("always") == 6


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_other_seeds_draw_other_numbers_and_judge_alike(name, seed):
    part, task = TASKS[name]
    exercise, solution = EXERCISES[name], with_solution(task.cell.text)
    first, other = (exercise.arguments(exercise.cases(s)[0], s) for s in (0, seed))
    assert any(not prove.alike(first[key], other[key]) for key in first)
    for text in (solution, *(cell.text for cell in task.rights)):
        assert exercise.verdict(answer_of(part, task, text), seed) == ""
    for wrong in task.wrongs:
        answer = answer_of(part, task, prove.changed(part, solution, wrong))
        with np.errstate(all="ignore"):
            assert wrong.words in exercise.verdict(answer, seed)


def test_every_exercise_has_a_task_and_every_task_a_check():
    assert list(EXERCISES) == list(TASKS)
    assert set(TASKS) < set(dir(check))


@pytest.mark.parametrize("name", TASKS)
def test_terms_sum_to_the_right_output(name):
    """Of the derivation: what a diagnosis says is missing is a part of the right answer."""
    exercise = EXERCISES[name]
    for values in exercise.cases(5):
        arguments = exercise.arguments(values, 5)
        right = exercise.in_order(exercise.right(**arguments))
        for output, expected in zip(exercise.outputs, right, strict=True):
            total = sum(output.terms(**arguments).values())
            np.testing.assert_allclose(total, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", TASKS)
def test_slips_are_wrong(name):
    """No slip is the right answer under another name, in all cases at least."""
    exercise = EXERCISES[name]
    for i, output in enumerate(exercise.outputs):
        for slip in output.slips:
            differs = False
            for values in exercise.cases(0):
                arguments = exercise.arguments(values, 0)
                right = exercise.in_order(exercise.right(**arguments))[i]
                try:
                    slipped = sum(slip.terms(**arguments).values())
                except (ValueError, IndexError):
                    continue
                differs |= slipped.shape != right.shape or not np.allclose(slipped, right)
            assert differs, slip.words


def test_stored_numbers_are_pytorchs():
    now = course_values.values()
    assert STORED.read_text(encoding="utf-8").count("\n") == len(now) + 2
    for name, example in now.items():
        arguments, outputs = example_of(name)
        assert list(arguments) == list(example["arguments"])
        for stored, expected in zip(outputs, example["outputs"], strict=True):
            np.testing.assert_allclose(stored, expected, rtol=1e-12, atol=1e-15)
        assert name in EXERCISES


def test_the_example_is_shown():
    text = check.layer_norm_backward.example
    assert text.splitlines()[0] == "dy = [[1.0, 0.0, 0.0], [2.0, -1.0, 1.0]]"
    assert "eps = 0.5" in text
    assert "dbias = [3.0, -1.0, 1.0]" in text
    assert check.measured_gradient.example == "measured_gradient has no stored example."


# ------------------------------------------------------------------------ what is shown


def test_what_a_notebook_shows():
    right = check.softmax_backward(solution_of("softmax_backward"))
    assert repr(right) == (
        "Right: softmax_backward agrees with ours on 3 shapes, with slopes measured on the forward "
        "pass, with stored numbers of PyTorch."
    )
    with pytest.raises(WrongAnswer) as found:
        check.softmax_backward(lambda dy, y: y * dy)
    (line,) = found.value._render_traceback_()
    assert line.startswith("Not yet: dx disagrees with measured slopes by ")
    assert line.endswith("the path through the sum (- y sum(dy y)) is missing")
    assert "\n" not in line


def test_unknown_names():
    with pytest.raises(AttributeError, match="no exercise is called 'softmx'; there are sum_to"):
        _ = check.softmx
    with pytest.raises(ValueError, match="name: got 'softmx', expected one of sum_to_shape"):
        check.verdict("softmx", np.exp)


def test_what_an_answer_raises_is_its_own():
    def broken(dy, y):
        return dy @ y @ dy

    with pytest.raises(ValueError, match="matmul"):
        check.softmax_backward(broken)
    assert check.verdict("softmax_backward", broken).startswith("softmax_backward raised ValueErr")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda dy, x, w: ..., "linear_backward returned nothing, expected dx, dweight, dbias"),
        (lambda dy, x, w: dy, "linear_backward returned one value, expected 3: dx, dweight, dbias"),
        (lambda dy, x, w: (dy, x), "linear_backward returned 2 values, expected 3: "),
        (lambda dy, x, w: (None, x, dy), r"dx is nothing, expected an array of shape \(7, 3\)"),
        (lambda dy, x, w: ([1], x, dy), r"dx is a list, expected an array of shape \(7, 3\)"),
        (lambda dy, x, w: (x + 0j, x, dy), "dx is complex128 for float64 arguments"),
        (lambda dy, x, w: (x + np.nan, w, dy), "dx has numbers that are not finite"),
    ],
)
def test_the_form_of_an_answer(answer, message):
    with pytest.raises(WrongAnswer, match=message):
        check.linear_backward(answer)


def test_one_output_is_no_tuple():
    message = "softmax_backward returned a tuple of 1, expected dx alone"
    assert check.verdict("softmax_backward", lambda dy, y: (dy,)) == message


# ------------------------------------------------------------------------ ours cannot be called


held = ops.softmax_backward  # before any check


@pytest.mark.parametrize(
    "answer",
    [
        lambda dy, y: ops.softmax_backward(dy, y),
        lambda dy, y: held(dy, y),
        lambda dy, y: EXERCISES["softmax_backward"].right(dy, y),
    ],
)
def test_ours_raises_while_an_answer_runs(answer):
    message = "softmax_backward calls miniclip's own: you are writing this one, do not call it"
    assert check.verdict("softmax_backward", answer) == message
    dx = ops.softmax_backward(np.ones(3), np.ones(3) / 3)  # and is itself again
    np.testing.assert_allclose(dx, 0, atol=1e-15)


def test_modules_that_call_ours_raise_too():
    layer = nn.LayerNorm(6).to(dtype="float64")

    def by_module(dy, x, weight, eps):
        try:
            with layer.record():
                layer(x)
                return layer.backward(dy), weight, weight
        except Exception:  # it cannot be swallowed
            return dy, weight, weight

    assert "do not call it" in check.verdict("layer_norm_backward", by_module)


def test_a_backend_that_an_answer_imports_raises_too():
    pytest.importorskip("numba")

    def by_kernel(dy, y):
        from miniclip.backends import numba

        return numba.softmax_backward(dy, y)

    assert "do not call it" in check.verdict("softmax_backward", by_kernel)


def test_ours_is_itself_again_after_an_error():
    with pytest.raises(ZeroDivisionError):
        check.softmax_backward(lambda dy, y: 1 / 0)
    assert ops.softmax_backward(np.ones(3), np.ones(3)).shape == (3,)


# ------------------------------------------------------------------------ light


def test_checks_need_no_pytorch_and_little_time():
    code = (
        "import sys; from miniclip.course import check, replace; import numpy as np\n"
        "check.softmax_backward(lambda dy, y: y * (dy - (dy * y).sum(-1, keepdims=True)))\n"
        "print([m for m in ('torch', 'numba', 'tqdm', 'matplotlib', 'huggingface_hub')"
        " if m in sys.modules])"
    )
    start = time.perf_counter()
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
    assert time.perf_counter() - start < 5
