"""Checkpoints: safetensors files of OpenAI, open_clip and Hugging Face, in and out.

reader.py opens files (safetensors_header.py checks what they claim), layouts.py maps their keys to
ours, configs.py decides what shapes do not tell, writer.py writes. Nothing is ever unpickled.
"""

from miniclip.checkpoints.errors import CheckpointError
from miniclip.checkpoints.layouts import LoadedModel, check_finite, read_model, to_hf
from miniclip.checkpoints.reader import Checkpoint, open_checkpoint
from miniclip.checkpoints.writer import save_checkpoint

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "LoadedModel",
    "check_finite",
    "open_checkpoint",
    "read_model",
    "save_checkpoint",
    "to_hf",
]
