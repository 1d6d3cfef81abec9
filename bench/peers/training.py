#!/usr/bin/env python3
"""The same training step on this library and on Python's, and neurons forward and back by themselves.

usage: training.py --nc-bench PROGRAM [--threads N] [--rounds N] [--json FILE] step MODEL [--T N] [--batch N] [--frames]
       training.py --nc-bench PROGRAM [--threads N] [--rounds N] [--json FILE] neurons [--T N] [--elements N]

step: one batch through a network of LIF neurons and back, and AdamW's update. Each program first computes the
gradients of the same weights on the same samples; rounding may move a few spikes. neurons: integrate and fire over
T steps, forward and back, held against the recurrence written out in double precision. Then all take turns.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy

from peers import Peer, read_model, save_result, take_turns, turn_of

WIDTH = 2  # alpha of the arc tangent's derivative, the default of both sides


def surrogate_of(torch):
    class Spike(torch.autograd.Function):
        """A step; back, alpha / 2 / (1 + (pi / 2 alpha u)^2)."""

        @staticmethod
        def forward(ctx, u):
            ctx.save_for_backward(u)
            return (u >= 0).to(u.dtype)

        @staticmethod
        def backward(ctx, dy):
            (u,) = ctx.saved_tensors
            return dy * WIDTH / 2 / (1 + (torch.pi / 2 * WIDTH * u).square())

    return Spike.apply


def pytorch_neuron(torch, theta, beta, v0):
    spike = surrogate_of(torch)

    def scan(x):
        v, out = torch.zeros_like(x[0]) + theta * v0, []
        for t in range(x.shape[0]):
            v = v * beta + x[t] if beta != 1 else v + x[t]
            s = spike(v - theta)
            v = v - s * theta
            out.append(s)
        return torch.stack(out)

    return scan


def spikingjelly_neuron(torch, theta, beta, v0):
    from spikingjelly.activation_based import functional, neuron, surrogate

    how = {"v_threshold": theta, "v_reset": None, "step_mode": "m", "surrogate_function": surrogate.ATan(alpha=WIDTH)}
    cell = neuron.IFNode(**how) if beta == 1 else neuron.LIFNode(tau=1 / (1 - beta), decay_input=False, **how)

    def scan(x):
        functional.reset_net(cell)
        cell.v = theta * v0
        return cell(x)

    return scan


def snntorch_neuron(torch, theta, beta, v0):
    import snntorch
    from snntorch import surrogate

    # Its own reset subtracts after the leak and lets no gradient through; ours is added to it instead.
    cell = snntorch.Leaky(beta=beta, threshold=theta, reset_mechanism="none", spike_grad=surrogate.atan(alpha=WIDTH))

    def scan(x):
        v, out = torch.zeros_like(x[0]) + theta * v0, []
        for t in range(x.shape[0]):
            s, v = cell(x[t], v)
            v = v - s * theta
            out.append(s)
        return torch.stack(out)

    return scan


NEURONS = {"PyTorch": pytorch_neuron, "SpikingJelly": spikingjelly_neuron, "snnTorch": snntorch_neuron}


class Trainer(Peer):
    def __init__(self, torch, make, folder, x, labels, T):
        self.make = make
        super().__init__(torch, folder / "model.safetensors", x, T)
        self.start = {name: t.clone() for name, t in self.tensors.items()}
        self.trained = {n: t for n, t in self.tensors.items() if n.endswith((".weight", ".bias"))}
        for t in self.trained.values():
            t.requires_grad_()
        self.labels = torch.from_numpy(labels).long()
        self.optimiser = torch.optim.AdamW(self.trained.values(), lr=3e-3, weight_decay=1e-4)

    def neuron(self, node):
        theta = self.theta(node)
        if not isinstance(theta, float) or node.get("scale_width", False) or node.get("surrogate", "atan") != "atan":
            sys.exit("error: only thresholds of a layer and the arc tangent are compared")
        return self.make(self.torch, theta, node.get("beta", 1), node.get("v0_fraction", 0))

    def gradients(self):
        self.optimiser.zero_grad()
        loss = self.torch.nn.functional.cross_entropy(self.forward(), self.labels)
        loss.backward()
        return loss

    def run(self):
        self.gradients()
        self.optimiser.step()


class Neurons:
    """Integrate and fire over T steps and back."""

    def __init__(self, torch, make, x, dy):
        self.x = torch.from_numpy(x).requires_grad_()
        self.dy = torch.from_numpy(dy)
        self.scan = make(torch, 1.0, 1, 0.5)

    def run(self):
        self.x.grad = None
        y = self.scan(self.x)
        y.backward(self.dy)
        return y


def by_hand(x, dy):
    """Spikes and dL/dx of integrate and fire with threshold 1, membrane from 1/2, in double precision."""
    T = len(x)
    v, u, s = numpy.full(x.shape[1], 0.5), numpy.zeros(x.shape), numpy.zeros(x.shape)
    for t in range(T):
        u[t] = v + x[t]
        s[t] = u[t] >= 1
        v = u[t] - s[t]
    slope = WIDTH / 2 / (1 + (numpy.pi / 2 * WIDTH * (u - 1)) ** 2)
    dx, dv = numpy.zeros(x.shape), numpy.zeros(x.shape[1])
    for t in reversed(range(T)):
        dv = dv + (dy[t] - dv) * slope[t]
        dx[t] = dv
    return s, dx


def bench(arguments, words):
    """nc_bench's only row: seconds of the fastest and of the median run."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "row.json"
        command = [arguments.nc_bench, *words, "--threads", str(arguments.threads), "--json", str(out), "--quiet"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        row = json.loads(out.read_text())["benchmarks"][0]
    return row["minimum_ms"] * 1e-3, row["real_time"] * {"s": 1, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}[row["time_unit"]]


def peers_of(arguments, build, agree):
    """Those that are there and compute the same, by name."""
    try:
        import torch
    except ImportError as e:
        print(f"skipped: PyTorch and all that stand on it: {e}")
        return {}
    torch.set_num_threads(arguments.threads)
    found = {}
    for name, make in NEURONS.items():
        try:
            peer = build(torch, make)
        except ImportError as e:
            print(f"skipped: {name}: {e}")
            continue
        if agree(torch, name, make, peer):
            found[name] = peer
        else:
            print(f"not timed: {name} computes something else")
    return found


def compare(arguments, words, peers):
    turns = {"NeuroCUDA": lambda: bench(arguments, words)}
    return take_turns(turns | {name: turn_of(peer) for name, peer in peers.items()}, arguments.rounds)


def compare_step(arguments):
    words = ["train", "--model", arguments.model, "--T", str(arguments.T), "--batch", str(arguments.batch)]
    words += ["--frames"] if arguments.frames else []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        bench(arguments, [*words, "--seconds", "0", "--dump", name])
        x, labels = numpy.load(folder / "input.npy"), numpy.load(folder / "labels.npy")
        loss = json.loads((folder / "run.json").read_text())["loss"]
        before, after = (read_model(folder / f"{which}.safetensors")[2] for which in ("model", "stepped"))

        def build(torch, make):
            return Trainer(torch, make, folder, x, labels, arguments.T)

        def agree(torch, name, make, peer):
            got = float(peer.gradients())
            far = norm = 0.0
            for tensor, value in peer.trained.items():
                want = before[tensor].astype("f8") - after[tensor]
                far += float(((value.grad.numpy() - want) ** 2).sum())
                norm += float((want**2).sum())
            apart = (far / norm) ** 0.5
            print(f"{name}: loss {got:.6f} to our {loss:.6f}, gradients {100 * apart:.2g} % of their norm apart")
            return apart < 0.05 and abs(got - loss) < 1e-2 * loss

        peers = peers_of(arguments, build, agree)
    return compare(arguments, [*words, "--seconds", "2"], peers)


def compare_neurons(arguments):
    words = ["bptt", "--neuron", "if", "--T", str(arguments.T), "--elements", str(arguments.elements), "--seconds", "1"]
    random = numpy.random.default_rng(1)
    shape = (arguments.T, arguments.elements // arguments.T)
    x, dy = (random.uniform(-0.5, 1.0, shape).astype("f4"), random.normal(size=shape).astype("f4"))

    def agree(torch, name, make, peer):
        few_x, few_dy = x[:, :10000].copy(), dy[:, :10000].copy()
        few = Neurons(torch, make, few_x, few_dy)
        y = few.run().detach().numpy()
        want, dx = by_hand(few_x.astype("f8"), few_dy.astype("f8"))
        same = (y == want).all(0)  # rounding may move a spike that is met exactly
        far = numpy.abs(few.x.grad.numpy() - dx)[:, same].max() / numpy.abs(dx).max()
        print(f"{name}: {int((~same).sum())} of {len(same)} neurons spike otherwise, gradients within {far:.1e}")
        return same.mean() > 0.999 and far < 1e-4

    peers = peers_of(arguments, lambda torch, make: Neurons(torch, make, x, dy), agree)
    return compare(arguments, words, peers)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nc-bench", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json")
    kinds = parser.add_subparsers(dest="kind", required=True)
    step = kinds.add_parser("step")
    step.add_argument("model")
    step.add_argument("--T", type=int, default=16)
    step.add_argument("--batch", type=int, default=32)
    step.add_argument("--frames", action="store_true")
    neurons = kinds.add_parser("neurons")
    neurons.add_argument("--T", type=int, default=4)
    neurons.add_argument("--elements", type=int, default=8388608)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    rows = compare_step(arguments) if arguments.kind == "step" else compare_neurons(arguments)
    if arguments.json:
        what = {k: v for k, v in vars(arguments).items() if k not in ("nc_bench", "json", "rounds")}
        if "model" in what:
            what["model"] = pathlib.Path(what["model"]).name
        save_result(arguments.json, what | {"programs": rows})


if __name__ == "__main__":
    main()
