"""Converted models against PyTorch, which runs each row alone, without its padding."""

import contextlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
from flax import nnx  # noqa: E402

import jaxmask as jm  # noqa: E402
from jaxmask.interop._torch_weights import entries_of  # noqa: E402
from tests import x64  # noqa: E402
from tests.oracles import torch_models as models  # noqa: E402
from tests.rows import mask_of  # noqa: E402


def rows_of(model, draw):
    """The real steps of each row, the padding id of its model among them."""
    for length in model.lengths:
        if model.ids:
            yield draw.integers(0, models.IDS, length).astype(np.int32)
        else:
            yield draw.normal(size=(length, models.FEATURES)).astype(model.dtype)


def padded(rows, mask, dtype, ids):
    """Rows at the real steps of a mask, and what must not matter in the padding."""
    x = np.full((*mask.shape, *rows[0].shape[1:]), 5 if ids else 77, np.int32 if ids else dtype)
    for row, steps in enumerate(rows):
        x[row, mask[row]] = steps
    return x


def alone(model, rows, readouts):
    """Of each row: what PyTorch gives, and the gradients of `sum(readout * y)`, summed up."""
    results, grads_x = [], []
    model.module.zero_grad()
    for steps, readout in zip(rows, readouts, strict=True):
        x = torch.tensor(steps)[None]
        x = x.long() if model.ids else x.requires_grad_()
        if not fits(model.module, len(steps)):  # PyTorch has no empty rows, and no empty results
            results.append(np.zeros((0, 1)))
            grads_x.append(np.zeros(steps.shape))
            continue
        y = models.run(model.module, x, model.causal)[0]
        (y * torch.tensor(readout[: len(y), : y.shape[1]])).sum().backward()
        results.append(y.detach().numpy())
        if not model.ids:
            grads_x.append(np.zeros_like(steps) if x.grad is None else x.grad[0].numpy())
    return results, grads_x


def fits(module, length):
    """Whether a row has a real step, and room for a window of a convolution."""
    if not length or not isinstance(module, torch.nn.Conv1d):
        return length > 0
    pad = 0 if isinstance(module.padding, str) else module.padding[0]
    reach = (module.kernel_size[0] - 1) * module.dilation[0]
    return module.padding == "same" or length + 2 * pad > reach


def ours(module):
    """Values and gradients of a converted model, compiled once for all masks."""
    graph, params, rest = nnx.split(module, nnx.Param, ...)

    def loss(params, x, mask, readout):
        y, new = nnx.merge(graph, params, rest)(x, mask)
        # The readout counts real steps, wherever they lie.
        rank = jnp.cumsum(new, axis=1) - 1
        picked = jnp.take_along_axis(readout, jnp.maximum(rank, 0)[..., None], axis=1)
        return jnp.sum(jnp.where(new[..., None], y * picked[..., : y.shape[-1]], 0)), (y, new)

    def run(x, mask, readout):
        wrt = (0,) if jnp.issubdtype(x.dtype, jnp.integer) else (0, 1)
        return jax.grad(loss, wrt, has_aux=True)(params, x, mask, readout)

    return jax.jit(run)


def pairs_of_gradients(module, made, grads):
    """The gradient of each parameter here and there, by the layers that hold them."""
    if isinstance(made, jm.nn.Sequential):
        parts = list(module.children()) if isinstance(module, torch.nn.Sequential) else [module]
        if isinstance(module, torch.nn.TransformerEncoder):
            parts = [*module.layers, *([module.norm] if module.norm is not None else [])]
        for position, part in enumerate(parts):
            if isinstance(made.layers[position], nnx.Module):
                inside = grads.get("layers", {}).get(position, {})
                yield from pairs_of_gradients(part, made.layers[position], inside)
        return
    theirs = {n: p.grad for n, p in module.named_parameters()}
    flat = dict(nnx.to_flat_state(grads)) if grads else {}
    for variable, names, make in entries_of(made) or ():
        if not isinstance(variable, nnx.Param):
            continue
        path = next(p for p, node in nnx.iter_graph(made) if node is variable)
        sent = [np.zeros(()) if theirs[n] is None else theirs[n].numpy() for n in names]
        # Two biases that become their sum have one gradient each, the same.
        expected = sent[0] if make is np.add else make(*sent)
        yield names, flat[path][...], expected


@pytest.mark.sampled(12)
@pytest.mark.parametrize("name", models.NAMES)
def test_a_converted_model_is_pytorch_on_each_row_alone(name):
    model = models.draw(name)
    is_double = model.dtype == np.float64
    tolerance = {"rtol": 1e-7, "atol": 1e-7} if is_double else {"rtol": 3e-4, "atol": 3e-5}
    draw = np.random.default_rng(len(name))
    rows = list(rows_of(model, draw))
    readouts = draw.normal(size=(len(rows), models.TIME * 3, 12)).astype(model.dtype)
    results, grads_x = alone(model, rows, readouts)
    with x64.enable_x64(True) if is_double else contextlib.nullcontext():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", jm.interop.InteropWarning)
            made = jm.interop.from_torch(model.module, causal=model.causal)
        run = ours(made)
        for layout in model.layouts:
            mask = mask_of(model.lengths, layout, models.TIME)
            x = padded(rows, mask, model.dtype, model.ids)
            grads, (y, new) = run(x, mask, readouts)
            for row, expected in enumerate(results):
                got = np.asarray(y[row])[np.asarray(new[row])]
                assert len(got) == len(expected)
                if len(expected):
                    np.testing.assert_allclose(got, expected, **tolerance, err_msg=layout)
                if not model.ids:
                    sent = np.asarray(grads[1][row])
                    np.testing.assert_allclose(sent[mask[row]], grads_x[row], **tolerance)
                    assert not sent[~mask[row]].any()
            compared = list(pairs_of_gradients(model.module, made, grads[0]))
            assert compared or not list(model.module.parameters())
            for names, got, expected in compared:
                np.testing.assert_allclose(got, expected, **tolerance, err_msg=str(names))
