"""Where a file of source can be changed by one small slip, and what the slip writes there.

Eleven slips, each an entry of `OPERATORS`: a function that is given a node of the syntax tree and
yields edits. Annotations, docstrings, messages and decorators are left alone: no answer depends on
them. An edit replaces bytes of the file, so that the rest stays as it is written, kernels and
decorated functions included.
"""

import ast
from dataclasses import dataclass

MESSAGES = {"warn", "print", "note", "debug", "info", "warning", "add_argument", "add_parser"}
COMPARISONS = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
GUARDS = {
    "strict",
    "encoding",
    "stacklevel",
}  # zip's and open's own care: no answer depends on them
ARITHMETIC = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "/", ast.Mod: "*",
    ast.Pow: "*", ast.LShift: ">>", ast.RShift: "<<", ast.BitAnd: "|", ast.BitOr: "&",
}  # fmt: skip


@dataclass(frozen=True)
class Edit:
    """Bytes `start` to `end` of a file replaced."""

    operator: str
    start: int
    end: int
    new: str


class Source:
    """A file's bytes, and where a node stands in them."""

    def __init__(self, text):
        self.raw = text.encode()
        self.tree = ast.parse(text)
        self.line_starts = [0]
        for line in self.raw.splitlines(keepends=True):
            self.line_starts.append(self.line_starts[-1] + len(line))

    def span(self, node):
        start = self.line_starts[node.lineno - 1] + node.col_offset
        return start, self.line_starts[node.end_lineno - 1] + node.end_col_offset

    def text(self, node):
        start, end = self.span(node)
        return self.raw[start:end].decode()

    def indent(self, node):
        return " " * node.col_offset

    def apply(self, edit):
        return (self.raw[: edit.start] + edit.new.encode() + self.raw[edit.end :]).decode()

    def lines(self, edit):
        """The lines that an edit touches, before and after it, each as one line."""
        first = self.raw.rfind(b"\n", 0, edit.start) + 1
        last = self.raw.find(b"\n", edit.end)
        last = len(self.raw) if last < 0 else last
        before = self.raw[first:last].decode()
        head, tail = self.raw[first : edit.start].decode(), self.raw[edit.end : last].decode()
        return " ".join(before.split()), " ".join(f"{head}{edit.new}{tail}".split())

    def line(self, edit):
        return self.raw.count(b"\n", 0, edit.start) + 1


def drop_keyword(node, source):
    """f(x, eps=eps) -> f(x): the option does not reach the callee."""
    if isinstance(node, ast.Call) and len(node.args) + len(node.keywords) > 1:
        for keyword in node.keywords:
            if keyword.arg and keyword.arg not in GUARDS:
                start, end = source.span(keyword)
                yield widened(source, start, end)


def drop_argument(node, source):
    """f(x, y) -> f(x)"""
    if isinstance(node, ast.Call) and len(node.args) > 1:
        yield widened(source, *source.span(node.args[-1]))


def widened(source, start, end):
    """An argument's place and the comma before it, or else the one behind it."""
    before = source.raw[:start].rstrip()
    if before.endswith(b","):
        return len(before) - 1, end, ""
    behind = source.raw[end:]
    return start, end + behind.index(b",") + 1, ""


def swap_arguments(node, source):
    """f(x, y) -> f(y, x), but for functions that mind no order"""
    if isinstance(node, ast.Call) and name_of(node.func) not in ("min", "max"):
        for left, right in zip(node.args, node.args[1:], strict=False):
            if isinstance(left, ast.Starred) or isinstance(right, ast.Starred):
                continue
            if source.text(left) != source.text(right):
                (start, middle), (other, end) = source.span(left), source.span(right)
                between = source.raw[middle:other].decode()
                yield start, end, source.text(right) + between + source.text(left)


def ignore_option(node, source):
    """def f(x, eps=1e-5): ... -> the same with eps = 1e-5 as its first line."""
    if not isinstance(node, ast.FunctionDef):
        return
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    pairs = list(zip(positional[::-1], arguments.defaults[::-1], strict=False))
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    body = [s for s in node.body if not is_docstring(s)]
    if not body or body[0].lineno == node.lineno:
        return
    start, _ = source.span(body[0])
    for argument, default in pairs:
        if default is not None:
            line = f"{argument.arg} = {source.text(default)}\n{source.indent(body[0])}"
            yield start, start, line


def force_condition(node, source):
    """if a: -> if True: and if False:"""
    if isinstance(node, ast.If | ast.IfExp):
        for value in ("True", "False"):
            yield *source.span(node.test), value
    elif isinstance(node, ast.While):
        yield *source.span(node.test), "False"
    elif isinstance(node, ast.comprehension):
        for test in node.ifs:
            yield *source.span(test), "True"


def move_boundary(node, source):
    """a < b -> a <= b"""
    if isinstance(node, ast.Compare):
        left = node.left
        for op, right in zip(node.ops, node.comparators, strict=True):
            yield from replaced_between(source, left, right, COMPARISONS[type(op)])
            left = right


def swap_and_or(node, source):
    if isinstance(node, ast.BoolOp):
        new = "or" if isinstance(node.op, ast.And) else "and"
        for left, right in zip(node.values, node.values[1:], strict=False):
            yield from replaced_between(source, left, right, new)


def replaced_between(source, left, right, new):
    """The operator between two operands; parentheses around them stay."""
    (_, start), (end, _) = source.span(left), source.span(right)
    between = source.raw[start:end].decode()
    word = between.strip(" \n()\\")
    if word and between.count(word) == 1 and "#" not in between:
        at = start + len(between[: between.index(word)].encode())
        yield at, at + len(word.encode()), new


def delete_statement(node, source):
    """A call for its effect, an assignment to what exists already, raise, continue, break."""
    for statements in (getattr(node, "body", None), getattr(node, "orelse", None)):
        if not isinstance(statements, list):
            continue
        for statement in statements:
            if is_deletable(statement, node):
                yield *source.span(statement), "pass"


def is_deletable(statement, parent):
    if isinstance(statement, ast.Expr):
        return not isinstance(statement.value, ast.Constant | ast.Yield | ast.YieldFrom)
    if isinstance(statement, ast.Assign):
        if isinstance(parent, ast.Module | ast.ClassDef):
            return False
        return all(isinstance(t, ast.Attribute | ast.Subscript) for t in statement.targets) or (
            isinstance(parent, ast.If | ast.For | ast.While)  # a name that most likely exists
        )
    return isinstance(statement, ast.AugAssign | ast.Raise | ast.Continue | ast.Break | ast.Delete)


def move_index(node, source):
    """x[0] -> x[1], x[1:] -> x[2:], axis=-1 -> axis=-2, (0, 2, 1) in transpose -> (0, 1, 2)"""
    if isinstance(node, ast.Subscript):
        for part in ast.walk(node.slice):
            if is_number(part) and not is_inside_call(node.slice, part):
                yield *source.span(part), moved(source.text(part))
    elif isinstance(node, ast.keyword) and node.arg == "axis" and is_number(node.value):
        yield *source.span(node.value), moved(source.text(node.value))
    elif isinstance(node, ast.Call) and name_of(node.func) in ("transpose", "swapaxes", "moveaxis"):
        for part in node.args:
            for value in [part] if is_number(part) else getattr(part, "elts", []):
                if is_number(value):
                    yield *source.span(value), moved(source.text(value))


def is_inside_call(tree, part):
    """x[f(3)]: the 3 is a number, not an index."""
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
    return any(part is inner for call in calls for inner in ast.walk(call))


def moved(text):
    value = int(text.replace(" ", ""))
    return str(value + 1 if value >= 0 else value - 1)


def is_number(node):
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
    return isinstance(node, ast.Constant) and type(node.value) is int


def change_number(node, source):
    """3 -> 4, 0.5 -> 1.0, 1e-5 -> 2e-5, True -> False"""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield *source.span(node), str(not node.value)
        elif isinstance(node.value, int):
            yield *source.span(node), str(node.value + 1)
        elif isinstance(node.value, float):
            yield *source.span(node), repr(node.value * 2 if node.value else 1.0)


def change_arithmetic(node, source):
    if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        yield from replaced_between(source, node.left, node.right, ARITHMETIC[type(node.op)])
    elif isinstance(node, ast.AugAssign) and type(node.op) in ARITHMETIC:
        (_, start), (end, _) = source.span(node.target), source.span(node.value)
        new = f" {ARITHMETIC[type(node.op)]}= "
        yield start, end, new
    elif isinstance(node, ast.UnaryOp) and not isinstance(node.operand, ast.Constant):
        yield *source.span(node), source.text(node.operand)


OPERATORS = {
    "option not handed on": drop_keyword,
    "argument dropped": drop_argument,
    "arguments swapped": swap_arguments,
    "option ignored": ignore_option,
    "condition forced": force_condition,
    "boundary moved": move_boundary,
    "and for or": swap_and_or,
    "statement deleted": delete_statement,
    "index moved": move_index,
    "number changed": change_number,
    "arithmetic": change_arithmetic,
}


def is_docstring(statement):
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def name_of(function):
    return getattr(function, "attr", getattr(function, "id", ""))


def changeable(node):
    """The nodes of a tree with their children, without what no answer depends on."""
    yield node
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        if isinstance(node, ast.Raise) and field in ("exc", "cause"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not is_left_alone(child):
                yield from changeable(child)


def is_left_alone(node):
    if isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom | ast.Assert):
        return True
    if isinstance(node, ast.keyword) and node.arg in GUARDS:
        return True
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return True
    if isinstance(node, ast.Assign) and "__all__" in ast.unparse(node.targets[0]):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return name_of(node.value.func) in MESSAGES  # help texts and notes
    return is_docstring(node)


def indices_of(tree):
    """The places of numbers that are indices, so that they are not numbers as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript):
            yield from (id(n) for n in ast.walk(node.slice) if isinstance(n, ast.Constant))


def edits_of(source):
    """Every edit of a `Source`, in the order of the file. Some are no Python: see `changed_by`."""
    indices = set(indices_of(source.tree))
    found = set()
    for node in changeable(source.tree):
        for name, operator in OPERATORS.items():
            if name != "number changed" or id(node) not in indices:
                found |= {Edit(name, *edit) for edit in operator(node, source)}
    return sorted(found, key=lambda e: (e.start, e.end, e.operator, e.new))


def changed_by(edit, source):
    """The file after the edit; None where that is no Python, or the same program."""
    text = source.apply(edit)
    try:
        same = ast.dump(ast.parse(text)) == ast.dump(source.tree)
    except SyntaxError:
        return None
    return None if same else text
