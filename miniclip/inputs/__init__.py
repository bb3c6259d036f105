"""What goes into the towers: texts become ids."""

from miniclip.inputs.bpe import train_merges
from miniclip.inputs.steps import TextSteps
from miniclip.inputs.tokenizer import Tokenizer
from miniclip.inputs.vocabulary import BPE_FILE, BPE_SHA256

__all__ = ["BPE_FILE", "BPE_SHA256", "TextSteps", "Tokenizer", "train_merges"]
