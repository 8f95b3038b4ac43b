"""Trace a function, and refuse what cannot be compared with itself."""

from jaxmask.leak._program import Program
from jaxmask.leak._proof.prove import Proofs
from jaxmask.leak._subject import WHERE


def traced(proofs: Proofs) -> Program:
    """The program, or an error that says how to mend the function."""
    try:
        program = Program(proofs)
    except Exception as error:
        if type(error).__name__ == "TraceContextError":  # of Flax, which need not be imported
            from jaxmask import _nnx

            which = _nnx.changed_in(error) or "a random stream, or statistics"
            raise ValueError(
                f"{WHERE}: `fn` changes the state of an nnx.Module that it closes over ({which}), "
                "which a traced function cannot. Pass the module itself, "
                f"`{WHERE}(module, x, mask)`; if it takes other arguments, an nnx.Module around it."
            ) from error
        error.add_note(f"{WHERE} traces the function with `jax.jit`; this is what it raised.")
        raise
    if not program.slots:
        raise ValueError(f"{WHERE}: `fn` must return at least one array, got none.")
    if proofs.varies(proofs.inputs.x.arrays, proofs.inputs.marks):
        raise ValueError(
            f"{WHERE}: `fn` is another function at each call, so no comparison would mean "
            "anything; this is no leak. It draws random numbers outside of JAX, counts its calls, "
            "or changes state. Fix the seed, or pass what changes as `params`."
        )
    return program
