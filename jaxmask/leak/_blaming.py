"""From what changed to the lines that are to blame."""

from collections.abc import Iterator

from jaxmask.leak._findings import HINTS, Finding, Witness, hint_of
from jaxmask.leak._layouts import Layout, layouts
from jaxmask.leak._lockstep import Culprit, Lockstep, Side
from jaxmask.leak._padding import Padding, copies, paddings
from jaxmask.leak._proof.causes import Place
from jaxmask.leak._proof.proof import Proof
from jaxmask.leak._proof.prove import Proofs
from jaxmask.leak._proof.words import in_words

MOST = 3  # how many ways to see a leak are followed


class Blame:
    """Finds the lines of a function that explain what changed.

    Attributes:
      outside: the first line that looks up padding outside of an array, where the result is nan.
    """

    def __init__(self, proofs: Proofs, proof: Proof | None):
        self.subject, self.proofs, self.proof = proofs.inputs, proofs, proof
        self.outside: Place | None = None

    def __call__(self, move: str, witnesses: list[Witness]) -> list[Finding]:
        """A finding for each line that moves one of the arrays, in the order of the program."""
        if all(witness.of_gradient for witness in witnesses):
            return list(self._from_proof(witnesses)) if move == "" else []
        found: dict[object, Finding] = {}
        explained: set[str] = set()
        for under in self._ways(move, witnesses)[:MOST]:
            if {w.where for w in witnesses} <= explained:
                break
            mine = [w for w in witnesses if w.where not in explained]
            try:
                new = list(self._followed(move, under, mine))
            except Exception:  # the two programs differ in more than their shapes
                continue
            found |= {finding.place: finding for finding in new if finding.place not in found}
            explained |= {name for finding in new for name in finding.reaches}
        left = [w for w in witnesses if w.where not in explained and not w.of_gradient]
        moved = self._from_proof(left) if move == "" else ()
        return [*found.values(), *(f for f in moved if f.place not in found)]

    def _ways(self, move: str, witnesses: list[Witness]) -> list[str]:
        """What was done to the padding, the most harmless first."""
        ways = {witness.under: witness for witness in witnesses if not witness.text}

        def harm(under: str) -> tuple[bool, bool]:
            return ways[under].difference == float("inf"), "noise" not in under

        return sorted(ways, key=harm)

    def _followed(self, move: str, under: str, witnesses: list[Witness]) -> Iterator[Finding]:
        first, second, same = self._runs(move, under)
        lockstep = Lockstep(first, second, known_mask=same)
        names = [slot.where for slot in first.traced.slots]
        culprits = lockstep.run()
        self.outside = self.outside or lockstep.outside
        for culprit in culprits:
            yield _finding(culprit, names, witnesses if culprit is culprits[0] else [])

    def _runs(self, move: str, under: str) -> tuple[Side, Side, bool]:
        """The harmless run and the other, and whether only the contents of the padding differ."""
        given = Layout("", "", self.subject.x.arrays, self.subject.marks)
        moves = (move,) if move in OTHER else ()
        for layout in layouts(given.x, given.marks, self.subject.max_segments, moves):
            if layout.move == move:
                for padding in paddings(layout.x, layout.real, as_given=move == ""):
                    if under.endswith(", ".join(filter(None, (layout.name, padding.name)))):
                        return self._side(layout), self._side(layout, padding), True
                if layout.name == under and move == "append":
                    return self._side(given), self._side(layout), False
        raise LookupError(under)

    def _side(self, layout: Layout, padding: Padding | None = None) -> Side:
        x = padding.x if padding else [copies(leaf, layout.real) for leaf in layout.x]
        return Side(self.proofs.at(x, layout.marks), self.proofs.values(layout.x, layout.marks))

    def _from_proof(self, witnesses: list[Witness]) -> Iterator[Finding]:
        """The lines that a proof names: of gradients, and where padding is moved to real steps."""
        left = list(witnesses)
        for cause in self.proof.blame if self.proof else ():
            mine = [w for w in left if f"{w.what} of {w.where}" in cause.reaches]
            if not mine or not cause.place:
                continue
            what, mend = HINTS[hint_of(mine)]
            if not mine[0].of_gradient and cause.what and all(w.what != "mask" for w in mine):
                what, mend = cause.what, f"Use {cause.mend}."
            reaches = tuple(dict.fromkeys(w.where for w in mine))
            yield Finding(what, mend, cause.place, reaches=reaches, witnesses=tuple(mine))
            left = [w for w in left if w not in mine]


OTHER = ("left", "holes", "empty")  # not "permute", in which no row keeps its place


def _finding(culprit: Culprit, names: list[str], witnesses: list[Witness]) -> Finding:
    what, mend = in_words(culprit.primitives, culprit.primitives_on_line, of_batch=culprit.of_batch)
    if witnesses and all(w.difference == float("inf") for w in witnesses):
        what, mend = HINTS["multiply"]
    elif not what:
        what, mend = HINTS[hint_of(witnesses) if witnesses else "value"]
    else:
        mend = f"Use {mend}."
    moved = [_moved(names[place], amount) for place, amount in culprit.moved.items()]
    reaches = tuple(names[place] for place in culprit.moved)
    return Finding(what, mend, culprit.place, "; ".join(moved[:3]), reaches, tuple(witnesses))


def _moved(name: str, amount: float) -> str:
    return f"{name} to nan" if amount == float("inf") else f"{name} by up to {amount:.3g}"
