"""State of modules that run inside a transform: random streams advance, nothing else may."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import errors, nnx

from jaxmask._types import PyTree


def variables(node: Any) -> dict[str, Any]:
    """Every array outside random streams, by its path, read now, since variables change."""
    state = nnx.state(node, nnx.Not(nnx.RngState))
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path).removesuffix(".value"): leaf for path, leaf in leaves}


def refuse_changes(before: dict[str, Any], node: Any, where: str, each: str) -> None:
    """Refuse a module that changed what `variables` found before; `each` has run on its own."""
    changed = [
        name.removeprefix("[0]")
        for name, leaf in variables(node).items()
        if before.get(name) is not leaf
    ]
    if changed:
        raise ValueError(
            f"{where}: the module changes {', '.join(changed)} on each {each}, and a batch has no "
            "single value for it. Use running averages (`model.eval()`), take that layer out of "
            f"{where} (there, `jm.nn.BatchNorm` has statistics over the real steps of all rows), "
            "or return the new value as a result."
        )


def advance(node: Any, before: PyTree, after: PyTree, where: str) -> None:
    """Set the counts of random streams to those after, `[batch]` each; a row that ran has its own.

    Rows that did not run give counts of 0; all others agree.
    """
    latest = jax.tree.map(lambda new: jnp.max(new, initial=0, axis=0), after)
    try:
        nnx.update(node, jax.tree.map(jnp.maximum, before, latest))
    except errors.TraceContextError as error:
        raise ValueError(
            f"{where}: the random stream of a closed-over model cannot advance inside a "
            "transform of JAX. Use `nnx.jit` and `nnx.grad`, or split and merge the model."
        ) from error
