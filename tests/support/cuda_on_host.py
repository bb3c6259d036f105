"""CUDA without a GPU: the backend's CUDA sources compiled by g++ and run on NumPy arrays.

`host_cupy()` is a module to put in CuPy's place. Its RawKernel and ElementwiseKernel look up the
sources that they are given, to the letter, among those compiled here; the rest is NumPy's.

A block's threads are contexts that one CPU thread switches between, at barriers and nowhere else:
each runs from one __syncthreads to the next before its neighbour does, once in ascending and once
in descending order. So a missing barrier shows in the numbers, every time, which it would not with
real threads. A barrier that only some threads of a block reach is reported as an error.

Arrays given to row kernels are copied between two walls of NaN: what is read outside of an array
spoils the numbers, what is written there is found. Outputs begin as NaN too.
"""

import ctypes
import re
import subprocess
import types

import numpy as np

from miniclip.backends.cupy import sources

ORDERS = ("ascending", "descending")  # of the threads between two barriers
WALL = 64  # entries

SHIM = r"""
#include <cmath>
#include <functional>
#include <vector>
#include <ucontext.h>
using std::erf; using std::exp; using std::fabs; using std::sqrt; using std::tanh;

#define __global__
#define __device__ static
#define __shared__ static  // one block runs at a time

struct Dim { unsigned int x; };
static Dim threadIdx, blockIdx, blockDim;
static std::vector<ucontext_t> threads;
static std::vector<std::vector<char>> stacks;
static std::vector<bool> finished;
static ucontext_t scheduler;
static std::function<void()> body;

static void __syncthreads() { swapcontext(&threads[threadIdx.x], &scheduler); }

static void thread_main() {
    body();
    finished[threadIdx.x] = true;
    swapcontext(&threads[threadIdx.x], &scheduler);
}

// 0, or 1 if some threads of a block ended while others waited at a barrier.
static int run_block(bool descending) {
    unsigned int count = blockDim.x;
    threads.resize(count);
    if (stacks.size() < count) stacks.resize(count, std::vector<char>(1 << 16));
    finished.assign(count, false);
    for (unsigned int t = 0; t < count; t++) {
        getcontext(&threads[t]);
        threads[t].uc_stack.ss_sp = stacks[t].data();
        threads[t].uc_stack.ss_size = stacks[t].size();
        threads[t].uc_link = &scheduler;
        makecontext(&threads[t], thread_main, 0);
    }
    unsigned int ended = 0;
    while (ended == 0) {
        for (unsigned int k = 0; k < count; k++) {
            threadIdx.x = descending ? count - 1 - k : k;
            swapcontext(&scheduler, &threads[threadIdx.x]);
        }
        for (unsigned int t = 0; t < count; t++) ended += finished[t];
    }
    return ended == count ? 0 : 1;
}

static int launch(std::function<void()> kernel, int blocks, int count, int descending) {
    body = kernel;
    blockDim.x = count;
    for (int b = 0; b < blocks; b++) {
        blockIdx.x = b;
        if (run_block(descending)) return 1;
    }
    return 0;
}
"""


def row_wrapper(op, dtype):
    """The row kernel's source as it stands, and a C function `run_{op}_rows` that launches it."""
    source = sources.row_source(op, dtype)
    parameters = re.search(rf"void {op}_rows\((.*?)\) {{", source, re.DOTALL).group(1)
    names = ", ".join(p.split()[-1] for p in parameters.split(","))
    return f"""namespace {op}_source {{ {source}
extern "C" int run_{op}_rows({parameters}, int blocks, int count, int descending) {{
    return launch([=] {{ {op}_rows({names}); }}, blocks, count, descending);
}} }}
"""


def elementwise_wrapper(op, dtype):
    """A C function `run_miniclip_{op}`: the kernel's body in the loop that CuPy puts around it."""
    kernel = sources.ELEMENTWISE[op]
    parameters = [*const(kernel.inputs), *kernel.outputs.split(", ")]
    pointers = ", ".join(p.replace("T ", "T* all_") for p in parameters)
    declare = " ".join(f"{p.replace('T ', 'T& ')} = all_{p.split()[-1]}[i];" for p in parameters)
    return f"""namespace {op}_elements {{ typedef {sources.C_TYPES[dtype]} T;
{sources.SIGMOID}
extern "C" __global__ void run_miniclip_{op}({pointers}, long long size) {{
    for (long long i = 0; i < size; i++) {{ {declare}
    {kernel.body}
    }}
}} }}
"""


def const(inputs):
    return [f"const {p}" for p in inputs.split(", ")]


def build(folder, row_wrap=row_wrapper):
    """Compile all kernels in both dtypes. Returns {"float32": library, "float64": library}."""
    compilers = {}
    for dtype in sources.C_TYPES:
        parts = [row_wrap(op, dtype) for op in sources.ROWS]
        parts += [elementwise_wrapper(op, dtype) for op in sources.ELEMENTWISE]
        (folder / f"{dtype}.cpp").write_text(SHIM + "\n".join(parts), encoding="utf-8")
        command = ["g++", "-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC"]
        command += [f"{dtype}.cpp", "-o", f"{dtype}.so"]
        compilers[dtype] = subprocess.Popen(
            command, cwd=folder, stderr=subprocess.PIPE, encoding="utf-8"
        )
    for dtype, compiler in compilers.items():  # both ran at the same time
        _, errors = compiler.communicate()
        assert compiler.returncode == 0, f"g++ refused the {dtype} kernels:\n{errors[:4000]}"
    return {dtype: ctypes.CDLL(str(folder / f"{dtype}.so")) for dtype in compilers}


class HostRawKernel:
    """cupy.RawKernel over the compiled sources: same arguments, NumPy arrays in place of CuPy's."""

    def __init__(self, libraries, code, name):
        op = name.removesuffix("_rows")
        same = [d for d in libraries if sources.row_source(op, d) == code]
        assert same, f"{name} is not one of the sources that were compiled"
        self.dtype, self.run = same[0], getattr(libraries[same[0]], f"run_{name}")
        declaration = re.search(rf"void {name}\((.*?)\) {{", code, re.DOTALL).group(1)
        self.parameters = [p.split() for p in declaration.split(",")]

    def __call__(self, grid, block, arguments):
        assert len(grid) == len(block) == 1
        assert grid[0] > 0
        assert block[0] & (block[0] - 1) == 0
        assert block[0] <= sources.MAX_THREADS
        results = [self.launch(grid[0], block[0], arguments, order) for order in ORDERS]
        for array, up, down in zip(arguments, *results, strict=True):
            if up is not None:
                assert np.array_equal(up, down, equal_nan=True), "the order of threads matters"
                array[...] = up

    def launch(self, blocks, count, arguments, order):
        """One launch. Returns what it wrote, an array for each output, None for other arguments."""
        walled, values = [], []
        for argument, words in zip(arguments, self.parameters, strict=True):
            if words[-2].endswith("*"):
                walled.append(wall_in(argument, self.dtype, is_output=words[0] != "const"))
                middle = walled[-1].ctypes.data + WALL * walled[-1].itemsize
                values.append(ctypes.c_void_p(middle))
            else:
                walled.append(None)
                values.append(as_scalar(argument, words[:-1]))
        error = self.run(*values, blocks, count, ORDERS.index(order))
        assert error == 0, "threads of one block disagree on the number of barriers"
        return [
            read_out(w, argument) if w is not None and words[0] != "const" else None
            for w, argument, words in zip(walled, arguments, self.parameters, strict=True)
        ]


def wall_in(array, dtype, is_output):
    """A copy of the array's entries between NaNs; an output's entries are NaN themselves."""
    assert isinstance(array, np.ndarray)
    assert array.flags.c_contiguous, "a row kernel knows no strides"
    assert array.dtype == dtype
    walled = np.full(array.size + 2 * WALL, np.nan, dtype)
    if not is_output:
        walled[WALL:-WALL] = array.ravel()
    return walled


def read_out(walled, array):
    """The entries between the walls, which must still stand."""
    assert np.isnan(walled[:WALL]).all(), "written before the beginning of an array"
    assert np.isnan(walled[-WALL:]).all(), "written behind the end of an array"
    return walled[WALL:-WALL].reshape(array.shape)


def as_scalar(value, words):
    """A NumPy scalar as the C type that the kernel declares; CuPy passes its bytes as they are."""
    wanted, c_type = {
        ("double",): (np.float64, ctypes.c_double),
        ("long", "long"): (np.int64, ctypes.c_longlong),
    }[tuple(words)]
    assert type(value) is wanted, f"{type(value)} given for {' '.join(words)}"
    return c_type(value)


class HostElementwiseKernel:
    """cupy.ElementwiseKernel over the compiled bodies: broadcasts, reads any memory layout."""

    def __init__(self, libraries, inputs, outputs, body, name, preamble):
        known = sources.ELEMENTWISE[name.removeprefix("miniclip_")]
        assert known == (inputs, outputs, body)
        assert preamble == sources.SIGMOID
        self.libraries, self.name = libraries, name

    def __call__(self, *arrays):
        if len({a.dtype for a in arrays}) != 1:
            raise TypeError("Type is mismatched")  # all of them are T
        arrays = [np.ascontiguousarray(a) for a in np.broadcast_arrays(*arrays)]
        out = np.full(arrays[0].shape, np.nan, arrays[0].dtype)
        run = getattr(self.libraries[out.dtype.name], f"run_{self.name}")
        pointers = [ctypes.c_void_p(a.ctypes.data) for a in (*arrays, out)]
        run(*pointers, ctypes.c_longlong(out.size))
        return out


def host_cupy(libraries):
    """A module with what cupy_backend uses of CuPy, on NumPy arrays and the compiled kernels."""
    module = types.ModuleType("cupy")
    for name in ("add", "ascontiguousarray", "broadcast_to", "ones", "zeros"):
        setattr(module, name, getattr(np, name))
    module.empty = lambda shape, dtype: np.full(shape, np.nan, dtype)
    module.asarray = lambda x, dtype, blocking: np.array(x, dtype)
    module.asnumpy = np.asarray
    module.RawKernel = lambda code, name: HostRawKernel(libraries, code, name)
    module.ElementwiseKernel = lambda *args, **kwargs: HostElementwiseKernel(
        libraries, *args, **kwargs
    )
    return module
