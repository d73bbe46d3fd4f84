"""The runs of a page, each in the tab that its kind needs."""

from __future__ import annotations

from models import MODELS
from semedit.editor import Editor
from semedit.page.desk import Tab
from semedit.page.editing_tab import EditingTab
from semedit.page.layout_tab import LayoutTab
from semedit.page.studio import Studio
from semedit.page.stylising_tab import StylisingTab
from util.opt import Opt


def make_tab(opt: Opt, max_side: int) -> Tab:
    """Load a run; pictures that are sent to it are scaled down to `max_side` pixels a side."""
    kind = MODELS.get(opt.model).flow
    if kind == "analogy":
        return LayoutTab(opt)
    return StylisingTab(opt, max_side) if kind == "stylising" else EditingTab(Studio(Editor(opt), max_side))
