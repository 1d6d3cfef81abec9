#!/usr/bin/env python3
"""The same spiking network, weights and samples on this library and on Python's: who is how fast.

usage: peers.py --libnc libnc.so --model snn.safetensors --samples DIR [--threads N] [--rounds N] [--json FILE]

DIR is what `nc_bench infer --dump DIR` wrote: input.npy, logits.npy, run.json. Each program is first held against our
logits and numbers of spikes; rounding may move a few spikes, for Python's sums have no fixed order. Then all take
turns, and each one's fastest and median run are compared; ratios are of the fastest, to NeuroCUDA's.
"""
import argparse
import ctypes
import importlib.metadata
import json
import os
import pathlib
import statistics
import struct
import subprocess
import sys
import time

import numpy


def read_model(path):
    """The graph's nodes in order, the edges into each, and the tensors by name: conv [out, in, kh, kw]."""
    data = pathlib.Path(path).read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    graph = json.loads(header.pop("__metadata__")["graph"])
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] != "F32":
            continue
        begin, end = entry["data_offsets"]
        values = numpy.frombuffer(data[8 + size + begin : 8 + size + end], "<f4")
        tensors[name] = values.reshape(entry["shape"]).copy()
    edges = {}
    for edge in graph["edges"]:
        if edge.get("delay", 0):
            sys.exit("error: delayed edges are not compared")
        edges.setdefault(edge["to"], []).append(edge["from"])
    return graph["nodes"], edges, tensors


def save_result(path, result):
    """As JSON, with what is needed to read and to repeat it."""
    root = pathlib.Path(__file__).resolve().parent.parent.parent
    commit = subprocess.run(["git", "-C", root, "describe", "--always", "--dirty"], capture_output=True, text=True)
    models = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    packages = {}
    for name in ("torch", "spikingjelly", "snntorch", "onnxruntime"):
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    about = {
        "command": os.environ.get("NC_COMMAND", " ".join(sys.argv)),
        "commit": commit.stdout.strip() or None,
        "machine": f"{len(models)} x {models[0]}" if models else None,
        "load_average": os.getloadavg()[0],
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "packages": packages,
    }
    pathlib.Path(path).write_text(json.dumps(about | result, indent=2) + "\n")


def turn_of(program):
    """One turn of a program: seconds of its fastest and of its median run."""

    def turn():
        # A rest first, in which the threads of who was before stop spinning, and a run that does not count: caches are
        # another's until then.
        time.sleep(0.05)
        program.run()
        times = []
        for _ in range(3):
            begin = time.perf_counter()
            program.run()
            times.append(time.perf_counter() - begin)
        return min(times), statistics.median(times)

    return turn


def take_turns(turns, rounds):
    """Everybody's turn, again and again, after one that does not count. The table, printed and as rows."""
    for turn in turns.values():
        turn()
    times = {name: [] for name in turns}
    for _ in range(rounds):
        for name, turn in turns.items():
            times[name].append(turn())
    rows = []
    for name, pairs in times.items():
        fastest, medians = zip(*pairs)
        rows.append({"name": name, "min_ms": min(fastest) * 1e3, "median_ms": statistics.median(medians) * 1e3})
    print(f"{'program':<14} {'min ms':>10} {'median ms':>10} {'ratio':>10}")
    for row in rows:
        row["ratio"] = row["min_ms"] / rows[0]["min_ms"]
        print(f"{row['name']:<14} {row['min_ms']:>10.3f} {row['median_ms']:>10.3f} {row['ratio']:>10.2f}")
    return rows


class NeuroCUDA:
    """Through nc.h."""

    def __init__(self, library, model, threads, x, T, outputs):
        self.nc = ctypes.CDLL(library)
        self.nc.nc_error.restype = ctypes.c_char_p
        options = (ctypes.c_uint32 * 5)(threads, T, 0, 0, len(x))
        self.handle = ctypes.c_uint64()
        self.check(self.nc.nc_load(str(model).encode(), options, ctypes.byref(self.handle)))
        self.x, self.T, self.n = x, T, x.shape[-4] if x.ndim > 3 else x.shape[0]
        self.logits = numpy.zeros((self.n, outputs), numpy.float32)

    def check(self, status):
        if status != 0:
            sys.exit("error: " + self.nc.nc_error().decode())

    def run(self):
        pointer = ctypes.POINTER(ctypes.c_float)
        self.check(
            self.nc.nc_run(
                self.handle,
                self.x.ctypes.data_as(pointer),
                ctypes.c_size_t(self.x.size),
                ctypes.c_size_t(self.n),
                ctypes.c_size_t(self.T),
                self.logits.ctypes.data_as(pointer),
                ctypes.c_size_t(self.logits.size),
            )
        )
        return self.logits


class Peer:
    """The graph in PyTorch; `spiking` makes the neurons. Time goes through stateless layers as a larger batch."""

    def __init__(self, torch, model, x, T):
        self.torch, self.T = torch, T
        nodes, self.edges, tensors = read_model(model)
        self.nodes = nodes
        self.tensors = {name: torch.from_numpy(value) for name, value in tensors.items()}
        self.temporal = x.ndim in (3, 5)
        x = torch.from_numpy(x)
        if x.ndim > 3:
            x = x.movedim(-1, -3).contiguous()
        self.x = x
        self.neurons = {n["name"]: self.neuron(n) for n in nodes if n["op"] == "neuron"}
        self.count = False

    def parameter(self, node, field):
        return self.tensors.get(node["name"] + "." + field)

    def theta(self, node):
        theta = self.parameter(node, "theta")
        return theta.reshape(1, -1, 1, 1) if theta.numel() > 1 else theta.item()

    def forward(self):
        """The mean logits, [batch, classes]."""
        F = self.torch.nn.functional
        values, timed = {}, {}
        self.spikes = 0
        for node in self.nodes:
            name, op = node["name"], node["op"]
            inputs = self.edges.get(name, [])
            x = values[inputs[0]] if inputs else self.x
            time_axis = any(timed[i] for i in inputs) if inputs else self.temporal
            for other in inputs[1:]:
                a, b = x, values[other]
                if timed[inputs[0]] and not timed[other]:
                    b = b.unsqueeze(0)
                if timed[other] and not timed[inputs[0]]:
                    a = a.unsqueeze(0)
                x = a + b
            if op == "neuron":
                if not time_axis:
                    x = x.unsqueeze(0).expand(self.T, *x.shape)
                x = self.neurons[name](x)
                time_axis = True
                if self.count:
                    self.spikes += int((x != 0).sum())
                if node.get("amplitude", "theta") == "theta":
                    x = x * self.theta(node)
            elif op not in ("input", "output", "add"):
                lead = x.shape[:2] if time_axis else x.shape[:1]
                flat = x.flatten(0, 1) if time_axis else x
                flat = self.stateless(F, node, op, flat)
                x = flat.reshape(*lead, *flat.shape[1:])
            values[name], timed[name] = x, time_axis
            last = x
        return last.mean(0)

    def run(self):
        with self.torch.inference_mode():
            return self.forward()

    def stateless(self, F, node, op, x):
        if op == "conv":
            return F.conv2d(
                x,
                self.parameter(node, "weight"),
                self.parameter(node, "bias"),
                node.get("stride", 1),
                node.get("padding", 0),
                node.get("dilation", 1),
                node.get("groups", 1),
            )
        if op == "linear":
            return F.linear(x, self.parameter(node, "weight"), self.parameter(node, "bias"))
        if op == "average_pool":
            return F.avg_pool2d(x, node["kernel_size"], node.get("stride", node["kernel_size"]), node.get("padding", 0))
        if op == "global_average_pool":
            return x.mean((2, 3))
        if op == "flatten":
            return x.flatten(1)
        if op == "scale":
            scale = self.parameter(node, "scale")
            return x * (scale.reshape(1, -1, 1, 1) if x.ndim == 4 else scale)
        sys.exit(f"error: {node['name']} ({op}) is not compared")


class PyTorch(Peer):
    """Neurons as a loop of PyTorch's own operations."""

    def neuron(self, node):
        torch, theta, beta = self.torch, self.theta(node), node.get("beta", 1)
        v0 = node.get("v0_fraction", 0.5)

        def scan(x):
            v, out = torch.zeros_like(x[0]) + theta * v0, torch.empty_like(x)
            for t in range(x.shape[0]):
                v = v * beta + x[t] if beta != 1 else v + x[t]
                spike = (v >= theta).to(x.dtype)
                v = v - spike * theta
                out[t] = spike
            return out

        return scan


class SpikingJelly(Peer):
    """IFNode and LIFNode over all steps. Thresholds per channel are divided out of the currents."""

    def neuron(self, node):
        from spikingjelly.activation_based import functional
        from spikingjelly.activation_based import neuron as neurons

        theta, beta, v0 = self.theta(node), node.get("beta", 1), node.get("v0_fraction", 0.5)
        unit = 1.0 if not isinstance(theta, float) else theta
        if beta == 1:
            cell = neurons.IFNode(v_threshold=unit, v_reset=None, step_mode="m")
        else:
            tau = 1 / (1 - beta)
            cell = neurons.LIFNode(tau=tau, decay_input=False, v_threshold=unit, v_reset=None, step_mode="m")
        cell.eval()

        def scan(x):
            functional.reset_net(cell)
            cell.v = unit * v0
            return cell(x if isinstance(theta, float) else x / theta)

        return scan


class SnnTorch(Peer):
    """Leaky, a step at a time. Its own resets subtract after the leak, ours before, so ours is added to it; and it
    spikes above the threshold, not at it, which moves a few spikes where membranes meet it exactly."""

    def neuron(self, node):
        import snntorch

        theta, beta, v0 = self.theta(node), node.get("beta", 1), node.get("v0_fraction", 0.5)
        cell = snntorch.Leaky(beta=beta, threshold=theta, reset_mechanism="none")
        cell.eval()

        def scan(x):
            v, out = self.torch.zeros_like(x[0]) + theta * v0, []
            for t in range(x.shape[0]):
                spike, v = cell(x[t], v)
                v = v - spike * theta
                out.append(spike)
            return self.torch.stack(out)

        return scan


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--libnc", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--samples", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    folder = pathlib.Path(arguments.samples)
    x, want = numpy.load(folder / "input.npy"), numpy.load(folder / "logits.npy")
    about = json.loads((folder / "run.json").read_text())
    T, spikes = about["T"], about["spikes"]

    programs = {"NeuroCUDA": NeuroCUDA(arguments.libnc, arguments.model, arguments.threads, x, T, want.shape[1])}
    if not numpy.array_equal(programs["NeuroCUDA"].run(), want):
        sys.exit("error: nc.h gives other logits than nc_bench")
    try:
        import torch

        torch.set_num_threads(arguments.threads)
        kinds = {"PyTorch": PyTorch, "SpikingJelly": SpikingJelly, "snnTorch": SnnTorch}
    except ImportError as e:
        print(f"skipped: PyTorch and all that stand on it: {e}")
        kinds = {}
    for name, kind in kinds.items():
        try:
            peer = kind(torch, arguments.model, x, T)
        except ImportError as e:
            print(f"skipped: {name}: {e}")
            continue
        peer.count = True
        logits = peer.run().numpy()
        peer.count = False
        moved = abs(peer.spikes - spikes) / spikes
        far = float(numpy.abs(logits - want).max() / numpy.abs(want).max())
        same = (logits.argmax(1) == want.argmax(1)).mean()
        print(f"{name}: spikes {peer.spikes} to our {spikes}, logits differ by {100 * far:.3g} %, {100 * same:.0f} % of classes agree")
        if moved > 0.005 or far > 0.05:
            print(f"not timed: {name} computes something else")
            continue
        programs[name] = peer

    rows = take_turns({name: turn_of(program) for name, program in programs.items()}, arguments.rounds)
    if arguments.json:
        name = pathlib.Path(arguments.model).name
        result = {"model": name, "T": T, "batch": len(want), "threads": arguments.threads, "programs": rows}
        save_result(arguments.json, result)


if __name__ == "__main__":
    main()
