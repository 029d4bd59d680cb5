"""Launches of the Gram and backward kernels on the emulator, and their definitions in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from emulated import Array, Device, compute_dtype, rounded

VGG = ((64, 2048), (128, 1024), (256, 512), (512, 256), (512, 64))  # channels, positions: at 1/16 of the image's side
BOUND = {"float32": 1e-6, "float64": 1e-13, "float16": 2**-11 + 1e-6, "bfloat16": 2**-8 + 1e-6}


def error(got: np.ndarray, exact: np.ndarray) -> float:
    """Norm of the difference over the norm of the expected value; infinite if anything is not finite."""
    if not np.isfinite(got).all():
        return float("inf")
    size = float(np.linalg.norm(exact))
    difference = float(np.linalg.norm(got.astype(np.float64) - exact))
    return difference / size if size else (0.0 if difference == 0 else float("inf"))


def features(rng: np.random.Generator, shape: tuple[int, int, int], dtype: str) -> np.ndarray:
    """The output of a ReLU, rounded to the dtype."""
    return rounded(np.maximum(rng.standard_normal(shape), 0), dtype)


def matrix(rng: np.random.Generator, batch: int, channels: int) -> np.ndarray:
    half = rng.standard_normal((batch, channels, channels)).astype(np.float32)
    return half + half.transpose(0, 2, 1)


def exact_gram(x: np.ndarray, weight: np.ndarray | None = None, scale: float = 1.0) -> np.ndarray:
    x = x.astype(np.float64)
    left = x if weight is None else x * weight[:, None].astype(np.float64)
    return scale * np.einsum("bin,bjn->bij", left, x)


@dataclass
class GramLaunch:
    """The results of a launch. ``path`` is rows, channels or simt."""

    path: str
    splits: int
    counted: dict[str, Any]  # of the first kernel, if the device counts
    out: np.ndarray
    loss: float | None
    mean: np.ndarray | None
    activated: np.ndarray | None
    buffers: dict[str, Array]


def gram(
    device: Device,
    x: np.ndarray,
    dtype: str,
    *,
    layout: str = "nchw",
    scale: float = 1.0,
    weight: np.ndarray | None = None,
    target: np.ndarray | None = None,
    mean: bool = False,
    bias: np.ndarray | None = None,
    **how: Any,
) -> GramLaunch:
    """``how``: tf32 (whether the GPU has it), simt (force ordinary multiply-adds), plain (one product), splits."""
    batch, channels, _ = x.shape
    exact, emulator = compute_dtype(dtype), device.module
    features = device.input("x", x, dtype, layout=layout)
    choice = {key: how[key] for key in ("tf32", "simt", "splits", "multiprocessors") if key in how}
    plan = emulator.gram_plan(features.buffer, weighted=weight is not None, **choice)
    held = {
        "x": features,
        "out": device.output("out", (batch, channels, channels), exact),
        "partial": device.workspace("partial", plan["partial"], exact),
        "losses": device.workspace("losses", plan["losses"], "float64"),
        "counter": device.zeros("counter", 1),
    }
    if weight is not None:
        held["weight"] = device.input("weight", weight, exact)
    if target is not None:
        held["target"] = device.input("target", target, exact)
        held["loss"] = device.output("loss", (1,), exact)
    if mean:
        held["mean"] = device.output("mean", (batch, channels), exact)
    if bias is not None:
        held["bias"] = device.input("bias", bias, dtype)
        held["activated"] = device.output("activated", x.shape, dtype, strides=features.strides)
    held["counter"].buffer.fill(np.int32(77).tobytes())  # any value: the kernels reset it
    passed = {name: array.buffer for name, array in held.items()}
    emulator.gram(scale=scale, **passed, **how, only="partial")
    counted = device.counters if device.counting else {}
    held["partial"].buffer.initialize()  # the next launch may read it through any cache
    emulator.gram(scale=scale, **passed, **how, only="finish")
    return GramLaunch(
        plan["path"],
        plan["splits"],
        counted,
        held["out"].numpy(),
        float(held["loss"].numpy()[0]) if target is not None else None,
        held["mean"].numpy() if mean else None,
        held["activated"].numpy() if bias is not None else None,
        held,
    )


@dataclass
class BackwardLaunch:
    path: str
    out: np.ndarray
    buffers: dict[str, Array]


def backward(
    device: Device,
    x: np.ndarray,
    by: np.ndarray,
    dtype: str,
    *,
    layout: str = "nchw",
    above: np.ndarray | None = None,
    target: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    shift: np.ndarray | None = None,
    symmetrize: bool = False,
    tf32: bool = True,
    simt: bool = False,
    **how: Any,
) -> BackwardLaunch:
    """``by`` is M, or D of M = D + D^T with ``symmetrize``; with ``above`` the result is written in place."""
    batch, channels, _ = x.shape
    exact, emulator = compute_dtype(dtype), device.module
    held = {"x": device.input("x", x, dtype, layout=layout)}
    if above is None:
        held["out"] = device.output("out", x.shape, dtype, layout=layout)
    else:
        held["out"] = held["above"] = device.in_place("out", above, dtype, layout=layout)
    plan = emulator.backward_plan(held["x"].buffer, held["out"].buffer, tf32=tf32, simt=simt)
    padded = plan["padded"]
    held["matrix"] = device.input("matrix", by, exact)
    if symmetrize or padded != channels:
        packed = device.output("packed", (batch, padded, padded), exact)
        emulator.symmetrize(held["matrix"].buffer, packed.buffer, channels, padded, symmetrize)
        packed.buffer.initialize()
        held["matrix"] = packed
    for name, array, kind in (("target", target, dtype), ("weight", weight, exact), ("shift", shift, exact)):
        if array is not None:
            held[name] = device.input(name, array, kind, layout=layout if name == "target" else None)
    emulator.backward(**{name: array.buffer for name, array in held.items()}, tf32=tf32, simt=simt, **how)
    return BackwardLaunch(plan["path"], held["out"].numpy(), held)
