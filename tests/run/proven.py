"""Queries about several tensors or networks that hold by a margin, so that what is found has a certificate."""

from __future__ import annotations

from tests.run.conformance import BOTH, COPY, HIDDEN, NAMED, ONE, OTHER, SAME, TWO, F, G, box

EACH = box("U[0,0]", "U[0,1]")
# What is written, and the files of the networks by their names.
PROVEN: dict[str, tuple[str, dict[str, str]]] = {
    "two inputs": (TWO + BOTH + "(assert (>= A[0] 1.5))(assert (> D[0] 0.75))", {"f": "two"}),
    "by name": (NAMED + BOTH + "(assert (> D[1] 1.75))(assert (< S[1] 0.5))", {"f": "two"}),
    "hidden": (HIDDEN.replace("NODE", "first") + ONE + "(assert (> Z[0,0] 3.25))", {"f": "net"}),
    "hidden and output": (
        HIDDEN.replace("NODE", "a") + ONE + "(assert (> (+ Y[0,0] Z[0,2]) (+ Z[0,0] Z[0,1] 0.5)))",
        {"f": "net"},
    ),
    "input and output": (F + ONE + "(assert (<= (+ Y[0,0] 0.1) (* 2.5 X[0,0])))", {"f": "net"}),
    "ball": (
        F + ONE + "(assert (<= (+ (* X[0,0] X[0,0]) (* X[0,1] X[0,1])) 0.25))(assert (>= Y[0,0] 3.5))",
        {"f": "net"},
    ),
    "two networks": (F + OTHER + ONE + EACH + "(assert (> (- Y[0,0] V[0,0]) 5.75))", {"f": "net", "g": "near"}),
    "isomorphic": (
        F + G + ONE + SAME + "(assert (or (> (- Y[0,0] V[0,0]) 0.5) (< (- Y[0,0] V[0,0]) -0.5)))",
        {"f": "net", "g": "near"},
    ),
    "monotone": (
        F + COPY + ONE + EACH + "(assert (== X[0,1] U[0,1]))(assert (<= X[0,0] U[0,0]))"
        "(assert (> (- Y[0,0] V[0,0]) 1.0))",
        {"f": "net"},
    ),
    "products": (
        F + COPY + ONE + EACH + "(assert (< (+ (* Y[0,0] V[0,0] X[0,1]) (* X[0,0] X[0,0])) -40.0))",
        {"f": "net"},
    ),
    "equal in other ways": (
        F + OTHER + ONE + EACH + "(assert (== X[0,0] U[0,0]))(assert (or (> (- Y[0,0] V[0,0]) 6)"
        " (and (== X[0,1] U[0,1]) (< (+ Y[0,0] V[0,0]) -1))))",
        {"f": "net", "g": "near"},
    ),
    "never otherwise": (F + COPY + ONE + SAME + "(assert (or (!= Y[0,0] V[0,0]) (> Y[0,0] 6)))", {"f": "net"}),
}
