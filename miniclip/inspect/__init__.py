"""Looking inside: traces of every module's output and gradient, compared by name."""

from miniclip.inspect.compare import Comparison
from miniclip.inspect.stop import stop_here
from miniclip.inspect.trace import Trace, trace
from miniclip.inspect.watch import watch

__all__ = ["Comparison", "Trace", "stop_here", "trace", "watch"]
