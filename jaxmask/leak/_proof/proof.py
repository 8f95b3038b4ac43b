"""What a proof says: the claims, their verdicts, and who is to blame."""

import linecache
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from jaxmask._lines import is_own
from jaxmask.leak._proof.causes import Place
from jaxmask.leak._proof.words import apart_in_words, in_words

VERDICTS = ("proved", "undecided", "not proved")


@dataclass(frozen=True)
class Link:
    """One operation on the way from a result back to where the padding came in.

    Attributes:
      primitive: the name of the operation.
      place: the line of the user's code that it was traced from, if any.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.ones((2, 3)), jnp.array([[True, True, False], [True, False, False]])
      >>> proof = jm.leak.prove(lambda x, m: (x.mean(1), m.any(1)), x, mask)
      >>> proof.blame[0].chain[-1].primitive
      'reduce_sum'
    """

    primitive: str
    place: Place | None

    def __str__(self) -> str:
        return f"{self.primitive} at {self.place}" if self.place else self.primitive


@dataclass(frozen=True)
class Cause:
    """An operation that let in what must not be seen.

    Attributes:
      primitive: its name.
      place: the line of the user's code, if any.
      reaches: the results that it reaches.
      chain: the operations from a result back to this one.
      of: what must not be seen, as in `Proof`.
      fill: a number before it, such as -1e9, that keeps out what must not be seen as long as no
        other number is smaller; None: there is none.

    Example:
      >>> import jaxmask as jm
      >>> place = jm.leak.Place("model.py", 12, "forward")
      >>> print(jm.leak.Cause("sign", place, ("value of output",)))
      sign at model.py:12 (forward); it reaches value of output
    """

    primitive: str
    place: Place | None
    reaches: tuple[str, ...]
    chain: tuple[Link, ...] = ()
    of: str = "padding"
    fill: float | None = None

    @property
    def of_values(self) -> bool:
        """Whether it reaches a value or a mask, and not only gradients."""
        return any(not where.startswith("gradient") for where in self.reaches)

    @property
    def what(self) -> str:
        """What the operation is, in words; "" where there are none for it."""
        return self._words[0]

    @property
    def mend(self) -> str:
        """What to use instead."""
        return self._words[1]

    @property
    def _words(self) -> tuple[str, str]:
        if self.fill is not None:
            number = f"{self.fill:.3g}".replace("e+0", "e").replace("e+", "e")
            what = (
                f"behind a fill of {number}, which could be outweighed: scores below it lose to "
                "it; with -inf in its place nothing passes here"
            )
            return what, "`jnp.where`, filled with `-jnp.inf` or `jnp.finfo(dtype).min`"
        if self.of in ("padding", "amount"):
            return in_words([self.primitive])
        return apart_in_words(self.primitive, self.of)

    def __str__(self) -> str:
        at = f" at {self.place}" if self.place else ""
        what = f", {self.what}" if self.what else ""
        mend = f". Instead: {self.mend}" if self.mend else ""
        where = f"{self.primitive}{at}{source_of(self.place)}{what}"
        return f"{where}; it reaches {_few(self.reaches)}{mend}"


def source_of(place: Place | None) -> str:
    """The text of a line, and that it is not the user's where it is a library's."""
    if place is None:
        return ""
    note = "" if is_own(place.file) else " (in a library: no line of yours was found)"
    line = linecache.getline(place.file, place.line).strip()
    return f": `{line}`{note}" if line else note


def _few(names: tuple[str, ...], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


@dataclass(frozen=True)
class ClaimReport:
    """The verdict on one result.

    Attributes:
      what: "value", "mask", "statistics", "gradient in x", "gradient in x at padding" or "gradient
        in params".
      where: the path of the array.
      verdict: "proved", "not proved" or "undecided".
      assumed: "strict", or "finite" if nothing unknown is taken to be infinite, nan or near the
        largest number.
      witness: two runs that differ, in words; "" if there are none.

    Example:
      >>> import jaxmask as jm
      >>> print(jm.leak.ClaimReport("value", "output[0]", "proved", "finite"))
      value of output[0]: proved in finite mode
    """

    what: str
    where: str
    verdict: str
    assumed: str
    witness: str = ""

    def __str__(self) -> str:
        text = f"{self.what} of {self.where}: {self.verdict}"
        if self.verdict == "proved" and self.assumed == "finite":
            text += " in finite mode"
        return text + (f" ({self.witness})" if self.witness else "")


def in_lines(claims: Iterable[ClaimReport]) -> list[str]:
    """A line for each claim; of parameters with the same verdict, for the first."""
    groups: dict[Any, list[ClaimReport]] = {}
    for claim in claims:
        of_params = claim.what == "gradient in params"
        key = (claim.what, claim.verdict, "" if of_params else claim.where)
        groups.setdefault(key, []).append(claim)
    return [f"{group[0]}{more_params(len(group) - 1)}" for group in groups.values()]


def more_params(count: int) -> str:
    """How many parameters are left out of a text."""
    return f"; and {count} more parameter array{'s' * (count > 1)}" if count else ""


@dataclass(frozen=True)
class Proof:
    """What was proved of a function; `str()` of it says the claim with its limits.

    Attributes:
      name: the function.
      of: "padding", "time", "rows", "segments" or "amount".
      claims: the verdict on each result and each gradient.
      assumed: "strict" or "finite".
      blame: the operations that let in what must not be seen, with the results they reach.
      unknown: primitives without a rule that met what must not be seen, and are to blame.
      trusted: primitives without a rule that did not meet it, and so are taken to be clean.
      notes: results about which nothing was asked, and gradients that cannot be taken.
      shapes: the arguments, in words.

    Example:
      >>> import jax.numpy as jnp, jaxmask as jm
      >>> x, mask = jnp.ones((2, 3)), jnp.array([[True, True, False], [True, False, False]])
      >>> jm.leak.prove(jm.pool.mean, x, mask).verdict
      'proved'
    """

    name: str
    of: str
    claims: tuple[ClaimReport, ...]
    assumed: str
    blame: tuple[Cause, ...] = ()
    unknown: tuple[str, ...] = ()
    trusted: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    shapes: str = field(default="", repr=False)

    @property
    def verdict(self) -> str:
        """The worst of all claims: "not proved" (a witness convicts), "undecided" or "proved"."""
        return _worst(self.claims)

    @property
    def values(self) -> str:
        """The verdict on values and masks."""
        return _worst(tuple(c for c in self.claims if not c.what.startswith("gradient")))

    @property
    def gradients(self) -> str:
        """The verdict on gradients; "proved" if there are none."""
        return _worst(tuple(c for c in self.claims if c.what.startswith("gradient")))

    def __str__(self) -> str:
        lines = [f"leak.prove of {self.name}: {self.verdict}. {CLAIMS[self.of]}"]
        open_claims = [claim for claim in self.claims if claim.verdict != "proved"]
        lines += [f"- {line}" for line in in_lines(open_claims)]
        lines += [f"  let in by {cause}" for cause in self.blame]
        if self.unknown:
            lines.append(f"  primitives without a rule: {', '.join(self.unknown)}")
        if proved := [claim for claim in self.claims if claim.verdict == "proved"]:
            names = tuple(f"{claim.what} of {claim.where}" for claim in proved)
            lines.append(f"  proved: {_few(names, 8)}")
        at = {claim.assumed for claim in proved} or {self.assumed}
        if self.of == "amount":
            lines.append(f"  For {self.shapes}, and 1 step, 2 steps and twice the length appended.")
        else:
            lines.append(f"  For {self.shapes}, this mask and this jaxpr; {_for_all(at)}")
        if self.trusted:
            lines.append(f"  trusted: {', '.join(self.trusted)}")
        lines += [f"  not asked: {note}" for note in self.notes]
        lines.append(f"  {LIMITS_OF_AMOUNT if self.of == 'amount' else LIMITS}")
        return "\n".join(lines)


def _worst(claims: tuple[ClaimReport, ...]) -> str:
    return max((claim.verdict for claim in claims), key=VERDICTS.index, default="proved")


def _for_all(assumed: set[str]) -> str:
    strict = "for all real values, parameters and contents of the padding, nan and inf included;"
    if assumed == {"finite"}:
        strict = f"as long as {FINITE}, and up to the sign of zero;"
    elif "finite" in assumed:
        strict += f" what is in finite mode, as long as {FINITE};"
    return f"{strict} first-order gradients."


FINITE = "nothing unknown is infinite, nan or near the largest number"
CLAIMS = {
    "padding": "Does padding reach a real entry of a result?",
    "rows": "Does a row see another?",
    "segments": "Does a packed sequence see another in its row?",
    "time": "Does a step see a later one?",
    "amount": "Does more padding on the right change a real entry of a result?",
}
LIMITS_OF_AMOUNT = (
    "The same sums and products, up to rounding, but for a chance of collision, as long as "
    f"{FINITE}; first-order gradients. It says nothing of other amounts, nor of their place."
)
LIMITS = (
    "Closed-over arrays are as they are. The program is what JAX traced, not what XLA makes of it. "
    "It says nothing of the amount and the place of padding, nor of results that are wrong for any."
)
