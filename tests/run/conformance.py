"""Queries of VNN-LIB 2.0, one for each construct, with the right answers; and the networks that they are about.

``net`` is y = relu(p) + relu(q) - relu(r) + 1/4 of p = a + 2b, q = 3a - b + 1/2, r = (a + b)/2 - 1; ``near`` has 1.01 a
in p. ``two`` has inputs s and t and gives relu(s + t) and s - t. All numbers are exact in float32, but 1.01.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tests.run.files import model, node, save, tensor

VERSION = "(vnnlib-version <2.0>)\n"
F = "(declare-network f (declare-input X float32 [1,2]) (declare-output Y float32 [1,1]))\n"
REAL = F.replace("float32", "real")
G = "(declare-network g (isomorphic-to f) (declare-input U float32 [1,2]) (declare-output V float32 [1,1]))\n"
COPY = G.replace("isomorphic-to", "equal-to")
OTHER = G.replace("(isomorphic-to f) ", "")
HIDDEN = (
    '(declare-network f (declare-input X float32 [1,2]) (declare-hidden Z float32 [1,3] "NODE")'
    " (declare-output Y float32 [1,1]))\n"
)
TWO = (
    "(declare-network f (declare-input S float32 [2]) (declare-input T float32 [2])"
    " (declare-output A float32 [2]) (declare-output D float32 [2]))\n"
)
NAMED = (
    '(declare-network f (declare-input T float32 [2] "t") (declare-input S float32 [2] "s")'
    ' (declare-output D float32 [2] "d") (declare-output A float32 [2] "a"))\n'
)


def box(*names: str) -> str:
    """Between -1 and 1."""
    return "".join(f"(assert (>= {name} -1.0))(assert (<= {name} 1.0))\n" for name in names)


ONE = box("X[0,0]", "X[0,1]")
SAME = "(assert (== X[0,0] U[0,0]))(assert (== U[0,1] X[0,1]))\n"
BOTH = box("S[0]", "S[1]", "T[0]", "T[1]")

# What is written, the files of the networks by their names, and the answer.
QUERIES: dict[str, tuple[str, dict[str, str], str]] = {
    # comparisons, at the very end of what is possible: Y is 0.25 at least, and 0.25 + 3 + 2.5 at a = b = 1
    "at most": (F + ONE + "(assert (<= Y[0,0] 0.25))", {"f": "net"}, "sat"),
    "less": (F + ONE + "(assert (< Y[0,0] 0.25))", {"f": "net"}, "unsat"),
    "at least": (F + ONE + "(assert (>= Y[0,0] 5.75))", {"f": "net"}, "sat"),
    "greater": (F + ONE + "(assert (> Y[0,0] 5.75))", {"f": "net"}, "unsat"),
    "equal": (F + ONE + "(assert (== Y[0,0] 5.75))", {"f": "net"}, "sat"),
    "equal, impossible": (F + ONE + "(assert (== Y[0,0] 5.7500001))", {"f": "net"}, "unsat"),
    "not equal": (F + ONE + "(assert (!= Y[0,0] 0.25))(assert (<= Y[0,0] 0.25))", {"f": "net"}, "unsat"),
    "equal to no float": (REAL + ONE + "(assert (== Y[0,0] 0.3))", {"f": "net"}, "sat"),
    "strict inputs": (F + ONE + "(assert (> X[0,0] 0.5))(assert (< X[0,0] 0.5))", {"f": "net"}, "unsat"),
    # connectives
    "and": (F + ONE + "(assert (and (<= Y[0,0] 1.0) (>= X[0,0] 0.5)))", {"f": "net"}, "unsat"),
    "or": (F + ONE + "(assert (or (> Y[0,0] 5.75) (<= Y[0,0] 0.25)))", {"f": "net"}, "sat"),
    "nested": (F + ONE + "(assert (or (and (or (< Y[0,0] 0.0)) (and (== 1 1))) (> 0 1)))", {"f": "net"}, "unsat"),
    "union of boxes": (
        F + "(assert (or (and (>= X[0,0] 0)(<= X[0,0] 0)(>= X[0,1] 0)(<= X[0,1] 0)) (and (>= X[0,0] 1)(<= X[0,0] 1)"
        "(>= X[0,1] 1)(<= X[0,1] 1))))(assert (and (> Y[0,0] 0.75) (< Y[0,0] 5.75)))",
        {"f": "net"},
        "unsat",
    ),
    # arithmetic
    "negation": (F + ONE + "(assert (<= (- Y[0,0]) -5.75))", {"f": "net"}, "sat"),
    "subtraction from the left": (F + ONE + "(assert (>= (- Y[0,0] 1 2 3) -0.25))", {"f": "net"}, "sat"),
    "sum": (F + ONE + "(assert (> (+ Y[0,0] X[0,0] X[0,1]) 7.75))", {"f": "net"}, "unsat"),
    "scaled": (F + ONE + "(assert (>= (* 2 0.5 Y[0,0]) 5.75))", {"f": "net"}, "sat"),
    "product of inputs": (F + ONE + "(assert (>= (* X[0,0] X[0,1]) 1.1))", {"f": "net"}, "unsat"),
    "product, possible": (
        F + ONE + "(assert (>= (* X[0,0] X[0,1]) 0.5))(assert (<= Y[0,0] 0.8))",
        {"f": "net"},
        "sat",
    ),
    "cube": (F + ONE + "(assert (>= (* X[0,0] X[0,0] X[0,1]) 1.1))", {"f": "net"}, "unsat"),
    # products at the very end of what is possible
    "product, at most": (F + ONE + "(assert (> (* X[0,0] X[0,1]) 1.0))", {"f": "net"}, "unsat"),
    "product, the most": (F + ONE + "(assert (>= (* X[0,0] X[0,1]) 1.0))", {"f": "net"}, "sat"),
    "square of an output": (F + ONE + "(assert (> (* Y[0,0] Y[0,0]) 33.0625))", {"f": "net"}, "unsat"),
    "square inside": (
        F + ONE + "(assert (< (+ (* X[0,0] X[0,0]) (* X[0,1] X[0,1])) (* 2 X[0,0] X[0,1])))",
        {"f": "net"},
        "unsat",
    ),
    "on a circle": (F + ONE + "(assert (== (+ (* X[0,0] X[0,0]) (* X[0,1] X[0,1])) 1.0))", {"f": "net"}, "sat"),
    "a square at a third": (
        REAL + ONE + "(assert (<= (+ (* 9 X[0,0] X[0,0]) (* -6 X[0,0]) 1) (* 0 Y[0,0])))(assert (> X[0,1] 0.5))",
        {"f": "net"},
        "sat",
    ),
    "hidden product": (
        HIDDEN.replace("NODE", "a") + ONE + "(assert (< (* Z[0,0] Z[0,1] Z[0,2]) 0.0))",
        {"f": "net"},
        "unsat",
    ),
    "one of two is zero": (
        HIDDEN.replace("NODE", "a") + ONE + "(assert (!= (* Z[0,0] (- Z[0,0] (+ X[0,0] (* 2 X[0,1])))) 0.0))",
        {"f": "net"},
        "unsat",
    ),
    "circle": (
        F + ONE + "(assert (<= (+ (* X[0,0] X[0,0]) (* X[0,1] X[0,1])) 0.25))(assert (>= Y[0,0] 3.5))",
        {"f": "net"},
        "unsat",
    ),
    "products that cancel": (
        F + ONE + "(assert (> (- (* X[0,0] Y[0,0]) (* Y[0,0] X[0,0])) 0))",
        {"f": "net"},
        "unsat",
    ),
    # relations of inputs and outputs
    "polytope": (F + ONE + "(assert (<= (+ X[0,0] X[0,1]) -1.5))(assert (> Y[0,0] 0.25))", {"f": "net"}, "unsat"),
    "input and output": (F + ONE + "(assert (< Y[0,0] (* 2.5 X[0,0])))", {"f": "net"}, "unsat"),
    "bounded by another": (
        F + box("X[0,0]") + "(assert (== X[0,1] X[0,0]))(assert (> Y[0,0] 5.75))",
        {"f": "net"},
        "unsat",
    ),
    "unbounded": (F + "(assert (< Y[0,0] 0.0))(assert (<= (+ X[0,0] X[0,1]) 2.0))", {"f": "net"}, "unsat"),
    "no assertion about outputs": (F + ONE, {"f": "net"}, "sat"),
    # several inputs and outputs
    "two inputs": (TWO + BOTH + "(assert (> A[0] 1.5))(assert (> D[0] 0.25))", {"f": "two"}, "sat"),
    "two inputs, impossible": (TWO + BOTH + "(assert (>= A[0] 1.5))(assert (> D[0] 0.5))", {"f": "two"}, "unsat"),
    "by name": (NAMED + BOTH + "(assert (> D[1] 1.5))(assert (< S[1] 0.5))", {"f": "two"}, "unsat"),
    # hidden nodes
    "hidden": (HIDDEN.replace("NODE", "a") + ONE + "(assert (>= Z[0,0] 3.0))", {"f": "net"}, "sat"),
    "hidden, impossible": (HIDDEN.replace("NODE", "a") + ONE + "(assert (> Z[0,0] 3.0))", {"f": "net"}, "unsat"),
    "hidden, by the node": (HIDDEN.replace("NODE", "first") + ONE + "(assert (< Z[0,0] -2.5))", {"f": "net"}, "sat"),
    "hidden and output": (
        HIDDEN.replace("NODE", "a") + ONE + "(assert (> (+ Y[0,0] Z[0,2]) (+ Z[0,0] Z[0,1] 0.25)))",
        {"f": "net"},
        "unsat",
    ),
    # several networks
    "two networks": (
        F + OTHER + ONE + box("U[0,0]", "U[0,1]") + "(assert (> (- Y[0,0] V[0,0]) 5.5))",
        {"f": "net", "g": "near"},
        "unsat",
    ),
    "isomorphic": (
        F + G + ONE + SAME + "(assert (or (> (- Y[0,0] V[0,0]) 0.0100001) (< (- Y[0,0] V[0,0]) -0.0100001)))",
        {"f": "net", "g": "near"},
        "unsat",
    ),
    "isomorphic, different": (
        F + G + ONE + SAME + "(assert (< (- Y[0,0] V[0,0]) -0.009))",
        {"f": "net", "g": "near"},
        "sat",
    ),
    "a function": (F + COPY + ONE + SAME + "(assert (!= Y[0,0] V[0,0]))", {"f": "net"}, "unsat"),
    "monotone": (
        F + COPY + ONE + box("U[0,0]", "U[0,1]") + "(assert (== X[0,1] U[0,1]))(assert (<= X[0,0] U[0,0]))"
        "(assert (> Y[0,0] V[0,0]))",
        {"f": "net"},
        "unsat",
    ),
    "near inputs": (
        F + COPY + ONE + "(assert (<= (- X[0,0] U[0,0]) 0.125))(assert (>= (- X[0,0] U[0,0]) -0.125))"
        "(assert (== X[0,1] U[0,1]))(assert (>= (- Y[0,0] V[0,0]) 0.5))",
        {"f": "net"},
        "sat",
    ),
    "products of two networks": (
        F + COPY + ONE + box("U[0,0]", "U[0,1]") + "(assert (< (* Y[0,0] V[0,0]) 0.0))",
        {"f": "net"},
        "unsat",
    ),
}


def files(folder: Path) -> dict[str, Path]:
    """The networks."""
    found = {}
    for name, slope in (("net", 1.0), ("near", 1.01)):
        weights = {
            "w": [[slope, 2.0], [3.0, -1.0], [0.5, 0.5]],
            "b": [0.0, 0.5, -1.0],
            "v": [[1.0, 1.0, -1.0]],
            "c": [0.25],
        }
        constants = {key: np.asarray(value, np.float32) for key, value in weights.items()}
        nodes = [
            node("Gemm", "x", "w", "b", "z", name="first", transB=1),
            node("Relu", "z", "a"),
            node("Gemm", "a", "v", "c", "y", transB=1),
        ]
        graph = model(nodes, constants, [tensor("x", [1, 2])], [tensor("y", [1, 1])])
        found[name] = save(graph, folder / f"{name}.onnx")
    nodes = [node("Add", "s", "t", "u"), node("Relu", "u", "a"), node("Sub", "s", "t", "d")]
    ends = [tensor("s", [2]), tensor("t", [2])], [tensor("a", [2]), tensor("d", [2])]
    found["two"] = save(model(nodes, {}, *ends), folder / "two.onnx")
    return found
