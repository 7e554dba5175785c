"""A list of polynomial questions: a cruise controller, and whether a car can always brake after what it does.

    python benchmarks/cruise.py FOLDER
    krelax bench FOLDER/cruise.csv --timeout 30

The controller has the distance of the car ahead and how fast that comes nearer or goes, in m and m/s, and gives an
acceleration of the distance, in m/s^2. It learns to brake with a little more than it takes. The question, one for each
part of the inputs, is that of Prebet, Teuber and Platzer (2025), as the competition of 2026 asks it: where the car
could brake in time with 100 m/s^2, can it still after 0.1 s?
"""

from __future__ import annotations

import argparse
import random
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

# Parts of the inputs, in m and m/s, and how many of all of them are asked about.
WIDTHS, COUNT = (20, 40), 24
MOST, SPEED = 100, 200
LIMIT = 100

DISTANCE, CHANGE, PUSH = "X[0,0]", "X[0,1]", "Y[0,0]"
AFTER = f"(+ {CHANGE} (* {PUSH} 0.1))"
# The distance that is left after 0.1 s, in units of 1 / 200 m, is no more than braking takes.
TOO_NEAR = f"(<= (* 200.0 (+ {DISTANCE} (* {CHANGE} 0.1) (* {PUSH} 0.005))) (* {AFTER} {AFTER}))"
TOO_NEAR_AS_IT_IS = f"(<= (* 200.0 (+ {DISTANCE} (* {CHANGE} 0.1))) (* {CHANGE} {CHANGE}))"


def meets(sign: str, other: str) -> str:
    """The cars meet within 0.1 s, for an acceleration of one sign: the change of the distance ends in that time, and
    the distance is gone before."""
    within = f"(and ({sign} (- {CHANGE}) (* 0.1 {PUSH})) ({other} (- {CHANGE}) 0.0))"
    gone = f"({sign} (* 2.0 {DISTANCE} {PUSH}) (* {CHANGE} {CHANGE}))"
    return f"(and (or ({sign} {PUSH} 0.0) {within}) (or ({sign} {PUSH} 0.0) {gone}))"


UNSAFE = f"""(or (< {PUSH} -{MOST}.001) (> {PUSH} {MOST}.001)
  (and (< {PUSH} {MOST}.0)
    (or (!= {PUSH} 0.0) {TOO_NEAR_AS_IT_IS})
    (or (< {PUSH} -{MOST}.0) (== {PUSH} 0.0) {TOO_NEAR} (and {meets("<=", ">=")} {meets(">=", "<=")}))))"""


def wanted(x: Tensor) -> Tensor:
    """The acceleration that is learned."""
    distance, change = x.unbind(1)
    needed = change**2 / (2 * (distance - 1).clamp(min=0.5))
    braking = (1.15 * needed + 4).clamp(max=MOST + 0.0005)
    return torch.where(change < 0, braking, (0.2 * (20 - distance) - 0.3 * change - 0.5).clamp(-90, 50))


def controller(steps: int = 6000) -> nn.Sequential:
    """Four hidden layers of 64 ReLUs, of inputs and outputs as they are."""
    torch.manual_seed(0)
    sizes = (2, 64, 64, 64, 64)
    hidden = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())]
    network, unit = nn.Sequential(*hidden, nn.Linear(64, 1)), torch.tensor([float(MOST), float(SPEED)])
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(steps):
        x = (torch.rand(512, 2) - torch.tensor([0.0, 0.5])) * torch.tensor([1.0, 2.0])
        loss = ((network(x)[:, 0] - wanted(x * unit) / MOST) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        for constants, change in ((network[0].weight, 1 / unit), (network[-1].weight, MOST), (network[-1].bias, MOST)):
            constants.mul_(change)
    return network.eval()


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(controller(), (torch.zeros(1, 2),), str(folder / "cruise.onnx"), dynamo=False)
    parts = [(a, b) for a in range(0, MOST, WIDTHS[0]) for b in range(-SPEED, SPEED, WIDTHS[1])]
    random.Random(1).shuffle(parts)
    for number, (near, slow) in enumerate(parts[:COUNT]):
        (folder / f"cruise_{number}.vnnlib").write_text(
            f"""(vnnlib-version <2.0>)
(declare-network f (declare-input X real [1,2]) (declare-output Y real [1,1]))
(assert (and (>= {DISTANCE} {near}) (<= {DISTANCE} {near + WIDTHS[0]})))
(assert (and (>= {CHANGE} {slow}) (<= {CHANGE} {slow + WIDTHS[1]})))
(assert (and (> {DISTANCE} 0) (>= (* 200.0 {DISTANCE}) (* {CHANGE} {CHANGE}))))
(assert {UNSAFE})
""",
            encoding="utf-8",
        )
    lines = [f"cruise.onnx,cruise_{number}.vnnlib,{LIMIT}\n" for number in range(COUNT)]
    (folder / "cruise.csv").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    write(parser.parse_args().folder)
