"""Is a backward pass right, and would anyone notice if it were wrong? docs/check.md.

`op_gradients`, `function_gradients` and `module_gradients` compare a backward pass with slopes
measured on its own forward pass, and say in a sentence what is wrong. `Bug` and `planted` make
wrong variants of miniclip's own modules, to prove that a check refuses them. NumPy only.
"""

from miniclip.check.gradients import function_gradients, op_gradients
from miniclip.check.modules import module_gradients
from miniclip.check.planting import Bug, planted, unchanged
from miniclip.check.result import GradientCheck, InputCheck

__all__ = [
    "Bug",
    "GradientCheck",
    "InputCheck",
    "function_gradients",
    "module_gradients",
    "op_gradients",
    "planted",
    "unchanged",
]
