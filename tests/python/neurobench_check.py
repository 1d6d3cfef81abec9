#!/usr/bin/env python3
"""`nc_convert neurobench` against the neurobench package, run on the same network and images.

The network is quantised: with whole numbers both sides compute the same values, so that every metric must agree.
"""
import json
import pathlib
import struct
import sys

from checks import case, check, finish, need, program, work

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from program_files import safetensors, write_idx  # noqa: E402

np, torch, snntorch = need("numpy", "torch", "snntorch")
static, workload, models = need("neurobench.metrics.static", "neurobench.metrics.workload", "neurobench.models")
samples = 20


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


def package(path):
    """The package's metrics over single samples, as the benchmark adds them up."""
    torch.set_grad_enabled(False)
    net = Net(path)
    root = work / "data" / net.info["dataset"]
    images, labels = idx(root / "t10k-images-idx3-ubyte"), idx(root / "t10k-labels-idx1-ubyte")
    mean, std = net.info["mean"][0], net.info["std"][0]
    x = images[:samples].astype(np.float32) * np.float32(1 / (255 * std)) + np.float32(-mean / std)
    x = np.rint(np.clip(x * np.float32(net.scale), -128, 127)).astype(np.float32)
    model = models.SNNTorchModel(net)
    out = {m.__name__: m()(model) for m in (static.Footprint, static.ParameterCount, static.ConnectionSparsity)}
    model.register_hooks()
    means = {m.__name__: m() for m in (workload.ClassificationAccuracy, workload.ActivationSparsity)}
    sums = {m.__name__: m() for m in (workload.SynapticOperations, workload.MembraneUpdates)}
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


def agree(a, b):
    """Equal, but for the rounding of sums: fractions are means of means there."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(agree(a[k], b[k]) for k in a)
    return abs(a - b) <= 1e-9 * max(1, abs(b))


def main():
    root = work / "data" / "mnist"
    root.mkdir(parents=True)
    write_idx(root, 600, 200)
    data = ("--dataset", "mnist", "--seed", 1, "--data", work / "data", "--quiet")
    program("nc_train", "--model", "mlp", "--neuron", "if", "--T", 4, *data, "--epochs", 2, "--out", "n.safetensors")
    program("nc_convert", "quantize", "n.safetensors", *data, "--out", "q.safetensors")
    told = program("nc_convert", "neurobench", "q.safetensors", *data, "--samples", samples, "--json")
    ours, theirs = json.loads(told.stdout)["neurobench"], package(work / "q.safetensors")
    check("neurobench: the same metrics", ours.keys() == theirs.keys(), f"{list(ours)}\n{list(theirs)}")
    for key in ours.keys() & theirs.keys():
        check(f"neurobench: {key}", agree(ours[key], theirs[key]), f"{ours[key]} | {theirs[key]}")


with case("neurobench: both run"):
    main()
finish()
