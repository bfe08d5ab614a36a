"""The study: config, cells, seeds, plan and names. No torch, no mathematics."""

from sgm.study.config import Item, Study, canonical, format_number, json_schema
from sgm.study.plan import Plan
from sgm.study.registry import register
from sgm.study.variables import Variable

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
