"""The Python of `docs/serving.md`: what it writes here runs in a process that has only JAX."""

import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from tests import registry

PAGE = (Path(__file__).parents[1] / "docs" / "serving.md").read_text()

ALONE = """
import sys
sys.modules.update(dict.fromkeys(["jaxmask", "flax"]))  # an import of either is an error
{code}
given = dict(np.load("given.npz"))
found = {{"logits": logits, "row_mask": row_mask, "answers": answers}}
for name in ("other", "poisoned"):
    found[name], found[name + "_mask"] = run(given[name + "_ids"], given["other_real"])
parts = []
for start in range(0, 12, 3):
    carry, (y, _) = step(carry, given["ids"][:, start:][:, :3], given["mask"][:, start:][:, :3])
    parts.append(y)
np.savez("found.npz", stream=np.concatenate(parts, 1), **found)
"""


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The names of the page, in a folder with the files that it writes."""
    folder, names = tmp_path_factory.mktemp("serving"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile("\n".join(blocks("python")), "docs/serving.md", "exec"), names)
    return folder, names


def test_a_process_with_only_jax_answers_the_same(page):
    folder, names = page
    draw = np.random.default_rng(0)
    other = draw.integers(0, 100, (5, 9)).astype(np.int32)
    real = draw.random((5, 9)) < 0.5  # holes too, and an empty row
    real[3] = False
    poisoned = np.where(real, other, -(2**31)).astype(np.int32)
    stream = {"ids": np.asarray(names["stream_ids"]), "mask": np.asarray(names["stream_mask"])}
    arrays = {"other_ids": other, "other_real": real, "poisoned_ids": poisoned, **stream}
    np.savez(folder / "given.npz", **arrays)
    code = ALONE.format(code="\n".join(blocks("python serve")))
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=folder, check=True)
    found = dict(np.load(folder / "found.npz"))

    answer = jax.jit(names["answer"])
    ids = np.array([[7, 8, 9, 0], [5, 0, 0, 0], [0, 0, 0, 0]], np.int32)
    logits, row_mask = answer(ids, np.arange(4) < np.array([[3], [1], [0]]))
    np.testing.assert_allclose(found["logits"], logits, atol=1e-6)
    assert found["row_mask"].tolist() == np.asarray(row_mask).tolist() == [True, True, False]
    assert (found["logits"][2] == 0).all()
    np.testing.assert_allclose(found["answers"], logits[:2], atol=1e-6)
    expected, rows = answer(other, real)
    for name in ("other", "poisoned"):
        np.testing.assert_allclose(found[name], expected, atol=1e-6)
        np.testing.assert_array_equal(found[f"{name}_mask"], rows)
    np.testing.assert_allclose(found["stream"], np.concatenate(names["parts"], 1), atol=1e-6)


def test_donated_carries_give_what_one_call_gives(page):
    names = page[1]
    whole, _ = names["causal"](names["stream_ids"], names["stream_mask"])
    np.testing.assert_allclose(np.concatenate(names["parts"], 1), whole, atol=1e-6)
    carry = names["carry"]
    chunk = names["stream_ids"][:, :3], names["stream_mask"][:, :3]
    after, _ = names["step"](carry, *chunk)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(carry))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(after))


@pytest.mark.parametrize("entry", [e for e in registry.REGISTRY if e.stream], ids=str)
def test_every_carry_can_be_donated(entry):
    """No buffer is in it twice, and from the second chunk on one takes the place of the other."""
    carry = entry.stream.initial(entry.params, 2)
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(carry)]
    assert len(set(buffers)) == len(buffers)
    first = entry.inputs[0]
    ids = first.kind == "ids"
    x = jax.ShapeDtypeStruct(
        (2, 3, *(() if ids else first.features)), "int32" if ids else "float32"
    )
    mask = jax.ShapeDtypeStruct((2, 3), bool)

    def run(carry):
        return jax.eval_shape(
            lambda c, x, m: entry.stream.run(entry.params, c, x, m), carry, x, mask
        )

    # A pool learns how many features there are from the first chunk.
    first_carry, _ = run(carry)
    after, _ = run(first_carry)
    assert jax.tree.structure(after) == jax.tree.structure(first_carry) == jax.tree.structure(carry)
    for new, old in zip(jax.tree.leaves(after), jax.tree.leaves(first_carry), strict=True):
        assert (new.shape, new.dtype) == (old.shape, old.dtype)
