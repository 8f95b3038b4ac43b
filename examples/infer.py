"""Jit-compiled inference: requests of any length, few shapes, each request answered once.

    python examples/seq2seq.py && python examples/infer.py "nine hundred and four" "twelve"
    python examples/infer.py --small

Requests are sorted into batches of a few sizes, which are compiled before the first request comes;
a batch that is not full is filled up with empty rows, which cost little and answer nothing. The
same name gets the same digits, whatever stands beside it in the batch.
"""

import argparse
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from _numbers import LETTERS, LONGEST_NAME, draw_numbers, spell
from flax import nnx
from seq2seq import Translator

import jaxmask as jm

SIZES = 16, 32, LONGEST_NAME  # letters
ROWS = 8


class Server:
    """A model, and one compiled program for each size."""

    def __init__(self, model: Translator):
        model.eval()
        graph, self.state = nnx.split(model)

        def run(state, names, mask):
            return nnx.merge(graph, state).translate(names, mask)

        self.programs = {}
        for size in SIZES:
            names = jax.ShapeDtypeStruct((ROWS, size), jnp.int32)
            mask = jax.ShapeDtypeStruct((ROWS, size), jnp.bool_)
            self.programs[size] = jax.jit(run).lower(self.state, names, mask).compile()

    def __call__(self, requests: list[str]) -> list[str]:
        """The digits of each name, in the order of the requests."""
        rows = [[1 + LETTERS.index(letter) for letter in request] for request in requests]
        answers = [""] * len(requests)
        batches = jm.bucket_batches(rows, ROWS, boundaries=SIZES, dtype=np.int32)
        for names, mask, indices in batches:
            said, said_mask = self.programs[names.shape[1]](self.state, names, mask)
            digits = jm.unpad_sequences(np.asarray(said), np.asarray(said_mask))
            for index, row in zip(indices, digits, strict=True):
                if index >= 0:  # not a filler
                    answers[index] = "".join(map(str, row))
        return answers


def restored(folder: Path, features: int) -> Translator:
    model = Translator(features, rngs=nnx.Rngs(0))
    kept = (folder / "model").absolute()
    if not kept.exists():
        raise SystemExit("There is no model yet: python examples/seq2seq.py")
    with ocp.StandardCheckpointer() as keeper:
        nnx.update(model, keeper.restore(kept, nnx.state(model)))
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="names of numbers; none: a hundred random ones")
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--model", type=Path, default=Path("runs/seq2seq"))
    parser.add_argument("--small", action="store_true", help="an untrained, small model")
    options = parser.parse_args()
    small = Translator(8, rngs=nnx.Rngs(0)) if options.small else None
    server = Server(small or restored(options.model, options.features))
    names = options.names or [spell(n) for n in draw_numbers(np.random.default_rng(1), 100)]
    begin = time.perf_counter()
    answers = server(names)
    seconds = time.perf_counter() - begin
    for name, answer in list(zip(names, answers, strict=True))[:10]:
        print(f"{name:<60} {answer}")
    print(f"{len(names)} requests in {1000 * seconds:.0f} ms, with {len(SIZES)} programs")
    assert server(names[:1]) == answers[:1]  # alone as in a batch


if __name__ == "__main__":
    jax.config.update("jax_compilation_cache_dir", "runs/programs")
    main()
