"""What the checker's reader of ONNX files does not model exactly it refuses, and says what it met."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from tests.certificate.files import (
    F32,
    F64,
    HALVES,
    IMAGE,
    INF,
    INT64,
    ML,
    TRUE,
    branch,
    call,
    chosen,
    computed,
    edited,
    file,
    function,
    i8,
    one,
    quantised,
    with_functions,
)  # fmt: skip
from tests.run.files import tensor

from krelax.certificate.onnx.reader import read_network
from krelax.errors import InputError, UnsupportedError

MASK = F32([0, -INF])
RELU = call("Relu", "p", "q")
SCALES: dict[str, Any] = {"s": F32(0.5), "z": np.int8(0)}

REFUSED: dict[str, tuple[bytes, str]] = {
    # --- operands
    "an operand that is left out": (one("Add", None), "operand 1 is missing"),
    "a scale that is left out": (one("BatchNormalization", None, F32([1, 1]), F32([1, 1]), F32([1, 1])), "is missing"),
    "a bound of two numbers": (one("Clip", HALVES), "not one number"),
    "axes of two axes": (one("Unsqueeze", np.int64([[0]])), "not of one axis"),
    "computed bounds of two numbers": (computed(call("Clip", "x k")), "a limit of shape"),
    "bounds of two numbers that depend on the input": (
        file([call("Mul", "x x", "t"), call("Clip", "x t")]), "a limit of shape"),
    "a computed constant as a slope": (computed(call("PRelu", "x k")), "computed constant that is rounded"),
    "a choice of a computed constant": (
        computed(call("Where", "t x k"), t=np.array([True, False])), "beyond its type"),
    "a mask that is clipped": (
        file([call("Add", "x m", "t"), call("Relu", "t")], {"m": MASK}), "which only a softmax that follows"),
    "two types of operands": (one("Max", F64([1, 2])), "operand 1 of type float64|operands of"),
    # --- affine operators
    "a mask of another type": (
        file([call("Cast", "x", "t", to=11), call("Add", "t m", "u"), call("Softmax", "u")], {"m": MASK}),
        "minus infinity in arithmetic other than a mask"),
    "a factor that is too small": (one("Mul", F64([1e-300, 1])), "operand 1 of type"),
    "scales of another size": (
        one("BatchNormalization", *[F32([1, 1, 1])] * 4, shape=IMAGE), "parameters that do not fit a tensor"),
    "a bias that does not fit": (one("Gemm", np.eye(2, dtype=F32), np.ones((3, 2), F32)), "a bias of shape"),
    "a computed bias with beta": (
        computed(call("Gemm", "x w k", beta=0.5), w=np.eye(2, dtype=F32)), "computed of constants, with beta"),
    "a bias of two matrices that does not fit": (
        file([call("Gemm", "x x c", transB=1)], {"c": np.ones((3, 1), F32)}), "a bias of shape"),
    "two matrices with beta": (
        file([call("Gemm", "x x c", transB=1, beta=0.5)], {"c": F32([1])}), "that depend on the input, with"),
    "Gemm of a vector": (one("Gemm", np.eye(2, dtype=F32), shape=(2,)), "not two matrices"),
    "a sum of constants of integers": (
        file([call("Sum", "a a", "c"), call("Cast", "c", "d", to=1), call("Add", "x d")], {"a": i8(1, 2)}),
        "operands that are all constant"),
    "the mean of a vector's pixels": (one("GlobalAveragePool"), "a tensor of shape"),
    "the largest of a vector's pixels": (one("GlobalMaxPool"), "a tensor of shape"),
    # --- casts
    "a cast of a computed constant": (
        computed(call("Cast", "k", "h", to=10), call("Mul", "x h")), "a cast of a computed constant"),
    # --- activations of several operands
    "maxima of shapes of old": (one("Max", F32([1]), opset=7), "before version 8"),
    "slopes that do not fit": (one("PRelu", np.ones((3, 2), F32)), "slopes of shape"),
    "an ELU that is no curve": (one("Elu", alpha=-1.0), "parameters are not positive"),
    "a shrinkage without a limit": (one("Shrink", lambd=-1.0), "a shrinkage with a limit"),
    "a power of nearly one": (file([call("Pow", "c x")], {"c": F32(1)}), "not positive, or nearly one"),
    # --- compositions
    "minus infinity in the logarithm of a softmax": (
        file([call("Add", "x m", "t"), call("LogSoftmax", "t")], {"m": MASK}), "or in its logarithm"),
    "nothing but minus infinity": (
        file([call("Add", "x m", "t"), call("Softmax", "t")], {"m": F32([-INF, -INF])}), "nothing but minus infinity"),
    "a negative epsilon": (one("LayerNormalization", HALVES, epsilon=-1.0), "a negative epsilon"),
    "a shift that does not fit": (one("LayerNormalization", np.ones((3, 2), F32)), "a scale or shift of shape"),
    "groups that do not divide": (
        one("GroupNormalization", HALVES, HALVES, shape=IMAGE, opset=21, num_groups=3), "3 groups of channels"),
    "a normalisation of a vector": (
        one("InstanceNormalization", HALVES, HALVES, shape=(2,)), "a normalisation of a tensor of shape"),
    "a scale of other channels": (
        one("InstanceNormalization", F32([1, 1, 1]), HALVES, shape=IMAGE), "a scale or shift of shape"),
    # --- constants
    "indices that depend on the input": (
        file([call("Cast", "x", "i", to=7), call("Gather", "c i")], {"c": HALVES}), "not a constant of numbers"),
    "scales for another axis": (
        file([call("DequantizeLinear", "w s", "d", axis=0), call("MatMul", "x d")],
             {"w": np.ones((2, 2), np.int8), "s": F32([1, 2, 3])}), "scales of shape"),
    "weights of another kind": (
        file([call("DequantizeLinear", "w s z", "d"), call("MatMul", "x d")],
             {"w": np.ones((2, 2), np.int8), "s": F32(1), "z": np.int8([0, 0])}), "zero points of another shape"),
    "stored weights that are large": (
        file([call("DequantizeLinear", "w s", "d"), call("MatMul", "x d")],
             {"w": np.full((2, 2), 1 << 30, np.int32), "s": F32(1)}), "beyond 2"),
    "a constant of no shape": (
        file([call("ConstantOfShape", "s", "c"), call("Add", "x c")], {"s": i8(-1)}), "a constant of shape"),
    "a range of several ends": (
        file([call("Range", "a b b", "c"), call("Cast", "c", "d", to=1), call("Add", "x d")],
             {"a": i8(0, 1), "b": np.array(1)}), "a range without ends"),
    "a range that never ends": (
        file([call("Range", "a b z", "c"), call("Cast", "c", "d", to=1), call("Add", "x d")],
             {"a": np.array(0), "b": np.array(1), "z": np.array(0)}), "a range from 0 to 1"),
    "a range over all integers": (
        file([call("Range", "a b o", "c"), call("Cast", "c", "d", to=1), call("Add", "x d")],
             {"a": np.array(-(2**63)), "b": np.array(2**63 - 1), "o": np.array(1)}), "a range from -"),
    "a remainder of floats": (
        file([call("Mod", "a b", "c"), call("Add", "x c")], {"a": HALVES, "b": HALVES}), "a remainder of floats"),
    "a remainder without fmod": (one("Mod", HALVES), "without fmod"),
    "a remainder of a division by zero": (
        file([call("Mod", "a b", "c"), call("Cast", "c", "d", to=1), call("Add", "x d")],
             {"a": i8(1, 2), "b": i8(0, 1)}), "division by zero"),
    "constants of two types": (
        file([call("Less", "a b", "c"), call("Cast", "c", "d", to=1), call("Add", "x d")],
             {"a": HALVES, "b": F64([1, 2])}), "operands of types"),
    "a division by a zero that is constant": (
        file([call("Div", "a b", "c"), call("Add", "x c")], {"a": HALVES, "b": F32([0, 1])}), "division by zero"),
    "a result of constants beyond all numbers": (
        file([call("Mul", "a a", "c"), call("Mul", "c c", "d"), call("Mul", "d d", "e"), call("Mul", "x e")],
             {"a": F64([1e200, 1])}, kind=11), "too large|not finite"),
    "a product of constants that does not fit": (
        file([call("MatMul", "a b", "c"), call("Add", "x c")], {"a": HALVES, "b": F32([1, 2, 3])}), "of shapes"),
    # --- contractions
    "a product that does not fit": (
        file([call("Mul", "x x", "t"), call("MatMul", "x t")]), "a product of shapes"),
    "a sum along no axis": (one("CumSum", i8(0, 1)), "no axis"),
    "an equation of three operands": (one("Einsum", HALVES, equation="ij"), "equation"),
    "an equation of other axes": (one("Einsum", HALVES, equation="ijk,j->ij"), "equation"),
    "an equation with an axis twice": (one("Einsum", HALVES, equation="ij,j->ii"), "an axis twice"),
    "an equation that does not fit": (one("Einsum", F32([1, 2, 3]), equation="ij,j->ij"), "axes|shapes"),
    # --- windows
    "pads that do not fit": (one("Pad", i8(0, 1, 0), opset=17), "pads"),
    "negative pads of integers": (
        file([call("Pad", "i p", "j"), call("Cast", "j", "d", to=1), call("Add", "x d")],
             {"i": i8(1, 2, 3), "p": i8(-1, 0)}), "pads"),
    "windows of another rank": (one("MaxPool", shape=IMAGE, kernel_shape=[2]), "windows of"),
    "a bias of other channels": (
        one("Conv", np.ones((3, 2, 1, 1), F32), HALVES, shape=IMAGE), "a bias of shape"),
    "a convolution of a matrix": (one("Conv", np.ones((3, 2, 1, 1), F32)), "a convolution of"),
    "an output_shape of another rank": (
        one("ConvTranspose", np.ones((2, 1, 2, 2), F32), shape=IMAGE, output_shape=[5]), "output_shape"),
    "a mean of padding": (
        one("AveragePool", shape=(1, 1, 2, 2), opset=19, kernel_shape=[2, 2], dilations=[3, 3], pads=[1, 1, 1, 1]),
        "wholly in the padding|beyond|begins"),
    "a maximum of padding": (
        one("MaxPool", shape=(1, 1, 2, 2), kernel_shape=[2, 2], dilations=[3, 3], pads=[1, 1, 1, 1]),
        "wholly in the padding|beyond|begins"),
    "a pool without a kernel": (one("LpPool", shape=IMAGE), "no kernel_shape"),
    "a pool of a matrix": (one("LpPool", kernel_shape=[1]), "windows of"),
    "channels around none": (one("LRN", size=0, shape=IMAGE), "a normalisation by 0 channels"),
    "a norm below one": (one("LpPool", shape=IMAGE, kernel_shape=[2, 2], p=0), "a norm of order"),
    "a scale with a negative epsilon": (
        one("RMSNormalization", HALVES, opset=23, epsilon=-1.0), "a negative epsilon|not supported"),
    "samples far away": (
        one("GridSample", np.full((1, 1, 1, 2), 1e9, F32), shape=IMAGE), "samples at places beyond"),
    "samples halfway between pixels": (
        one("GridSample", np.zeros((1, 1, 1, 2), F32), shape=IMAGE, mode="nearest"), "halfway between two pixels"),
    "blocks of another rank": (
        one("Col2Im", i8(4, 4), i8(2), shape=(1, 4, 9), opset=18), "blocks of shape"),
    # --- choices
    "a conjunction of numbers": (
        file([call("And", "a a", "b"), call("Cast", "b", "d", to=1), call("Add", "x d")], {"a": i8(1, 0)}),
        "not bool"),
    "a conjunction of a number and a truth": (
        file([call("Greater", "x c", "t"), call("And", "t n", "b"), call("Cast", "b", "y", to=1)],
             {"c": HALVES, "n": i8(1, 0)}), "no truths|not bool"),
    "a choice by numbers": (
        file([call("Greater", "x c", "t"), call("Where", "t x d")], {"c": HALVES, "d": F64([1, 2])}), "types|choice"),
    # --- moves
    "repeats of another rank": (one("Tile", i8(2)), "repeats"),
    "indices of other entries": (one("GatherND", np.array(0)), "indices for a tensor"),
    "indices of too many axes": (one("GatherND", np.zeros((1, 3), INT64)), "indices of shape"),
    "indices beyond a tensor": (one("GatherND", np.int64([[0, 7]])), "indices beyond a tensor"),
    "indices of another rank": (one("GatherElements", i8(0)), "indices for a tensor"),
    "indices beyond an axis": (one("GatherElements", np.int64([[7]]), axis=1), "indices beyond an axis"),
    "indices of another shape": (one("GatherElements", np.int64([[0], [0]]), axis=1), "indices of shape"),
    "blocks that do not divide": (one("SpaceToDepth", shape=(1, 1, 3, 3), blocksize=2), "blocks of 2"),
    "a condition of two axes": (one("Compress", np.array([[True, False]])), "a condition for a tensor"),
    "a triangle of a vector": (one("Trilu", shape=(2,)), "a triangle of a tensor"),
    "a choice of minus infinity and numbers": (
        file([call("Where", "t x m", "u"), call("Softmax", "u")], {"t": np.array([True, False]), "m": MASK}),
        "beside other numbers"),
    "a choice that minus infinity repeats": (
        file([call("Where", "t x m", "u"), call("Softmax", "u")],
             {"t": np.array([True, False]), "m": np.full((3, 2), -INF, F32)}), "that minus infinity repeats"),
    "a choice of two types": (
        file([call("Where", "t x m")], {"t": np.array([True, False]), "m": F64([1, 2])}), "operands of several types"),
    # --- learned ones
    "features of another number": (
        one("Scaler", domain=ML, offset=[0.0, 0.0, 0.0], scale=[1.0]), "offsets 3 and scales 1"),
    "coefficients of another number": (
        one("LinearRegressor", domain=ML, coefficients=[1.0], intercepts=[0.0], targets=1), "1 coefficients"),
    "scores of other labels": (
        one("LinearClassifier", domain=ML, outputs="l y", coefficients=[1.0] * 6, intercepts=[0.0, 0.0],
            classlabels_ints=[0, 1, 2]), "2 scores for 3 labels"),
    # --- quantised ones
    "scales of another axis": (
        file([call("QuantizeLinear", "x s z", "q", axis=1), call("DequantizeLinear", "q s z", "y", axis=1)],
             {"s": F32([1, 2, 3]), "z": np.int8([0, 0, 0])}), "scales of shape"),
    "a grid without a scale": (
        file([call("QuantizeLinear", "x s z", "q"), call("DequantizeLinear", "q s z")],
             {"s": F32(-1), "z": np.int8(0)}), "not positive"),
    "a constant halfway on its grid": (
        file([call("QuantizeLinear", "c s z", "q"), call("DequantizeLinear", "q s z", "d"), call("Add", "x d")],
             {"c": F32([0.25]), **SCALES}), "halfway between two numbers"),
    # --- whole numbers
    "whole numbers of another type": (
        file([call("Cast", "x", "i", to=7), call("DequantizeLinear", "i s")], {"s": F32(1)}), "whole numbers of type"),
    "a product of whole numbers of another type": (
        file([call("Cast", "x", "i", to=7), call("MatMulInteger", "i w")], {"w": np.ones((2, 2), np.int8)}),
        "whole numbers of type"),
    "zero points of another number": (
        quantised(call("MatMulInteger", "q w p"), w=np.ones((2, 2), np.int8), p=np.int8([0, 0, 0])), "zero points"),
    "whole numbers of a matrix that are convolved": (
        quantised(call("ConvInteger", "q w"), w=np.ones((1, 1, 1), np.int8)), "other than an image"),
    "a kernel of whole numbers of another size": (
        quantised(call("ConvInteger", "q w", kernel_shape=[2, 2]), shape=IMAGE, w=np.ones((1, 2, 1, 1), np.int8)),
        "kernel_shape"),
    "a constant before whole numbers": (
        quantised(call("MatMulInteger", "w q"), w=np.ones((2, 1), np.int8)), "a constant matrix"),
    "a product with a negative scale": (
        quantised(call("QLinearMatMul", "q n z w s z s z"), n=F32(-1), w=np.ones((2, 2), np.int8)), "not positive"),
    "scales for each row of an activation": (
        quantised(call("QLinearMatMul", "q n v w s z s z"), n=HALVES, v=np.int8([0, 0]), w=np.ones((2, 2), np.int8)),
        "for each channel|zero points"),
    "a result on a grid of two zero points": (
        quantised(call("QLinearMatMul", "q s z w s z s v"), v=np.int8([0, 0]), w=np.ones((2, 2), np.int8)),
        "a result on a grid"),
    # --- others
    "a sum of shapes of old": (one("Sum", F32([[1]]), opset=7), "before version 8"),
    "a sum of two types": (file([call("Cast", "x", "d", to=11), call("Sum", "x d")]), "of several types"),
    "a product of two types": (
        file([call("Cast", "x", "d", to=11), call("MatMul", "x d")], shape=(2, 2)), "operands of types"),
    "a sum over a constant alone": (one("Einsum", np.eye(2, dtype=F32), equation="ij,jk->i"), "constant alone"),
    "windows that leave out entries": (
        one("MaxPool", shape=(1, 1, 4), kernel_shape=[1], strides=[2], auto_pad="SAME_UPPER"), "leave out entries"),
    "powers of many exponents": (one("Pow", np.linspace(1, 9, 200, dtype=F32), shape=(1, 200)), "exponents"),
    "computed slopes of another type": (
        computed(call("Cast", "x", "d", to=11), call("PRelu", "d k")), "operand 1 of type float32"),
    "computed bounds of another type": (
        computed(call("Cast", "x", "d", to=11), call("Clip", "d k")), "operand 1 of type float32"),
    "a sum of computed constants of two types": (
        computed(call("Add", "k e", "m"), call("Mul", "x m"), e=F64([1, 2])), "operands of types"),
    "a shape that depends on the input": (
        file([call("Cast", "x", "i", to=7), call("ConstantOfShape", "i", "c"), call("Add", "x c")]),
        "that depend on the input"),
    "a comparison of one": (
        file([call("Less", "a -", "c"), call("Cast", "c", "d", to=1), call("Add", "x d")], {"a": HALVES}), "missing"),
    "the opposite of nothing": (
        file([call("Not", "-", "c"), call("Cast", "c", "d", to=1), call("Add", "x d")]), "missing"),
    "whole numbers rounded down": (
        file([call("Floor", "i", "c"), call("Cast", "c", "d", to=1), call("Add", "x d")], {"i": i8(1)}),
        "operand of type"),
    "a size at which rounding decides": (
        one("Resize", None, None, i8(1, 10), shape=(1, 6), mode="nearest", nearest_mode="floor",
            coordinate_transformation_mode="asymmetric"), "rounding decides which is nearest"),
    # --- recurrences
    "a sequence of a matrix": (
        one("RNN", np.ones((1, 2, 2), F32), np.ones((1, 2, 2), F32), hidden_size=2), "not of three axes"),
    "another hidden_size": (
        one("RNN", np.ones((1, 2, 2), F32), np.ones((1, 2, 2), F32), shape=(2, 1, 2), hidden_size=3), "hidden_size 3"),
    "weights of another shape": (
        one("RNN", np.ones((1, 3, 2), F32), np.ones((1, 2, 2), F32), shape=(2, 1, 2), hidden_size=2), "of shapes"),
    "sequences of several lengths": (
        one("RNN", np.ones((1, 2, 2), F32), np.ones((1, 2, 2), F32), None, np.int32([1]), shape=(2, 1, 2),
            hidden_size=2), "sequences of several lengths"),
    "a state of another shape": (
        one("RNN", np.ones((1, 2, 2), F32), np.ones((1, 2, 2), F32), None, None, np.ones((1, 2, 2), F32),
            shape=(2, 1, 2), hidden_size=2), "a state of shape"),
    "too many activations": (
        one("RNN", np.ones((1, 2, 2), F32), np.ones((1, 2, 2), F32), shape=(2, 1, 2), hidden_size=2,
            activations=["Tanh", "Tanh"]), "2 activations"),
    "another activation": (
        one("LSTM", np.ones((1, 8, 2), F32), np.ones((1, 8, 2), F32), shape=(2, 1, 2), hidden_size=2,
            activations=["Tanh", "Tanh", "Tanh"]), "activations other than"),
    # --- resizing
    "scales of two axes": (one("Resize", None, np.ones((2, 2), F32)), "scales of shape"),
    "scales and sizes": (one("Resize", None, F32([1, 2]), i8(1, 4)), "scales and sizes"),
    "a smaller image of old": (
        one("Upsample", F32([1, 0.4]), shape=(1, 5), opset=9, mode="nearest"), "a smaller image before version 11"),
    # --- scattering
    "a number to put things into": (one("ScatterElements", i8(0), F32([1]), shape=()), "nothing to put at them"),
    "entries of another rank": (one("ScatterElements", i8(0), F32([1])), "indices of shape"),
    "places beyond an axis": (one("ScatterElements", np.int64([[7]]), F32([[1]]), axis=1), "indices beyond an axis"),
    "places of too many axes": (one("ScatterND", np.int64([[0, 0, 0]]), F32([1])), "indices of shape"),
    "entries of another shape": (one("ScatterND", np.int64([[0, 0]]), F32([1, 2])), "entries of shape"),
    "places that are computed": (
        file([call("OneHot", "x d v", "y")], {"d": np.array(2), "v": HALVES}), "places that depend on the input"),
    "a depth of two numbers": (
        file([call("OneHot", "i d v", "c"), call("Add", "x c")], {"i": i8(0), "d": i8(2, 2), "v": HALVES}), "a depth"),
    "places of what depends on the input": (one("NonZero"), "places that depend on the input"),
    "an identity of a vector": (
        file([call("EyeLike", "c", "e", dtype=1), call("Add", "x e")], {"c": HALVES}), "an identity of shape"),
    # --- shapes
    "two values of a constant": (
        file([call("Constant", "", "c", value_float=1.0, value_int=1), call("Add", "x c")]), "instead of one"),
    "dropout in training": (one("Dropout", None, TRUE), "dropout in training"),
    "a mask that is moved behind its sum": (
        file([call("Add", "x m", "t"), call("Transpose", "t", "u", perm=[1, 0]), call("Softmax", "u")], {"m": MASK}),
        "a move of minus infinities"),
    "two unknown sizes": (one("Reshape", i8(-1, -1)), "a target shape"),
    "a size of an axis that is not there": (one("Reshape", i8(1, 2, 0)), "copies more axes"),
    "an axis twice": (one("Transpose", perm=[0, 0]), "perm"),
    "no starts": (one("Slice", None, i8(1)), "no starts or ends|is missing"),
    "starts of another number": (one("Slice", i8(0, 0), i8(1)), "starts"),
    "parts with sizes": (
        file([call("Split", "x s", "a b", axis=1, num_outputs=2), call("Add", "a b")], {"s": i8(1, 1)}, opset=18),
        "num_outputs with sizes"),
    "parts of another number": (
        file([call("Split", "x", "a b", axis=1, num_outputs=3), call("Add", "a b")], opset=18), "num_outputs 3"),
    "a shape of nothing": (one("Expand", i8(0)), "a target shape"),
    "a join of two types": (one("Concat", F64([[1, 2]]), axis=0), "operands of several types"),
    "a join of other shapes": (one("Concat", F32([[1, 2, 3]]), axis=0), "operands of shapes"),
    # --- functions and branches
    "a function of ONNX's own domain": (with_functions(function(RELU), function(RELU, domain="")), "ONNX's own domain"),
    "two functions of one name": (with_functions(function(RELU), function(RELU)), "functions of the name"),
    "a function of another version": (with_functions(function(RELU, version=16)), "another version"),
    "a call with too many operands": (with_functions(function(RELU), inputs="x x"), "operands or results"),
    "a function that calls itself": (
        with_functions(function(call("mine", "p", "q", domain="here"))), "levels|nodes"),
    "an If of one branch": (chosen(then_branch=branch(call("Relu", "x", "z"))), "exactly two branches"),
    "an If of numbers": (chosen(then_branch=1, else_branch=2), "exactly two branches|no graphs"),
    "a condition that is no truth": (
        file([call("If", "c", then_branch=branch(call("Relu", "x", "z")), else_branch=branch(call("Neg", "x", "z")))],
             {"c": i8(1)}), "not one constant boolean"),
    "a branch with a result that is not there": (
        chosen(then_branch=branch(call("Relu", "x", "z"), result="q"), else_branch=branch(call("Neg", "x", "z"))),
        "not computed|missing|there is no"),
    # --- graphs
    "several outputs of one name": (
        edited(lambda m: m.graph.output.append(m.graph.output[0])), "several of the same name"),
    "inputs of one name": (
        edited(lambda m: m.graph.input.append(m.graph.input[0]), call("Add", "x x")), "inputs"),
    "an input of integers": (
        edited(lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 7)), "only float32 and float64"),
    "an input without a shape": (
        edited(lambda m: m.graph.input[0].type.tensor_type.ClearField("shape")), "an input without a shape"),
    "a sequence of tensors": (
        edited(lambda m: m.graph.output[0].type.sequence_type.elem_type.tensor_type.CopyFrom(
            m.graph.input[0].type.tensor_type)), "no tensor|none of floating"),
    "an axis of a negative size": (
        edited(lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[0], "dim_value", -1)), "negative"),
    "an overloaded operator": (edited(lambda m: setattr(m.graph.node[0], "overload", "o")), "overloaded"),
    "text of other bytes": (
        edited(lambda m: setattr(m.graph.node[0].attribute[0], "s", b"\xff"), call("Gelu", "x", approximate="none")),
        "not UTF-8"),
    "numbers here and elsewhere": (
        edited(lambda m: (setattr(m.graph.initializer[0], "data_location", 1), m.graph.initializer[0].external_data.add(
            key="location", value="c.bin")), call("Add", "x c"), constants={"c": HALVES}), "in another file and"),
    "a shape of a negative size": (
        edited(lambda m: m.graph.initializer[0].dims.__setitem__(0, -1), call("Add", "x c"), constants={"c": HALVES}),
        "shape"),
    "too many numbers in a list": (
        edited(lambda m: m.graph.initializer.append(onnx.TensorProto(
            name="c", data_type=1, dims=[2], float_data=[1, 2, 3])), call("Add", "x c")), "3 numbers for shape"),
    "a number that int8 does not hold": (
        edited(lambda m: m.graph.initializer.append(onnx.TensorProto(
            name="c", data_type=3, dims=[1], int32_data=[300])), call("Cast", "c", "d", to=1), call("Add", "x d")),
        "does not hold"),
    "a truth that is neither": (
        edited(lambda m: m.graph.initializer.append(onnx.TensorProto(
            name="c", data_type=9, dims=[1], raw_data=b"\x02")), call("Cast", "c", "d", to=1), call("Add", "x d")),
        "booleans other than 0 and 1"),
    # --- computed constants
    "a division by what is too small": (
        file([call("Div", "x c")], {"c": F64([1e-300, 1])}, kind=11), "too small or too large"),
    "a sum of two types that depend on the input": (
        file([call("Cast", "x", "d", to=11), call("Add", "x d")]), "operands of types float32 and float64"),
    "a division by what may be zero": (
        computed(call("Sub", "k k", "m"), call("Div", "x m")), "a computed constant that may be zero"),
    "a quotient of integers by zero": (
        file([call("Div", "a b", "c"), call("Cast", "c", "d", to=1), call("Add", "x d")], {"a": i8(1), "b": i8(0)}),
        "division by zero"),
    "a sum of bytes": (
        file([call("ReduceSum", "a", "c"), call("Cast", "c", "d", to=1), call("Add", "x d")],
             {"a": np.uint8([200, 100])}),
        "a sum of constants"),
    "a product of bytes": (
        file([call("ReduceProd", "a", "c"), call("Cast", "c", "d", to=1), call("Add", "x d")],
             {"a": np.uint8([20, 100])}),
        "a product of other integers"),
    "a result of constants that is not known": (
        file([call("Log", "c", "k"), call("Add", "x k")], {"c": F32([-1, 1])}), "operand 0 is constant"),
    "a result of constants beyond where a clip is none": (
        file([call("Clip", "c", "k", max=3.4028235e38), call("Add", "x k")], {"c": F64([1e39, 1])}, opset=10, kind=11),
        "operand 0 is constant"),
    "a comparison that depends on the input": (
        file([call("Equal", "x c", "t"), call("Cast", "t", "y", to=1)], {"c": HALVES}), "depends on the input"),
    "a conjunction with nothing": (
        file([call("Xor", "a -", "c"), call("Cast", "c", "d", to=1), call("Add", "x d")], {"a": np.array([True])}),
        "an operand is missing"),
    "sums of constants at places": (
        file([call("ScatterElements", "a i b", "c", reduction="add"), call("Cast", "c", "d", to=1), call("Add", "x d")],
             {"a": i8(1, 2), "i": i8(0), "b": i8(3)}, opset=16), "sums of constants at places"),
    "a choice between constants whose difference rounds": (
        file([call("Greater", "x c", "t"), call("Where", "t a b")], {"c": HALVES, "a": F32([1]), "b": F32([1e-30])}),
        "whose difference rounds"),
    "a choice by constants of what a mask hides": (
        file([call("Add", "x m", "t"), call("Where", "b t m", "u"), call("Softmax", "u")],
             {"m": MASK, "b": np.array([True, False])}), "a choice by constants alone"),
    "a product scaled by what is too large": (
        file([call("Mul", "x c", "t"), call("Mul", "x c", "u"), call("Mul", "t u")], {"c": F64([1e120])}, kind=11),
        "too small or too large"),
    "a clip that is scaled by what is too large": (
        file([call("Add", "x b", "t"), call("Relu", "t", "r"), call("Sub", "h r", "s"), call("Relu", "s", "q"),
              call("Sub", "h q", "u"), call("Mul", "x u")], {"b": F64(5e199), "h": F64(1e200)}, kind=11),
        "too small or too large"),
    "more entries than there are": (
        file([call("TopK", "x n", "v i"), call("Relu", "v")], {"n": i8(3)}), "3 of 2 entries"),
    # --- quantised ones
    "zero points that differ by odd numbers": (
        file([call("QuantizeLinear", "x s z", "q", axis=1), call("DequantizeLinear", "q s z", axis=1)],
             {"s": HALVES, "z": np.int8([0, 1])}), "differ by odd numbers"),
    "scales for each channel of a result": (
        quantised(call("QLinearMatMul", "q s z w s z h z", "r"), call("DequantizeLinear", "r s z"), h=HALVES,
                  w=np.ones((2, 2), np.int8)), "scales for each channel"),
    "whole numbers cast to a narrow type": (
        file([call("Cast", "x", "i", to=6), call("Cast", "i", "j", to=3), call("Cast", "j", "y", to=1)]),
        "a cast of whole numbers"),
    # --- contractions
    "a product with a stack that does not fit": (one("MatMul", np.ones((3, 3, 2), F32)), "a product of shapes"),
    "a diagonal of what is not square": (one("Einsum", shape=(2, 3), equation="ii->i"), "axes ii of an operand"),
    "a product of constants beside others": (
        file([call("Einsum", "a b x", equation="i,i,ji->ji")], {"a": HALVES, "b": HALVES}), "constants beside others"),
    # --- windows
    "a norm of a matrix's pixels": (one("GlobalLpPool"), "a pool of a tensor of shape"),
    "weights of an interpolation that cancel": (
        one("Resize", None, F32([1, 2]), shape=(1, 2), mode="cubic", cubic_coeff_a=4.0, exclude_outside=1,
            coordinate_transformation_mode="asymmetric"), "weights cancel"),
    "a swish of another slope": (one("Swish", opset=24, alpha=2.0), "an alpha other than 1"),
    # --- graphs
    "outputs of whole numbers": (
        edited(lambda m: (setattr(m.graph.output[0].type.tensor_type, "elem_type", 7),
                          m.graph.output.append(tensor("z", None, 7))),
               call("Cast", "x", to=7), call("Cast", "x", "z", to=7)), "2 outputs, none of floating-point numbers"),
    "constants that are inputs twice": (
        edited(lambda m: m.graph.input.extend([tensor("c", (2,))] * 2), call("Add", "x c"), constants={"c": HALVES}),
        "inputs of the same name"),
    "a result that is computed of itself": (
        file([call("Add", "x y", "t"), call("Relu", "t")]), "is not computed before"),
    "results of one name": (
        edited(lambda m: m.graph.node[0].output.append("a"), call("Split", "x", "a", axis=1), call("Relu", "a")),
        "defined twice"),
    "the input computed again": (
        file([call("Relu", "x", "t"), call("Relu", "t", "x"), call("Neg", "x")]), "defined twice"),
    "a branch of two results for one": (
        chosen(then_branch=onnx.helper.make_graph(
            [call("Relu", "x", "z"), call("Neg", "x", "w")], "branch", [], [tensor("z", None), tensor("w", None)]),
               else_branch=branch(call("Neg", "x", "z"))), "other results than the node's"),
    "an If whose branches are lists": (
        edited(lambda m: [setattr(a, "type", 10) for a in m.graph.node[0].attribute],
               call("If", "c", then_branch=branch(call("Relu", "x", "z")), else_branch=branch(call("Neg", "x", "z"))),
               constants={"c": TRUE}), "whose branches are no graphs"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_modelled_is_refused(data: bytes, message: str) -> None:
    with pytest.raises((InputError, UnsupportedError), match=message) as error:
        read_network(data)
    assert "\n" not in str(error.value)
