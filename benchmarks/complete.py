"""Complete verification of competition instances and image networks: verdicts, time, and others' results beside them.

    python benchmarks/complete.py [--lists acasxu ...] [--networks mnist_6_100 ...] [--timeout 60] [--images 50]
                                  [--journals DIR] [--write docs/complete.md]

Verifies what is named (`all` for everything), one instance after the other on all cores; images side by side. Every
result is appended to a journal in DIR, and what is there is not done again. Prints the tables of all journals in DIR.
`--timeout 0` takes the limits of the lists.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from common import benchmark_folder
from krelax import load_images, load_onnx
from krelax.cli.report import table
from krelax.run.bench import bench, read_instances
from krelax.run.certify import CertifyOptions, certify
from krelax.run.journal import digest, open_journal
from krelax.run.verify import VerifyOptions

# Lists with the numbers of instances that are to be solved at least.
LISTS = ("acasxu", "rl_benchmarks", "collins_rul_cnn", "verivital", "tllverifybench", "mnist_fc", "oval21",
         "sri_resnet_a", "sri_resnet_b", "eran")  # fmt: skip

# Radius; best published share of correctly classified images certified, and the attack's upper bound, in percent:
# beta-CROWN (GPU, up to 300 s, first 1000 images) for the first five, BICCOS and Clip-and-Verify (GPUs, 200 s, all 200
# images) for the others, whose shares are of all images.
NETWORKS = {
    "mnist_6_100": ("eran", 0.026, 72.8, 87.7),
    "mnist_9_100": ("eran", 0.026, 65.5, 86.6),
    "mnist_6_200": ("eran", 0.015, 79.6, 92.7),
    "mnist_9_200": ("eran", 0.015, 77.4, 95.9),
    "mnist_conv_small": ("eran", 0.12, 74.2, 76.1),
    "mnist_cnn_a_adv": ("sdp", 0.3, 76.0, 76.5),
    "cifar_cnn_a_adv": ("sdp", 2 / 255, 48.5, 50.0),
    "cifar_cnn_a_adv4": ("sdp", 2 / 255, 48.5, 49.5),
    "cifar_cnn_a_mix": ("sdp", 2 / 255, 48.0, 53.0),
    "cifar_cnn_a_mix4": ("sdp", 2 / 255, 56.5, 57.5),
}


def run_list(name: str, timeout: float | None, journals: Path) -> None:
    """Verify what a journal lacks of a list."""
    listed = read_instances(benchmark_folder() / "vnncomp" / name / "instances.csv", timeout)
    settings = {"list": name, "timeout": timeout}
    stem = name if timeout else f"{name}-own-limits"
    with open_journal(journals / f"{stem}.jsonl", settings, resume=True) as journal:
        for result in bench([i for i in listed if i.index not in journal.done], VerifyOptions()):
            journal.write(result.record())
            mark = "!" if result.disagrees else " "
            print(f"{mark}{name} {result.instance.index} {result.answer} {result.seconds:.1f} s", flush=True)


def run_network(name: str, timeout: float | None, images: int, journals: Path) -> None:
    """Certify what a journal lacks of the first images."""
    family, eps, _, _ = NETWORKS[name]
    folder = benchmark_folder() / family
    digits = name.startswith("mnist")
    file = {"eran": "mnist_test.npz", "sdp": "mnist_sdp.npz" if digits else "cifar10_sdp.npz"}[family]
    network = load_onnx(folder / f"{name}.onnx")
    data = load_images(folder / file, network.input_shape, 10)
    settings = {"network": digest(folder / f"{name}.onnx"), "images": digest(folder / file)}
    began, cpu = time.perf_counter(), time.process_time()
    summary = certify(
        network, data, range(min(images, len(data))), CertifyOptions(eps, timeout=timeout),
        journal=journals / f"{name}.jsonl", resume=True, settings=settings,
        seen=lambda r: print(name, r["index"], r["verdict"], r["reason"], f"{r['seconds']:.1f} s", flush=True),
    )  # fmt: skip
    spent = {"wall": time.perf_counter() - began, "cpu": time.process_time() - cpu, "resumed": summary.resumed}
    with (journals / f"{name}.time").open("a") as out:
        print(json.dumps(spent), file=out)


def results(path: Path) -> list[dict[str, Any]]:
    return [r for r in map(json.loads, path.read_text().splitlines()) if r["kind"] == "result"]


def list_rows(journals: Path) -> list[tuple[str, ...]]:
    """A row for every list: answers, contradictions, and seconds."""
    rows = []
    for path in sorted(journals.glob("*.jsonl")):
        found = results(path)
        if not found or "answer" not in found[0]:
            continue
        counts = Counter(r["answer"] for r in found)
        wrong = sum({r["answer"], r["expected"]} == {"sat", "unsat"} for r in found)
        seconds, cpu = ([r[k] for r in found] for k in ("seconds", "cpu"))
        rows.append((path.stem, str(len(found)), str(counts["unsat"] + counts["sat"]), str(counts["unsat"]),
                     str(counts["sat"]), str(wrong), f"{np.median(seconds):.2f}", f"{sum(seconds):.0f}",
                     f"{sum(cpu):.0f}"))  # fmt: skip
    return rows


def network_rows(journals: Path) -> list[tuple[str, ...]]:
    """A row for every image network: shares of correctly classified images, for the second family of all images."""
    rows = []
    for name, (family, _, best, bound) in NETWORKS.items():
        path = journals / f"{name}.jsonl"
        if not path.exists():
            continue
        found = results(path)
        base = [r for r in found if r["label"] == r["predicted"]] if family == "eran" else found
        counts = Counter(r["verdict"] for r in base)
        mine = Counter(r["verdict"] for r in found if r["label"] == r["predicted"])
        spent = [json.loads(line) for line in path.with_suffix(".time").read_text().splitlines()]
        cpu = sum(s["cpu"] for s in spent) / len(found)
        undecided = ", ".join(str(r["index"]) for r in found if r["verdict"] == "unknown")
        rows.append((name, str(len(found)), str(len(base)), f"{100 * counts['holds'] / len(base):.0f}",
                     str(mine["violated"]), undecided or "-", f"{best:g}", f"{bound:g}",
                     f"{cpu:.1f}", f"{max(r['seconds'] for r in found):.0f}"))  # fmt: skip
    return rows


def peer_rows(journals: Path) -> list[tuple[str, ...]]:
    """Others' results on instances of the lists beside those of the journals: solved, and CPU seconds in all."""
    with (benchmark_folder() / "peers" / "instances.csv").open() as lines:
        others = [r for r in csv.DictReader(lines) if (journals / f"{r['benchmark']}.jsonl").exists()]
    mine = {(path.stem, r["onnx"], r["vnnlib"].removesuffix(".gz")): r
            for path in journals.glob("*.jsonl") for r in results(path) if "answer" in r}  # fmt: skip
    rows = []
    for benchmark, tool in sorted({(r["benchmark"], r["tool"]) for r in others}):
        asked = [r for r in others if (r["benchmark"], r["tool"]) == (benchmark, tool)]
        both = [(r, mine[key]) for r in asked
                if (key := (benchmark, r["onnx"], r["vnnlib"].removesuffix(".gz"))) in mine]  # fmt: skip
        if both:
            solved = sum(r["verdict"] in {"verified", "falsified"} for r, _ in both)
            own = sum(m["answer"] in {"sat", "unsat"} for _, m in both)
            cpu = sum(float(r["cpu_s"] or "nan") for r, _ in both)
            rows.append((benchmark, tool, str(len(both)), f"{solved}", f"{own}", f"{cpu:.0f}",
                         f"{sum(m['cpu'] for _, m in both):.0f}"))  # fmt: skip
    return rows


def page(journals: Path) -> str:
    """All tables."""
    parts = [
        table(("list", "instances", "solved", "unsat", "sat", "disagree", "median s", "s", "CPU s"),
              list_rows(journals)),
        table(("network", "images", "share of", "certified %", "violated", "undecided", "best published %",
               "upper bound %", "CPU s/image", "most s"), network_rows(journals)),
        table(("list", "other tool", "instances", "it solved", "krelax", "its CPU s", "CPU s"), peer_rows(journals)),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lists", nargs="*", default=[])
    parser.add_argument("--networks", nargs="*", default=[])
    parser.add_argument("--timeout", type=float, default=60.0)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--journals", type=Path, default=Path("complete-journals"))
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    options.journals.mkdir(parents=True, exist_ok=True)
    for name in LISTS if options.lists == ["all"] else options.lists:
        run_list(name, options.timeout or None, options.journals)
    for name in NETWORKS if options.networks == ["all"] else options.networks:
        run_network(name, options.timeout or None, options.images, options.journals)
    text = page(options.journals)
    print(text)
    if options.write:
        options.write.write_text(text)


if __name__ == "__main__":
    main()
