#!/usr/bin/env python3
"""Compares `nc_convert neurobench` with the neurobench package (2.3), run on the same network and images.

usage: neurobench_check.py NC_CONVERT MODEL.safetensors [SAMPLES]

MODEL is a quantised spiking network on an MNIST-like data set under NC_DATA: with whole numbers both sides
compute the same values, so that every metric must agree. Exit status 0: they do; 1: they differ; 77: skipped,
because a package is missing.
"""
import json
import os
import pathlib
import struct
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from program_files import safetensors  # noqa: E402

try:
    import numpy as np
    import snntorch
    import torch
    from neurobench.metrics.static import ConnectionSparsity, Footprint, ParameterCount
    from neurobench.metrics.workload import (
        ActivationSparsity, ClassificationAccuracy, MembraneUpdates, SynapticOperations)
    from neurobench.models import SNNTorchModel
except ImportError as missing:
    print(f"skipped: comparison with the neurobench package: {missing}")
    sys.exit(77)


class Spiking(snntorch.SpikingNeuron):
    """A neuron of the model file, seen by the package's hooks; its buffers are those of the file alone."""

    def __init__(self, node, theta, v0):
        torch.nn.Module.__init__(self)
        assert node["spiking"] == "plain" and node["compare"] == "greater_equal" and node["amplitude"] == "one"
        self.init_hidden, self.output = True, False
        self.theta = torch.nn.Parameter(theta, requires_grad=False)
        self.register_buffer("v0", v0)
        self.beta = node["beta"]
        self.subtract, self.reset_value = node["reset"] == "subtract", node["reset_value"]
        self.mem = None

    def forward(self, x):
        shape = (1, -1) + (1,) * (x.dim() - 2)
        theta = self.theta.reshape(shape)
        mem = self.mem if self.mem is not None else self.v0.reshape(shape).expand_as(x)
        mem = self.beta * mem + x
        spikes = (mem >= theta).to(x.dtype)
        self.mem = mem - spikes * theta if self.subtract else torch.where(
            spikes > 0, torch.full_like(mem, self.reset_value), mem)
        return spikes


class Scaled(torch.nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = torch.nn.Parameter(scale, requires_grad=False)

    def forward(self, x):
        return x * self.scale.reshape((1, -1) + (1,) * (x.dim() - 2))


class Net(torch.nn.Module):
    """The graph of a model file, a step at a time; layouts in the file are torch's own."""

    def __init__(self, path):
        super().__init__()
        header, data = safetensors(path)
        metadata = header.pop("__metadata__")
        self.graph, self.info = json.loads(metadata["graph"]), json.loads(metadata["info"])
        values = {}
        for name, t in header.items():
            assert t["dtype"] == "F32", name
            raw = bytearray(data[t["data_offsets"][0]:t["data_offsets"][1]])
            values[name] = torch.frombuffer(raw, dtype=torch.float32).reshape(t["shape"])
        self.order, self.layers = [], torch.nn.ModuleDict()
        sources = {n["name"]: [e["from"] for e in self.graph["edges"] if e["to"] == n["name"]]
                   for n in self.graph["nodes"]}
        nodes, done = list(self.graph["nodes"]), set()
        while nodes:
            node = next(n for n in nodes if all(s in done for s in sources[n["name"]]))
            nodes.remove(node)
            done.add(node["name"])
            self.order.append((node["name"], sources[node["name"]]))
            self.layers[node["name"].replace(".", "_")] = self.layer(node, values)

    def layer(self, node, values):
        name, op = node["name"], node["op"]
        if op in ("conv", "linear"):
            weight, bias = values[f"{name}.weight"], values.get(f"{name}.bias")
            if op == "linear":
                out = torch.nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
            else:
                out = torch.nn.Conv2d(
                    weight.shape[1] * node["groups"], weight.shape[0], tuple(weight.shape[2:]),
                    tuple(node["stride"]), tuple(node["padding"]), tuple(node["dilation"]), node["groups"],
                    bias is not None)
            out.weight.data = weight
            if bias is not None:
                out.bias.data = bias
            return out
        if op == "neuron":
            return Spiking(node, values[f"{name}.theta"], values[f"{name}.v0"])
        if op == "average_pool":
            return torch.nn.AvgPool2d(tuple(node["kernel_size"]), tuple(node["stride"]), tuple(node["padding"]))
        if op == "scale":
            return Scaled(values[f"{name}.scale"])
        if op == "flatten":
            return torch.nn.Flatten()
        assert op in ("input", "output", "add"), op
        if op == "input":
            self.scale = node["scale"]
        return torch.nn.Identity()

    def reset(self):
        for layer in self.layers.values():
            if isinstance(layer, Spiking):
                layer.mem = None

    def forward(self, x):
        values = {}
        for name, sources in self.order:
            taken = sum(values[s] for s in sources) if sources else x
            values[name] = self.layers[name.replace(".", "_")](taken)
        return values[name], None


def idx(path):
    raw = path.read_bytes()
    sizes = struct.unpack(f">{raw[3]}I", raw[4:4 + 4 * raw[3]])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(sizes)


def package(path, samples):
    """The package's metrics over single samples, as the benchmark adds them up."""
    torch.set_grad_enabled(False)
    net = Net(path)
    root = pathlib.Path(os.environ["NC_DATA"]) / net.info["dataset"]
    images, labels = idx(root / "t10k-images-idx3-ubyte"), idx(root / "t10k-labels-idx1-ubyte")
    mean, std = net.info["mean"][0], net.info["std"][0]
    x = images[:samples].astype(np.float32) * np.float32(1 / (255 * std)) + np.float32(-mean / std)
    x = np.rint(np.clip(x * np.float32(net.scale), -128, 127)).astype(np.float32)
    model = SNNTorchModel(net)
    out = {m.__name__: m()(model) for m in (Footprint, ParameterCount, ConnectionSparsity)}
    model.register_hooks()
    means = {m.__name__: m() for m in (ClassificationAccuracy, ActivationSparsity)}
    sums = {m.__name__: m() for m in (SynapticOperations, MembraneUpdates)}
    out.update({name: 0 for name in means})
    for i in range(samples):
        data = (torch.from_numpy(x[i])[None, None, None].repeat(1, net.info["T"], 1, 1, 1),
                torch.tensor([int(labels[i])]))
        predicted = model(data[0]).sum(1).argmax(-1)
        for name, metric in means.items():
            out[name] += metric(model, predicted, data) / samples
        for name, metric in sums.items():
            out[name] = metric(model, predicted, data)
        model.reset_hooks()
    return out


def main():
    program, path = sys.argv[1:3]
    samples = int(sys.argv[3]) if len(sys.argv) > 3 else 20
    told = subprocess.run([program, "neurobench", path, "--samples", str(samples), "--json", "--quiet"],
                          check=True, capture_output=True, text=True).stdout
    ours, theirs = json.loads(told)["neurobench"], package(path, samples)
    wrong = sorted(set(ours) ^ set(theirs))
    for key in ours.keys() & theirs.keys():
        print(f"{key}: {ours[key]} | {theirs[key]}")
        pairs = [(ours[key], theirs[key])]
        if isinstance(ours[key], dict):
            wrong += sorted(set(ours[key]) ^ set(theirs[key]))
            pairs = [(ours[key][k], theirs[key][k]) for k in ours[key].keys() & theirs[key].keys()]
        # Fractions are means of means there: equal but for the rounding of sums.
        if any(abs(a - b) > 1e-9 * max(1, abs(b)) for a, b in pairs):
            wrong.append(key)
    print(f"differ: {', '.join(wrong)}" if wrong else "every metric agrees")
    sys.exit(1 if wrong else 0)


main()
