"""What `load` returns: a model with its vocabulary, its preprocessing and calls that use them."""

from miniclip.pipeline.knowledge import Knowledge
from miniclip.pipeline.loading import load
from miniclip.pipeline.pipeline import Pipeline, Similarity
from miniclip.pipeline.vocabularies import VocabularyError, find_tokenizer, tokenize

__all__ = [
    "Knowledge",
    "Pipeline",
    "Similarity",
    "VocabularyError",
    "find_tokenizer",
    "load",
    "tokenize",
]
