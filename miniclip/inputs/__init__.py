"""What goes into the towers: texts become ids."""

from miniclip.inputs.bpe import train_merges
from miniclip.inputs.explanation import Explanation
from miniclip.inputs.tokenizer import Tokenizer
from miniclip.inputs.vocabulary import BPE_FILE, BPE_SHA256

__all__ = ["BPE_FILE", "BPE_SHA256", "Explanation", "Tokenizer", "train_merges"]
