"""Flax's tables and pictures work over every module: `nnx.tabulate`, `nnx.display`, `treescope`."""

import numpy as np
import pytest
import treescope
from flax import nnx

import jaxmask as jm
from tests import rows
from tests.registry import REGISTRY


class Found(Exception):
    """Carries the module that an entry was about to call, and what with."""


def name_of_class(entry):
    return entry.name.removeprefix("nn.").partition(":")[0]


MODULES = {
    name_of_class(entry): entry
    for entry in reversed(REGISTRY)
    if entry.name.startswith("nn.") and not entry.name.endswith(":loss")
}


def module_and_arguments(name, monkeypatch):
    """The module of an entry, stopped where it is called."""

    def stop(self, *args, **options):
        raise Found(self, args, options)

    entry, layout = MODULES[name], "right"
    ids = np.arange(4)
    masks = rows.masks_for(entry, layout)
    with monkeypatch.context() as patch:
        patch.setattr(getattr(jm.nn, name), "__call__", stop)
        with pytest.raises(Found) as found:
            entry.call(entry.params, rows.arguments(entry, masks, ids), masks, ids)
    return found.value.args


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", MODULES)
def test_every_module_has_a_table_and_a_picture(name, monkeypatch, capsys):
    layer, args, options = module_and_arguments(name, monkeypatch)
    if name == "RaggedVmap":  # its entry runs an `nnx.RNN`, of which Flax makes no table either
        layer = jm.nn.RaggedVmap(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
    table = nnx.tabulate(layer, *args, **options, console_kwargs={"width": 500})
    assert name in table
    nnx.display(layer)
    assert name in capsys.readouterr().out
    assert name in treescope.render_to_text(layer)
    assert treescope.render_to_html(layer)
