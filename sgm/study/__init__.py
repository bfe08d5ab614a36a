"""The study: config, cells, seeds, plan and names. No torch, no mathematics."""

from sgm.registry import Variable, register
from sgm.study.config import Item, Study, canonical, format_number, json_schema
from sgm.study.plan import Plan

__all__ = [
    "Item",
    "Plan",
    "Study",
    "Variable",
    "canonical",
    "format_number",
    "json_schema",
    "register",
]
