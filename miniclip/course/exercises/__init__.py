"""All exercises, in the order of the course."""

from miniclip.course.exercises.activation import QUICK_GELU_BACKWARD, SOFTMAX_BACKWARD
from miniclip.course.exercises.broadcasting import SUM_TO_SHAPE
from miniclip.course.exercises.linear import LINEAR_BACKWARD
from miniclip.course.exercises.measuring import MEASURED_GRADIENT
from miniclip.course.exercises.norm import LAYER_NORM_BACKWARD

PART_2 = (
    SUM_TO_SHAPE,
    MEASURED_GRADIENT,
    LINEAR_BACKWARD,
    QUICK_GELU_BACKWARD,
    SOFTMAX_BACKWARD,
    LAYER_NORM_BACKWARD,
)
ALL = (*PART_2,)
