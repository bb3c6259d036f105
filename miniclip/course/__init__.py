"""What the notebooks of the course and their graders call. docs/course.md.

`check` has one check for each exercise, under the name of the function to be written. `replace`
puts a learner's function into a model, `stop_at` a breakpoint; `predicted` answers a prediction.
"""

from miniclip.course import checks as check
from miniclip.course.failures import WrongAnswer
from miniclip.course.predict import predicted
from miniclip.course.replace import replace, stop_at

__all__ = ["WrongAnswer", "check", "predicted", "replace", "stop_at"]
