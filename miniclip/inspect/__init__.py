"""Looking inside: traces of every module's output and gradient, compared by name."""

from miniclip.inspect.compare import Comparison
from miniclip.inspect.trace import Trace, trace
from miniclip.inspect.watch import watch

__all__ = ["Comparison", "Trace", "trace", "watch"]
