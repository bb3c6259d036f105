"""Examples of the course's exercises with the numbers of PyTorch: miniclip/course/stored.json.

    python tests/support/course_values.py     # writes the file anew

A test compares the file with what PyTorch gives now.
"""

import json
from pathlib import Path

import torch

from miniclip.course.answers import STORED


def array(values):
    return {"array": values}


def gradients(function, dy, **inputs):
    """The gradients of inputs, given as lists: sum(dy * function(**inputs)) by autograd."""
    tensors = {name: torch.tensor(x, dtype=torch.float64) for name, x in inputs.items()}
    for tensor in tensors.values():
        tensor.requires_grad_()
    (function(**tensors) * torch.tensor(dy, dtype=torch.float64)).sum().backward()
    return [tensor.grad.tolist() for tensor in tensors.values()]


def values():
    """Exercise -> its arguments and outputs."""
    return {
        "sum_to_shape": sum_to_shape(),
        "linear_backward": linear(),
        "quick_gelu_backward": quick_gelu(),
        "softmax_backward": softmax(),
        "layer_norm_backward": layer_norm(),
    }


def sum_to_shape():
    dy = [[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [[-1.0, 0.0], [2.0, 2.0], [0.5, 0.0]]]
    dx = gradients(lambda x: x.expand(2, 3, 2), dy, x=[[0.0], [0.0], [0.0]])
    return {"arguments": {"dy": array(dy), "shape": [3, 1]}, "outputs": dx}


def linear():
    dy, x = [[1.0, 0.0, 2.0], [0.0, -1.0, 1.0]], [[1.0, 2.0], [3.0, -1.0]]
    weight = [[3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]
    outputs = gradients(torch.nn.functional.linear, dy, input=x, weight=weight, bias=[0.0] * 3)
    arguments = {"dy": array(dy), "x": array(x), "weight": array(weight)}
    return {"arguments": arguments, "outputs": outputs}


def quick_gelu():
    dy, x = [1.0, 1.0, 2.0, -1.0], [-1.0, 0.0, 0.5, 3.0]
    outputs = gradients(lambda x: x * torch.sigmoid(1.702 * x), dy, x=x)
    return {"arguments": {"dy": array(dy), "x": array(x)}, "outputs": outputs}


def softmax():
    dy, x = [[0.0, 0.0, 8.0], [1.0, -1.0, 0.0]], [[0.0, 1.0, 2.0], [1.0, 1.0, 1.0]]
    outputs = gradients(lambda x: torch.softmax(x, -1), dy, x=x)
    y = torch.softmax(torch.tensor(x, dtype=torch.float64), -1).tolist()
    return {"arguments": {"dy": array(dy), "y": array(y)}, "outputs": outputs}


def layer_norm():
    dy, x = [[1.0, 0.0, 0.0], [2.0, -1.0, 1.0]], [[0.0, 3.0, 6.0], [1.0, 1.0, 4.0]]
    weight, eps = [1.0, 1.0, 2.0], 0.5

    def function(x, weight, bias):
        return torch.nn.functional.layer_norm(x, (3,), weight, bias, eps)

    outputs = gradients(function, dy, x=x, weight=weight, bias=[0.0] * 3)
    arguments = {"dy": array(dy), "x": array(x), "weight": array(weight), "eps": eps}
    return {"arguments": arguments, "outputs": outputs}


def as_file(examples):
    """The text of the file: an exercise a line."""
    lines = [f"{json.dumps(name)}: {json.dumps(example)}" for name, example in examples.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    Path(STORED).write_text(as_file(values()), encoding="utf-8")
