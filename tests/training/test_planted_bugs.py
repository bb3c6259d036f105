"""Planted bugs in training: the checks of training_checks.py find each of them."""

import pytest
import training_checks as checks
from planting import Bug, planted_package

LOOP, DATA, OPTIMIZER = "training.loop", "training.data", "training.optimizer"
GRADIENTS, STATE, SCENES = "training.gradients", "training.state", "world.scenes"

BUGS = [
    Bug("clamp forgotten", "curve", LOOP, "        clamp_log_scale(network)\n", ""),
    Bug("clamp at e^100", "curve", OPTIMIZER, "LARGEST_LOG_SCALE = math.log(100)", "LARGEST_LOG_SCALE = 100.0"),
    Bug("decay on the temperature", "decay", OPTIMIZER, "return parameter.data.ndim >= 2 and not", "return parameter.data.ndim != 1 and not"),
    Bug("decay on gains and biases", "curve", OPTIMIZER, "return parameter.data.ndim >= 2 and not", "return not"),
    Bug("decay on embeddings", "curve", OPTIMIZER, "parameter.data.ndim >= 2 and not name.endswith(EMBEDDINGS)", "parameter.data.ndim >= 2"),
    Bug("no decay at all", "curve", OPTIMIZER, "self.weight_decay if is_decayed(name, p) else 0.0", "0.0"),
    Bug("decay coupled to the gradient", "curve", "ops.optimizer", "    mean = b1 * mean + (1 - b1) * grad\n", "    grad, weight_decay = grad + weight_decay * x, 0.0\n    mean = b1 * mean + (1 - b1) * grad\n"),
    Bug("bias correction forgotten", "curve", "ops.optimizer", "unbiased_square = square / (1 - b2**step)", "unbiased_square = square"),
    Bug("bias correction one step late", "curve", OPTIMIZER, "                self.steps,\n", "                self.steps + 1,\n"),
    Bug("eps under the root", "curve", "ops.optimizer", "(np.sqrt(unbiased_square) + eps)", "np.sqrt(unbiased_square + eps)"),
    Bug("an unshuffled epoch", "order", DATA, ".permutation(count)", ".permutation(count) * 0 + np.arange(count)"),
    Bug("every epoch in the same order", "order", DATA, "default_rng([seed, epoch, 4])", "default_rng([seed, 4])"),
    Bug("a picture twice in an epoch", "order", DATA, ".permutation(count)", ".integers(0, count, count)"),
    Bug("gradients never cleared", "curve", LOOP, "        self._clear_gradients()\n", ""),
    Bug("warm-up starts at zero", "curve", "training.schedule", "peak * (step + 1) / warm_up", "peak * step / warm_up"),
    Bug("cosine over all steps", "curve", "training.schedule", "(step - warm_up) / max(1, steps - warm_up)", "step / steps"),
    Bug("gradients clipped by a wrong length", "curve", OPTIMIZER, "return math.sqrt(total)", "return total"),
    Bug("small gradients lengthened", "curve", OPTIMIZER, "if norm > largest:", "if True:"),
    Bug("clipping forgotten", "curve", OPTIMIZER, "                p.grad = p.grad * share\n", "                pass\n"),
    Bug("repeated captions ignored", "sigmoid", LOOP, "targets = positives(batch.captions)", "targets = None"),
    Bug("bias of the sigmoid loss not trained", "sigmoid", LOOP, "trained_parameters(network, recipe.frozen) | self.objective.parameters", "trained_parameters(network, recipe.frozen)"),
    Bug("the objective's gradient never cleared", "sigmoid", LOOP, "        for p in self.objective.parameters.values():\n            p.grad = None\n", ""),
    Bug("no training mode", "frozen", LOOP, "    network.train()\n    learning", "    network.eval()\n    learning"),
    Bug("frozen statistics move", "frozen", LOOP, "            module.training = False\n", "            pass\n"),
    Bug("frozen parts train", "frozen", "training.recipe", "if not any(fnmatchcase(name, pattern) for pattern in frozen)", "if True"),
    Bug("statistics updated twice", "gradcache", GRADIENTS, "    with unchanged_buffers(network):\n", "    if True:\n"),
    Bug("statistics not updated", "gradcache", GRADIENTS, "    replay(network, network.visual, pixels, dimages, chunk)\n", "    with unchanged_buffers(network):\n        replay(network, network.visual, pixels, dimages, chunk)\n"),
    Bug("every chunk gets the first one's gradient", "gradcache", GRADIENTS, "l2_normalize_backward(dy[at], cache)", "l2_normalize_backward(dy[: len(x[at])], cache)"),
    Bug("the last chunk forgotten", "gradcache", GRADIENTS, "for start in range(0, n, chunk):", "for start in range(0, n - chunk + 1, chunk):"),
    Bug("loss over a chunk only", "gradcache", GRADIENTS, "loss, dimages, dtexts = objective(network, images, texts, targets)\n    # 3", "half = None if targets is None else targets[:4, :4]\n    loss, a, b = objective(network, images[:4], texts[:4], half)\n    dimages, dtexts = 0 * images, 0 * texts\n    dimages[:4], dtexts[:4] = a, b\n    # 3"),
    Bug("temperature without gradient", "gradcache", "training.objectives", "        network.logit_scale.add_grad(dscale)\n        return loss, dimages, dtexts\n\n    def chance(self, n: int) -> float:\n        return math.log(n)", "        network.logit_scale.add_grad(0 * dscale if len(images) != 8 else dscale)\n        return 0 * loss, dimages, dtexts\n\n    def chance(self, n: int) -> float:\n        return math.log(n)"),
    Bug("a loss that is no number goes on", "nan", LOOP, "        self._check_finite(batch, outcome.loss, norm)\n", ""),
    Bug("optimiser not restored", "resume", OPTIMIZER, '            self.means[name] = self.ops.asarray(state[f"mean.{name}"], p.data.dtype)\n', ""),
    Bug("steps of the optimiser not restored", "resume", OPTIMIZER, "        self.steps = steps\n", ""),
    Bug("run starts its data anew", "resume", LOOP, 'self.step, self.samples = progress["step"], progress["samples"]', 'self.step, self.samples = 0, progress["samples"]'),
    Bug("running statistics not kept", "resume", LOOP, 'for n, x in self.network.state_dict().items()}', 'for n, x in self.network.state_dict().items() if "running" not in n} | {f"network.{n}": 0 * x for n, x in self.network.named_buffers()}'),
    Bug("log lines twice", "resume", LOOP, "        log.keep_before(self.step)\n", '        log.write(Record(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))\n'),
    Bug("held-out pairs drawn", "held out", SCENES, "    pairs: tuple[Pair, ...] = SEEN\n", "    pairs: tuple[Pair, ...] = COLOUR_SHAPE_PAIRS\n"),
]  # fmt: skip

FOUND = (AssertionError, ValueError, KeyError, IndexError, RuntimeError, pytest.fail.Exception)

CHECKS = {
    "curve": lambda: [checks.check_same_curve(kind, steps=14) for kind in ("vit", "resnet")],
    "sigmoid": lambda: checks.check_same_curve("vit", steps=14, loss="sigmoid"),
    "order": checks.check_order,
    "decay": checks.check_decay,
    "gradcache": lambda: checks.check_gradcache("resnet", True, 4),
    "nan": checks.check_nan,
    "resume": checks.check_resume,
    "frozen": checks.check_frozen,
    "held out": checks.check_held_out,
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.planted
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_it_is_found(bug, tmp_path):
    with planted_package(bug, tmp_path), pytest.raises(FOUND):
        CHECKS[bug.where]()


@pytest.mark.parametrize("where", list(CHECKS))
def test_without_a_bug_nothing_is_found(where, tmp_path):
    """The control: the same copying and importing, nothing planted."""
    harmless = Bug("none", where, STATE, "FORMAT = 1", "FORMAT = 1 ")
    with planted_package(harmless, tmp_path) as package:
        assert str(tmp_path) in package.__file__
        CHECKS[where]()
