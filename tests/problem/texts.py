"""Beginnings of VNN-LIB files that the tests complete."""

DECLARED = """; two inputs, two outputs
(declare-const X_0 Real)
(declare-const X_1 Real)
(declare-const Y_0 Real)
(declare-const Y_1 Real)
"""
BOUNDED = (
    DECLARED
    + """(assert (>= X_0 -0.5))
(assert (<= X_0 0.5))
(assert (>= X_1 0))
(assert (<= X_1 1))
"""
)
NETWORK = """(vnnlib-version <2.0>)
(declare-network net (declare-input X float32 [1,2]) (declare-output Y float32 [2]))
"""
BOUNDED_2 = (
    NETWORK
    + """(assert (>= X[0,0] -0.5))
(assert (<= X[0,0] 0.5))
(assert (>= X[0,1] 0.0))
(assert (<= X [0, 1] 1.0))
"""
)
