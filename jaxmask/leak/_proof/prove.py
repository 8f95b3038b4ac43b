"""`leak.prove`: trace, interpret, convict what is refused, and say who is to blame."""

from dataclasses import replace
from typing import Any

import numpy as np

from jaxmask import _check
from jaxmask._errors import refusing_pairs
from jaxmask._types import PyTree
from jaxmask.leak._findings import LeakError
from jaxmask.leak._proof.amount import prove_amount
from jaxmask.leak._proof.blame import causes_of
from jaxmask.leak._proof.causes import Causes
from jaxmask.leak._proof.inputs import WHERE, Inputs, make_inputs
from jaxmask.leak._proof.interpret import Machine
from jaxmask.leak._proof.kept import Kept, is_same, kept_of
from jaxmask.leak._proof.proof import ClaimReport, Proof
from jaxmask.leak._proof.questions import QUESTIONS, Question
from jaxmask.leak._proof.tracing import Traced, trace_gradients, trace_values
from jaxmask.leak._proof.verdict import AT_PADDING, PER_RUN, Claim, Run, of_gradients, of_values
from jaxmask.leak._proof.witness import Witness


@refusing_pairs
def prove(
    fn: Any,
    x: PyTree,
    mask: Any,
    *,
    params: PyTree = None,
    of: str = "padding",
    assume: str | None = None,
    witness: bool = True,
) -> Proof:
    """Prove that results do not depend on the padding, on later steps, or on other sequences.

    The function is traced and not run. Each element of each array of its program is known (a value
    that follows from the mask and from constants), clean (the same bits whatever the padding
    holds), or tainted. Inputs are tainted at padding, parameters and real steps are clean, and the
    mask is known. If no real entry of a result is tainted, the result is proved for all values at
    once. Gradients likewise, for any cotangents at real entries and at padding; where
    the mask of a result depends on data, they do not change with the padding of `x`.

    A function under `shard_map` is one over all devices, and takes the program that `vmap` makes of
    it: a sum over devices mixes their rows. `jax.sharding.AbstractMesh` is enough, without devices.

    What is refused is then run with other contents of the padding. If a real entry changes, the
    verdict is "not proved", with the two numbers; if none does, it is "undecided".

    Args:
      fn: as in `check`: `fn(x, mask)`, or `fn(params, x, mask)` with `params`, or an `nnx.Module`,
        also one that takes no mask. A training step with gradients inside is such a function too.
      x: `[batch, time, ...]`, or a pytree of such arrays.
      mask: `[batch, time]`, boolean; or `[batch]`, whose padding is rows; or `Segments`. Where
        arrays of `x` have masks of their own: a pytree of masks, which `fn` gets as it is, with
        the structure of `x` or of its upper part; None in it says that nothing is padding.
      params: a pytree of arrays.
      of: what must not be seen. `"padding"`; `"time"`: later steps, so that the function is causal;
        `"rows"`: other rows of the batch; `"segments"`: other sequences packed in `Segments`;
        `"amount"`: 1 step, 2 steps and twice the length of padding appended on the right. The
        programs of all lengths must be the same sums and products of the same parts, so this holds
        up to rounding, and with a chance of error below 1e-6 a result. What is not proved is
        "undecided": it is not run.
      assume: `"strict"`: everything may be nan or infinite; `"finite"`: nothing that is unknown is,
        or comes near the largest number.
        Default: strict for padding, else finite. The gradient at padding is 0 in strict mode if
        that can be proved, else in finite mode, which the claim then says.

      witness: whether to run what is refused. Without it nothing is compiled, and what is not
        proved is "undecided".

    Returns:
      A `Proof`: `.verdict`, `.claims` by result, `.blame`, and a text that says what is claimed.

    Raises:
      TypeError, ValueError, MaskError: if an argument is not as above, or nothing is asked.
      Exception: what `fn` raises when it is traced.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.ones((2, 3)), jnp.array([[True, True, False], [True, False, False]])
      >>> def mean(x, mask):
      ...     return (x * mask).sum(1) / mask.sum(1), mask.any(1)
      >>> jm.leak.prove(mean, x, mask).verdict  # 0 * nan is nan
      'not proved'
      >>> jm.leak.prove(jm.pool.mean, x, mask).verdict
      'proved'
      >>> jm.leak.prove(jm.ops.cumsum, x, mask, of="time").verdict
      'proved'
    """
    _check.choice(of, (*QUESTIONS, "amount"), WHERE, "of")
    if assume is not None:
        _check.choice(assume, ("strict", "finite"), WHERE, "assume")
    inputs = make_inputs(fn, x, mask, params)
    if of == "amount":
        return _of_amount(inputs)
    question = QUESTIONS[of](inputs, of=of, of_gradients=of != "time")
    _refuse_empty(question)
    finite = (assume or ("strict" if of == "padding" else "finite")) == "finite"
    return _Prover(
        inputs, question, _Programs(inputs, Kept()), finite=finite, witness=witness
    ).proof()


def _of_amount(inputs: Inputs) -> Proof:
    if any(marks.ndim != 2 for marks in inputs.masks.marks):
        raise ValueError(f'{WHERE}: `of="amount"` needs a mask [batch, time].')
    return replace(prove_amount(inputs), shapes=_shapes(inputs))


class Proofs:
    """Proofs of one function under several masks; each shape is traced once.

    Attributes:
      inputs: the function with its arguments as they were given.
      kept: what is known of the function, also from checks before.
    """

    def __init__(self, fn: Any, x: PyTree, mask: Any, params: PyTree, where: str):
        self.inputs = make_inputs(fn, x, mask, params, where)
        self.kept = kept_of(fn)
        self._is_same = False

    def renew(self) -> None:
        """Forget what is kept, unless the function still gives the program that it gave before."""
        before = self.kept.get(("values", _signature(self.inputs)))
        self._is_same = before is not None and is_same(
            before.closed, trace_values(self.inputs).closed
        )
        if not self._is_same:
            self.kept.clear()

    def at(self, x: list[np.ndarray], marks: np.ndarray) -> Inputs:
        """The function with other arguments."""
        leaves = replace(self.inputs.x, arrays=x)
        return replace(self.inputs, x=leaves, masks=replace(self.inputs.masks, marks=[marks]))

    def values(self, x: list[np.ndarray], marks: np.ndarray) -> Traced:
        """The program of the values; raises what the function raises."""
        return self._traced(x, marks).values

    def why_no_gradients(self, x: list[np.ndarray], marks: np.ndarray) -> str:
        """Why there are none; empty if there are."""
        gradients = self._traced(x, marks).gradients
        return gradients if isinstance(gradients, str) else ""

    def varies(self, x: list[np.ndarray], marks: np.ndarray) -> bool:
        """Whether tracing the function once more gives another program."""
        if self._is_same:
            return False
        return not is_same(self.values(x, marks).closed, trace_values(self.at(x, marks)).closed)

    def of(self, x: list[np.ndarray], marks: np.ndarray) -> Proof:
        """The proof that padding is ignored."""
        inputs = self.at(x, marks)
        question = QUESTIONS["padding"](inputs)
        _refuse_empty(question)
        key = "proof", _signature(inputs), marks.tobytes()
        programs = self._traced(x, marks)
        return self.kept.once(key, lambda: _Prover(inputs, question, programs).proof())

    def _traced(self, x: list[np.ndarray], marks: np.ndarray) -> "_Programs":
        return _Programs(self.at(x, marks), self.kept)


@refusing_pairs
def assert_causal(fn: Any, x: PyTree, mask: Any, *, params: PyTree = None) -> None:
    """Raise a `LeakError` that names the line to blame, unless no step depends on a later one.

    Args:
      fn, x, mask, params: as in `prove`.

    Raises:
      LeakError: if a step depends on a later one, or it cannot be decided.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.ones((2, 3)), jnp.ones((2, 3), bool)
      >>> jm.leak.assert_causal(jm.ops.cumsum, x, mask)
    """
    _raise_unless_proved(prove(fn, x, mask, params=params, of="time"))


@refusing_pairs
def assert_rows_independent(fn: Any, x: PyTree, mask: Any, *, params: PyTree = None) -> None:
    """Raise a `LeakError` that names the line to blame, unless no row depends on another.

    Args:
      fn, x, mask, params: as in `prove`.

    Raises:
      LeakError: if a row depends on another, or it cannot be decided.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.ones((2, 3)), jnp.ones((2, 3), bool)
      >>> jm.leak.assert_rows_independent(jm.ops.softmax, x, mask)
    """
    _raise_unless_proved(prove(fn, x, mask, params=params, of="rows"))


def _raise_unless_proved(proof: Proof) -> None:
    if proof.verdict != "proved":
        raise LeakError(str(proof))


def _refuse_empty(question: Question) -> None:
    marks = question.inputs.masks
    if question.of == "padding" and all((array > 0).all() for array in marks.marks):
        raise ValueError(f"{WHERE}: the mask has no padding, so there is nothing to prove.")
    if question.of == "segments" and not any(marks.max_segments):
        raise ValueError(f'{WHERE}: `of="segments"` needs `Segments` in the mask\'s place.')
    if question.of == "time" and not any(array.ndim == 2 for array in marks.marks):
        raise ValueError(f'{WHERE}: `of="time"` needs a mask [batch, time].')
    if len(question.labels()) < (1 if question.of == "padding" else 1 + (question.of != "time")):
        raise ValueError(f"{WHERE}: there are no two {question.of} to keep apart.")


class _Programs:
    """The programs of the values and of the gradients at one shape."""

    def __init__(self, inputs: Inputs, kept: Kept):
        self.inputs, self.kept, self._key = inputs, kept, _signature(inputs)
        self.values = kept.once(("values", self._key), lambda: trace_values(inputs))

    @property
    def gradients(self) -> Traced | str:
        key = "gradients", self._key
        return self.kept.once(key, lambda: trace_gradients(self.inputs, self.values))


class _Prover:
    def __init__(
        self,
        inputs: Inputs,
        question: Question,
        programs: _Programs,
        *,
        finite: bool = False,
        witness: bool = False,
    ):
        self.inputs, self.question, self.programs = inputs, question, programs
        self.finite, self.witness = finite, witness
        self.unknown: dict[str, None] = {}
        self.trusted: dict[str, None] = {}
        self.notes: dict[str, None] = {}

    def proof(self) -> Proof:
        values = self.programs.values
        if not values.slots:
            raise ValueError(f"{WHERE}: `fn` must return at least one array, got none.")
        claims = self._reports(values, of_gradient=False)
        for where, why in self.question.unasked.items():
            self.notes[f"{where}: {why}"] = None
        if not claims:
            raise ValueError(f"{WHERE}: nothing can be asked: {'; '.join(self.notes)}.")
        if self.question.of_gradients:
            gradients = self.programs.gradients
            if isinstance(gradients, str):
                self.notes[f"gradients: {gradients}"] = None
            else:
                gradients.masks = values.masks
                claims += self._reports(gradients, of_gradient=True)
        return Proof(
            self.inputs.name,
            self.question.of,
            tuple(report for report, _ in claims),
            "finite" if self.finite else "strict",
            causes_of(
                [cause for _, found in claims for cause in found],
                self.question.of,
                finite=self.finite,
            ),
            tuple(self.unknown),
            tuple(name for name in self.trusted if name not in self.unknown),
            tuple(self.notes),
            _shapes(self.inputs),
        )

    def _reports(self, traced: Traced, *, of_gradient: bool) -> list[Any]:
        """A report of each claim, and the causes where it is refused."""
        labels = self.question.labels()
        chunks = [labels[k : k + PER_RUN] for k in range(0, len(labels), PER_RUN)]
        found: dict[tuple[str, str], list[Claim]] = {}
        for chunk in chunks:
            claims = self._interpret(traced, chunk, of_gradient, finite=self.finite)
            for claim in claims:
                found.setdefault((claim.what, claim.where), []).append(claim)
        finite = self._finite_claims(traced, found, of_gradient)
        refused = [
            next(c for c in claims if not c.proved)
            for key, claims in found.items()
            if key not in finite and not all(claim.proved for claim in claims)
        ]
        witnesses = self._witnesses(traced, refused, of_gradient)
        causes = self._causes(traced, refused, of_gradient)
        reports: list[Any] = []
        for key, claims in found.items():
            number = next((k for k, c in enumerate(refused) if (c.what, c.where) == key), None)
            nan = any(claim.nan for claim in claims)
            if nan:
                self.notes[f"{key[0]} of {key[1]}: always nan, whatever the inputs are"] = None
            assumed = "finite" if self.finite or key in finite else "strict"
            if number is None:
                reports.append((ClaimReport(*key, "proved", assumed), []))
                continue
            verdict = "not proved" if number in witnesses else "undecided"
            report = ClaimReport(*key, verdict, assumed, witnesses.get(number, ""))
            reports.append((report, causes.get(number, [])))
        return reports

    def _interpret(
        self, traced: Traced, labels: list[Any], of_gradient: bool, *, finite: bool
    ) -> list[Claim]:
        run = Run(self.inputs, self.question, finite)
        claims, machine = (of_gradients if of_gradient else of_values)(run, traced, labels)
        self._note(machine)
        return claims

    def _note(self, machine: Machine) -> None:
        self.unknown |= dict.fromkeys(machine.unknown)
        self.trusted |= machine.trusted

    def _finite_claims(self, traced: Traced, found: Any, of_gradient: bool) -> set[Any]:
        """Gradients at padding that are 0 in finite mode only."""
        refused = [
            key
            for key, claims in found.items()
            if key[0] == AT_PADDING and not all(claim.proved for claim in claims)
        ]
        if self.finite or not refused:
            return set()
        claims = self._interpret(traced, self.question.labels(), of_gradient, finite=True)
        proved = {(claim.what, claim.where) for claim in claims if claim.proved}
        return proved & set(refused)

    def _witnesses(self, traced: Traced, refused: list[Claim], of_gradient: bool) -> dict[int, str]:
        if not refused or not self.witness:
            return {}
        run = Run(self.inputs, self.question, self.finite)
        return Witness(run, traced, of_gradients=of_gradient).of(refused)

    def _causes(
        self, traced: Traced, refused: list[Claim], of_gradient: bool
    ) -> dict[int, list[Any]]:
        """The operations to blame for each refused claim."""
        if not refused:
            return {}
        label = next(iter(self._guilty_labels(refused[0])))
        of_steps = self.question.of == "padding" and self.inputs.marks.ndim == 2
        found: dict[int, list[Any]] = {number: [] for number in range(len(refused))}
        # First what lets it in with -inf in the place of a fill such as -1e9 too.
        for infinite_fills in (True, False) if self.finite else (False,):
            causes = Causes(self.inputs.batch if of_steps else None)
            run = Run(self.inputs, self.question, self.finite, causes, None, infinite_fills)
            claims, _ = (of_gradients if of_gradient else of_values)(run, traced, [label])
            by_key = {(claim.what, claim.where): claim for claim in claims}
            for number, claim in enumerate(refused):
                if (same := by_key.get((claim.what, claim.where))) is not None:
                    found[number].append((causes, same))
        return found

    def _guilty_labels(self, claim: Claim) -> list[Any]:
        assert claim.bits is not None
        if claim.labels == ["padding"]:
            return claim.labels
        bits = int(np.bitwise_or.reduce(claim.bits, axis=None))
        return [label for k, label in enumerate(claim.labels) if bits >> k & 1]


def _shapes(inputs: Inputs) -> str:
    pairs = zip(inputs.x.names, inputs.x.arrays, strict=True)
    x = ", ".join(f"{name} {leaf.dtype}{list(leaf.shape)}" for name, leaf in pairs)
    masks = inputs.masks.marks
    real = ", ".join(f"{int((marks > 0).sum())} of {marks.size}" for marks in masks)
    return f"{x} with {real} {'rows' if masks[0].ndim == 1 else 'steps'} real"


def _signature(inputs: Inputs) -> Any:
    """All of the arguments but the numbers in them."""
    masks = inputs.masks
    arrays = (*inputs.x.arrays, *inputs.params.arrays, *masks.marks)
    names = (*inputs.x.names, *inputs.params.names)
    return names, tuple((a.shape, a.dtype) for a in arrays), tuple(masks.max_segments)
