"""The CuPy backend: the textbook on a CUDA GPU, with CUDA kernels for what passes over memory.

It starts from the reference, whose NumPy calls CuPy answers (convolution, attention, losses and
linear layers are matrix products, which cuBLAS does). Such a call is a kernel for every operator;
the pairs below are one kernel each (LayerNorm's backward adds the sums over rows, for dweight and
dbias). Their arithmetic is the textbook's: read it there, and the CUDA C++ in sources.py.

Importing this file needs neither CuPy nor a GPU; `check_device` asks for both. Kernels are compiled
at their first call, and CuPy keeps the binaries on disk. Sums on a GPU are taken in another order
than on a CPU, and the embedding's gradient in another order every time: its last digits differ from
run to run.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from miniclip.backends.cupy import sources
from miniclip.backends.numpy import *  # noqa: F403 (start from the reference)
from miniclip.backends.numpy import check_dtype
from miniclip.ops.array import Array, Cache, check_floats, sum_to_last

try:
    import cupy
except ImportError:  # sources.py can be read all the same; check_device says what is missing
    cupy = None

name = "cupy"
ENGINE = None


def check_device() -> None:  # type: ignore[no-redef]
    """Raises ImportError without CuPy, RuntimeError without a CUDA GPU that it can use.

    A driver is not enough: CuPy also needs CUDA's compiler and cuBLAS, which it loads when first
    used, so a kernel and a matrix product are run here.
    """
    if cupy is None:
        raise ImportError('the cupy backend needs CuPy: pip install "cupy-cuda12x[ctk]"')
    try:
        ones = cupy.ones((2, 2), np.float32)
        (ones @ ones + ones).get()
    except Exception as error:  # CUDA's, the library loader's or the compiler's: many classes
        raise RuntimeError(f"no CUDA GPU that CuPy can use: {error}") from error


def asarray(x: Any, dtype: Any) -> Array:  # type: ignore[no-redef]
    """x as an array on the GPU in the model's dtype (float32 or float64)."""
    # blocking: the caller may write into x as soon as this returns
    return cupy.asarray(x, check_dtype(dtype), blocking=True)


def as_ids(x: Any) -> Array:  # type: ignore[no-redef]
    """x as an array of int64 on the GPU: token ids, targets."""
    return cupy.asarray(x, np.int64, blocking=True)


def to_numpy(x: Array) -> Array:  # type: ignore[no-redef]
    """A NumPy array with the values of x, which may be on the GPU."""
    return cupy.asnumpy(x)


def erf(x: Array) -> Array:
    """CUDA's error function. Shape and dtype of x; correct to about 1 unit in the last place."""
    return elementwise("erf")(x)


def relu(x: Array) -> tuple[Array, Cache]:
    """y = max(x, 0). Any shape; float32 or float64. Returns y and the cache."""
    check_floats("relu", x=x)
    return elementwise("relu")(x), x


def relu_backward(dy: Array, cache: Cache) -> Array:
    """Returns dx, in the shape of dy; at the kink, x = 0, the gradient is 0 as in PyTorch."""
    return elementwise("relu_backward")(dy, cache)


def quick_gelu(x: Array) -> tuple[Array, Cache]:
    """y = x sigmoid(1.702 x). Any shape; float32 or float64. Returns y and the cache."""
    check_floats("quick_gelu", x=x)
    return elementwise("quick_gelu")(x), x


def quick_gelu_backward(dy: Array, cache: Cache) -> Array:
    """Returns dx, in the shape of dy."""
    return elementwise("quick_gelu_backward")(dy, cache)


def gelu(x: Array) -> tuple[Array, Cache]:
    """y = x Phi(x), by CUDA's erf. Any shape; float32 or float64. Returns y and the cache."""
    check_floats("gelu", x=x)
    return elementwise("gelu")(x), x


def gelu_backward(dy: Array, cache: Cache) -> Array:
    """Returns dx, in the shape of dy."""
    return elementwise("gelu_backward")(dy, cache)


def gelu_tanh(x: Array) -> tuple[Array, Cache]:
    """GELU's approximation by tanh. Any shape; float32 or float64. Returns y and the cache."""
    check_floats("gelu_tanh", x=x)
    return elementwise("gelu_tanh")(x), x


def gelu_tanh_backward(dy: Array, cache: Cache) -> Array:
    """Returns dx, in the shape of dy."""
    return elementwise("gelu_tanh_backward")(dy, cache)


def softmax(x: Array) -> tuple[Array, Cache]:
    """y = e^x / sum e^x over the last axis; the row's maximum is subtracted first.

    x: (..., N); -inf is allowed, but not a whole row of it. Returns y (..., N) and the cache.
    """
    check_floats("softmax", x=x)
    y = cupy.empty(x.shape, x.dtype)
    launch_rows("softmax", x.shape, packed(x, x.shape), y)
    return y, y


def softmax_backward(dy: Array, cache: Cache) -> Array:
    """dy: (..., N). Returns dx (..., N)."""
    y = cache
    check_floats("softmax_backward", y=y, dy=dy)
    dx = cupy.empty(y.shape, y.dtype)
    launch_rows("softmax_backward", y.shape, packed(dy, y.shape), y, dx)
    return dx


def layer_norm(x: Array, weight: Array, bias: Array, eps: float = 1e-5) -> tuple[Array, Cache]:
    """Give every row mean 0 and variance 1, then scale and shift: y = x̂ w + b.

    x: (..., D). weight, bias: (D,). Returns y (..., D) and the cache, (x, weight, mean, inv_std)
    as in the textbook. float32 or float64, the same for all.
    """
    check_floats("layer_norm", x=x, weight=weight, bias=bias)
    width = x.shape[-1:]
    y = cupy.empty(x.shape, x.dtype)
    mean = cupy.empty((*x.shape[:-1], 1), x.dtype)
    inv_std = cupy.empty((*x.shape[:-1], 1), x.dtype)
    inputs = (packed(x, x.shape), packed(weight, width), packed(bias, width))
    launch_rows("layer_norm", x.shape, *inputs, y, mean, inv_std, np.float64(eps))
    return y, (x, weight, mean, inv_std)


def layer_norm_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """dy: (..., D). Returns dx (..., D), dweight (D,), dbias (D,)."""
    x, weight, mean, inv_std = cache
    check_floats("layer_norm_backward", x=x, dy=dy)
    dx = cupy.empty(x.shape, x.dtype)
    inputs = (packed(dy, x.shape), packed(x, x.shape), packed(weight, x.shape[-1:]))
    launch_rows("layer_norm_backward", x.shape, *inputs, mean, inv_std, dx)
    # sums down the columns cross the blocks of a row kernel: they are left to CuPy's reduction
    return dx, sum_to_last(dy * ((x - mean) * inv_std)), sum_to_last(dy)


def l2_normalize(x: Array, eps: float = 1e-12) -> tuple[Array, Cache]:
    """Scale every row to unit length: y = x / |x|. A row with no entry above eps becomes zero.

    x: (..., D). Returns y (..., D) and the cache. float32 or float64.
    """
    check_floats("l2_normalize", x=x)
    y = cupy.empty(x.shape, x.dtype)
    inv_norm = cupy.empty((*x.shape[:-1], 1), x.dtype)
    launch_rows("l2_normalize", x.shape, packed(x, x.shape), y, inv_norm, np.float64(eps))
    return y, (y, inv_norm)


def l2_normalize_backward(dy: Array, cache: Cache) -> Array:
    """dy: (..., D). Returns dx (..., D), zero for rows that became zero."""
    y, inv_norm = cache
    check_floats("l2_normalize_backward", y=y, dy=dy)
    dx = cupy.empty(y.shape, y.dtype)
    launch_rows("l2_normalize_backward", y.shape, packed(dy, y.shape), y, inv_norm, dx)
    return dx


def embedding(ids: Array, table: Array) -> tuple[Array, Cache]:
    """Look every id up in the table: (B, T) integers, (V, D) -> (B, T, D).

    ids must lie in [0, V): CuPy wraps others around, silently. Returns y and the cache.
    """
    check_floats("embedding", table=table)
    return table[ids], (ids, table.shape)


def embedding_backward(dy: Array, cache: Cache) -> Array:
    """dy: (B, T, D). Returns dtable (V, D); the ids have no gradient."""
    ids, shape = cache
    dtable = cupy.zeros(shape, dy.dtype)
    # y[r] = table[ids[r]]: every row of dy is added to its word, atomically and in any order
    cupy.add.at(dtable, ids.reshape(-1), dy.reshape(-1, shape[1]))
    return dtable


@functools.cache
def elementwise(op: str) -> Any:
    """The kernel of that name, to be called with arrays of one dtype, in any memory layout."""
    kernel = sources.ELEMENTWISE[op]
    return cupy.ElementwiseKernel(
        kernel.inputs,
        kernel.outputs,
        kernel.body,
        f"miniclip_{op}",  # not `erf` alone: that name is CUDA's
        preamble=sources.SIGMOID,
    )


@functools.cache
def row_kernel(op: str, dtype: str) -> Any:
    """The row kernel of that name for "float32" or "float64". CuPy compiles it for each device."""
    return cupy.RawKernel(sources.row_source(op, dtype), f"{op}_rows")


def packed(x: Array, shape: tuple[int, ...]) -> Array:
    """x in C order and in the shape that a row kernel reads, which knows no strides."""
    return cupy.ascontiguousarray(cupy.broadcast_to(x, shape))


def launch_rows(op: str, shape: tuple[int, ...], *arguments: Any) -> None:
    """Run a row kernel with one block for each row of (..., n). All arrays: packed, one dtype."""
    n = shape[-1]
    rows = math.prod(shape[:-1])
    if rows * n == 0:  # a grid has at least one block, which would read what is not there
        return
    kernel = row_kernel(op, arguments[0].dtype.name)
    kernel((rows,), (sources.threads_for(n),), (*arguments, np.int64(n)))
