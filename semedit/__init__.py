"""Semantic image editing from Python: `semedit.load("checkpoints/cv").fill(image, label, inst, mask, n=5, seed=0)`."""

from semedit.editor import Editor
from semedit.loading import load
from semedit.styles import StyleReference
from util.errors import DataError, UserError
from util.versions import VERSION

__version__ = VERSION
__all__ = ["DataError", "Editor", "StyleReference", "UserError", "load"]
