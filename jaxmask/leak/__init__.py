"""Prove or test that padding does not leak through a function.

    jm.leak.prove(fn, x, mask)                     # for all values, at these shapes
    jm.leak.assert_padding_invariant(fn, x, mask)  # poison it, append more, move it, and compare

A proof says what it claims, and a test which shapes, masks and contents of the padding it tried.
"""

from jaxmask._report import Report
from jaxmask.leak._checking import assert_padding_invariant, check
from jaxmask.leak._findings import Finding, LeakError, LeakReport, Witness
from jaxmask.leak._locating import Location, locate
from jaxmask.leak._proof.causes import Place
from jaxmask.leak._proof.proof import Cause, ClaimReport, Link, Proof
from jaxmask.leak._proof.prove import assert_causal, assert_rows_independent, prove

__all__ = [
    "Cause",
    "ClaimReport",
    "Finding",
    "LeakError",
    "LeakReport",
    "Link",
    "Location",
    "Place",
    "Proof",
    "Report",
    "Witness",
    "assert_causal",
    "assert_padding_invariant",
    "assert_rows_independent",
    "check",
    "locate",
    "prove",
]
__dir__ = __all__.copy
