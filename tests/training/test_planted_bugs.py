"""Planted bugs in training: the checks of training_checks and classifier_checks find each."""

import classifier_checks
import pytest
import training_checks as checks
from planting import Bug, is_caught, planted_package

LOOP, DATA, OPTIMIZER = "training.loop", "training.data", "training.optimizer"
GRADIENTS, OBJECTIVES, REPORT = "training.gradients", "training.objectives", "training.report"
STATE, SCENES = "training.state", "world.scenes"

BUGS = [
    Bug("clamp forgotten", "curve", LOOP, "        clamp_log_scale(self.optimizer.parameters)\n", ""),
    Bug("clamp at e^100", "curve", OPTIMIZER, "LOG_SCALE_CLAMP = math.log(100)", "LOG_SCALE_CLAMP = 100.0"),
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
    Bug("repeated captions ignored", "sigmoid", LOOP, "targets = positives(loaded.captions, loaded.labels)", "targets = None"),
    Bug("bias of the sigmoid loss not trained", "sigmoid", LOOP, "named_parameters(network, self.objective)", "dict(network.named_parameters())"),
    Bug("the objective's gradient never cleared", "sigmoid", LOOP, "        self.module.zero_grad()\n", ""),
    Bug("no training mode", "frozen", LOOP, "            tree.train()\n", "            tree.eval()\n"),
    Bug("frozen statistics move", "frozen", LOOP, "                    module.training = False\n", "                    pass\n"),
    Bug("frozen parts train", "frozen", "training.recipe", "if not any(fnmatchcase(name, pattern) for pattern in frozen)", "if True"),
    Bug("statistics updated twice", "gradcache", GRADIENTS, "    with unchanged_buffers(network):\n", "    if True:\n"),
    Bug("statistics not updated", "gradcache", GRADIENTS, "    replay(network, network.visual, pixels, dimages, chunk)\n", "    with unchanged_buffers(network):\n        replay(network, network.visual, pixels, dimages, chunk)\n"),
    Bug("every chunk gets the first one's gradient", "gradcache", GRADIENTS, "l2_normalize_backward(dy[at], cache)", "l2_normalize_backward(dy[: len(x[at])], cache)"),
    Bug("the last chunk forgotten", "gradcache", GRADIENTS, "for start in range(0, n, chunk):", "for start in range(0, n - chunk + 1, chunk):"),
    Bug("the first chunk alone gets a gradient", "gradcache", GRADIENTS, "value, dimages, dtexts = loss(images, texts)\n    # 3", "value, dimages, dtexts = loss(images, texts)\n    dimages = dimages * (np.arange(len(dimages)) < chunk)[:, None]\n    # 3"),
    Bug("loss over a chunk only", "gradcache", OBJECTIVES, "            return self.loss(network, images, texts, batch.targets)\n", "            part = batch.targets[:chunk, :chunk]\n            value, a, b = self.loss(network, images[:chunk], texts[:chunk], part)\n            dimages, dtexts = 0 * images, 0 * texts\n            dimages[:chunk], dtexts[:chunk] = a, b\n            return value, dimages, dtexts\n"),
    Bug("temperature without gradient", "gradcache", OBJECTIVES, "        network.logit_scale.add_grad(dscale)\n        return", "        network.logit_scale.add_grad(0 * dscale)\n        return"),
    Bug("the chunk does not arrive", "memory", OBJECTIVES, "gradients(network, batch.pixels, batch.ids, loss, chunk)", "gradients(network, batch.pixels, batch.ids, loss)"),
    Bug("a loss that is no number goes on", "nan", LOOP, "        self._check_finite(loaded, outcome.loss, norm)\n", ""),
    Bug("optimiser not restored", "resume", OPTIMIZER, '            self.means[name] = self.ops.asarray(state[f"mean.{name}"], p.data.dtype)\n', ""),
    Bug("steps of the optimiser not restored", "resume", OPTIMIZER, "        self.steps = steps\n", ""),
    Bug("run starts its data anew", "resume", LOOP, 'self.step, self.samples = progress["step"], progress["samples"]', 'self.step, self.samples = 0, progress["samples"]'),
    Bug("running statistics not kept", "resume", LOOP, 'for n, x in self.network.state_dict().items()}', 'for n, x in self.network.state_dict().items() if "running" not in n} | {f"network.{n}": 0 * x for n, x in self.network.named_buffers()}'),
    Bug("log lines twice", "resume", LOOP, "        log.keep_before(self.step)\n", '        log.write(Record(0, 0, 0, {}, 0, 0, {}, 0, 0, 0))\n'),
    Bug("a frozen temperature is clamped", "frozen", LOOP, "clamp_log_scale(self.optimizer.parameters)", "clamp_log_scale(dict(self.network.named_parameters()))"),
    Bug("a temperature that the loss does not use is clamped", "classifier", OPTIMIZER, "if p is not None and p.grad is not None:", "if p is not None:"),
    Bug("the module is not trained", "classifier", LOOP, "named_parameters(network, self.objective)", "dict(network.named_parameters())"),
    Bug("the module is not clipped", "classifier", LOOP, "clip_gradients(self.optimizer.parameters.values(), recipe.clip)", "clip_gradients([p for _, p in self.network.named_parameters()], recipe.clip)"),
    Bug("the module is not in training mode", "classifier", LOOP, "for tree in (self.network, self.module):", "for tree in (self.network,):"),
    Bug("the module's gradient never cleared", "classifier", LOOP, "        self.module.zero_grad()\n", ""),
    Bug("the module's matrices do not decay", "classifier", OPTIMIZER, "return parameter.data.ndim >= 2 and not", 'return parameter.data.ndim >= 2 and "head" not in name and not'),
    Bug("the module stays in training mode", "classifier frozen", LOOP, "            self.module.eval()\n", ""),
    Bug("a frozen module's statistics move", "classifier frozen", LOOP, "for module in tree.modules():", "for module in self.network.modules():"),
    Bug("the module cannot be frozen", "classifier frozen", LOOP, "trained_parameters(named_parameters(network, self.objective), recipe.frozen)", "trained_parameters(dict(network.named_parameters()), recipe.frozen) | dict(self.module.named_parameters())"),
    Bug("the module's buffers not saved", "classifier resume", LOOP, 'f"objective.{n}": host(x) for n, x in self.module.state_dict().items()', 'f"objective.{n}": host(p.data) for n, p in self.module.named_parameters()'),
    Bug("the module's buffers not resumed", "classifier resume", LOOP, '            self.module.load_state_dict(part(tensors, "objective."))\n', '            for n, p in self.module.named_parameters():\n                p.data = tensors[f"objective.{n}"]\n'),
    Bug("the module not resumed", "classifier resume", LOOP, '            self.module.load_state_dict(part(tensors, "objective."))\n', ""),
    Bug("measures dropped", "classifier resume", LOOP, "measures=outcome.measures", "measures={}"),
    Bug("measures not logged", "classifier resume", REPORT, "row |= value if isinstance(value, Mapping) else {name: value}", "row |= {} if isinstance(value, Mapping) else {name: value}"),
    Bug("chunk accepted silently by the trainer", "chunk", LOOP, "        self.objective.check_chunk(recipe.chunk)\n", ""),
    Bug("chunk accepted silently by all", "chunk", OBJECTIVES, "if chunk is not None and self.no_chunks is not None:", "if False:"),
    Bug("an objective may use chunks until it says no", "chunk", OBJECTIVES, 'no_chunks: str | None = "is no function of independent image and text embeddings"', "no_chunks: str | None = None"),
    Bug("the network's parameter of a name is trained no more", "names", OBJECTIVES, "        if name in named:\n", "        if False:\n"),
    Bug("a shared parameter takes two steps", "names", OBJECTIVES, "        if id(p) in theirs:\n", "        if False:\n"),
    Bug("a checkpoint does not say what it was trained for", "another objective", LOOP, '{**recipe.as_dict(), "loss": self.objective.name}', "recipe.as_dict()"),
    Bug("held-out pairs drawn", "held out", SCENES, "    pairs: tuple[Pair, ...] = SEEN\n", "    pairs: tuple[Pair, ...] = COLOUR_SHAPE_PAIRS\n"),
    Bug("the optimiser's betas not handed on", "recipe", LOOP, "trained, recipe.betas, recipe.eps", "trained, (0.9, 0.98), recipe.eps"),
    Bug("the optimiser's eps not handed on", "recipe", LOOP, "recipe.betas, recipe.eps, recipe.weight_decay", "recipe.betas, weight_decay=recipe.weight_decay"),
    Bug("the decay not handed on", "recipe", LOOP, "recipe.betas, recipe.eps, recipe.weight_decay)", "recipe.betas, recipe.eps)"),
    Bug("the clipping's length not handed on", "recipe", LOOP, "self.optimizer.parameters.values(), recipe.clip)", "self.optimizer.parameters.values(), 1.0)"),
    Bug("the data's seed not handed on", "recipe", LOOP, "self.batch_size, self.recipe.seed", "self.batch_size, 0"),
    Bug("the warm-up not handed on", "recipe", LOOP, "recipe.learning_rate, recipe.warm_up)", "recipe.learning_rate, 100)"),
    Bug("another loss", "recipe", LOOP, "OBJECTIVES[recipe.loss]()", 'OBJECTIVES["contrastive"]()'),
    Bug("a scale below one", "clamp", OPTIMIZER, "np.clip(p.data, 0.0, largest)", "np.minimum(p.data, largest)"),
    Bug("a scale of at least e", "clamp", OPTIMIZER, "np.clip(p.data, 0.0, largest)", "np.clip(p.data, 1.0, largest)"),
    Bug("texts cut at their largest id", "end", LOOP, "end_of_text(ids, self.network.text.config.end_id)", "ids.argmax(axis=1)"),
    Bug("the bias's running means not resumed", "sigmoid resume", OPTIMIZER, "        for name, p in self.parameters.items():\n            self.means[name] = self.ops.asarray(", "        for name, p in self.parameters.items():\n            if name == \"logit_bias\":\n                continue\n            self.means[name] = self.ops.asarray("),
]  # fmt: skip

CHECKS = {
    "recipe": checks.check_unusual_recipe,
    "clamp": checks.check_clamp,
    "end": checks.check_end_of_text,
    "sigmoid resume": lambda: checks.check_resume(
        "vit", checks.room("training.objectives").Sigmoid
    ),
    "curve": lambda: [checks.check_same_curve(kind, steps=14) for kind in ("vit", "resnet")],
    "sigmoid": lambda: checks.check_same_curve("vit", steps=14, loss="sigmoid"),
    "order": checks.check_order,
    "decay": checks.check_decay,
    "gradcache": lambda: checks.check_gradcache("resnet", True, 4),
    "nan": checks.check_nan,
    "resume": checks.check_resume,
    "frozen": checks.check_frozen,
    "held out": checks.check_held_out,
    "memory": checks.check_chunks_are_small,
    "classifier": lambda: classifier_checks.check_classifier_curve("vit"),
    "classifier resume": classifier_checks.check_classifier_resume,
    "classifier frozen": classifier_checks.check_classifier_frozen,
    "chunk": classifier_checks.check_chunk_is_refused,
    "names": classifier_checks.check_names,
    "another objective": classifier_checks.check_another_objective_is_refused,
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.planted
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_it_is_found(bug, tmp_path):
    with planted_package(bug, tmp_path):
        assert is_caught(CHECKS[bug.where]), f"not found: {bug.name}"


@pytest.mark.slow  # the same checks run quickly in this room's other files
@pytest.mark.parametrize("where", list(CHECKS))
def test_without_a_bug_nothing_is_found(where, tmp_path):
    """The control: the same copying and importing, nothing planted."""
    harmless = Bug("none", where, STATE, "FORMAT = 1", "FORMAT = 1 ")
    with planted_package(harmless, tmp_path) as package:
        assert str(tmp_path) in package.__file__
        CHECKS[where]()
