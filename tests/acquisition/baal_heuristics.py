"""baal's heuristics, where baal is installed."""

import importlib
from types import ModuleType

import pytest

OPERATORS = (
    *("nms", "roi_align", "_roi_align_backward", "roi_pool", "_roi_pool_backward"),
    *("ps_roi_align", "_ps_roi_align_backward", "ps_roi_pool", "_ps_roi_pool_backward"),
    *("deform_conv2d", "_deform_conv2d_backward", "qnms", "qroi_align"),
)
kept = []
"""A library's names last as long as it does."""


def load() -> ModuleType:
    """The module `baal.active.heuristics`; skips the test without it.

    baal imports torchvision, which cannot be imported beside a torch built for another device: its
    own operators are missing. None of them is used here, so it is enough that they have names.
    """
    pytest.importorskip("torch")
    try:
        importlib.import_module("torchvision")
    except ImportError:
        pass  # baal is the one to complain
    except RuntimeError:
        import torch

        kept.append(torch.library.Library("torchvision", "FRAGMENT"))
        for name in OPERATORS:
            kept[-1].define(f"{name}(Tensor a) -> Tensor")
    return pytest.importorskip("baal.active.heuristics", reason="needs the package baal")
