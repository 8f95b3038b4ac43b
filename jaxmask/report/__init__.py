"""See where a mask goes: layer by layer, in a batch, and between two outputs.

    print(jm.report.mask_flow(model, x, mask))

Each report is text (`str`), a table or picture in notebooks, `to_html`, `to_svg`, and `to_png`,
which needs Matplotlib: `pip install jaxmask[report]`.
"""

from jaxmask.report._batch import BatchPicture, batch
from jaxmask.report._compare import Comparison, compare
from jaxmask.report._flow import MaskFlow, mask_flow
from jaxmask.report._layer import Layer

__all__ = [
    "BatchPicture",
    "Comparison",
    "Layer",
    "MaskFlow",
    "batch",
    "compare",
    "mask_flow",
]


def __dir__() -> list[str]:
    return __all__
