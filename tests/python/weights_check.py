#!/usr/bin/env python3
"""Weights between PyTorch and our programs: .pt and safetensors files read and written on both sides."""
import json
import pathlib
import sys

from checks import case, finish, full, have, need, program, skip, work

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from program_files import write_idx  # noqa: E402

np, torch = need("numpy", "torch")
nn = torch.nn
if have("safetensors.torch"):
    from safetensors.numpy import load_file as load_numpy
    from safetensors.torch import load_file, save_file
else:
    load_numpy = load_file = save_file = None

(work / "data" / "mnist").mkdir(parents=True)
write_idx(work / "data" / "mnist", 100, 400)
torch.manual_seed(0)
data = ("--dataset", "mnist", "--data", work / "data")


def nc_train(*arguments, **how):
    return program("nc_train", *arguments, *data, "--epochs", 0, "--force", **how)


def tensors_of(path):
    """A model file's tensors, by our own reading of the format: no package is needed."""
    raw = pathlib.Path(path).read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:8 + size])
    header.pop("__metadata__")
    out = {}
    for name, t in header.items():
        start, end = (8 + size + at for at in t["data_offsets"])
        assert t["dtype"] == "F32", name
        out[name] = torch.frombuffer(bytearray(raw[start:end]), dtype=torch.float32).reshape(t["shape"])
    return out


def same(ours, theirs):
    """Every tensor of a state_dict, rounded to float, is in our file bit by bit."""
    wanted = {k: v.detach().float() for k, v in theirs.items() if not k.endswith("num_batches_tracked")}
    assert ours.keys() == wanted.keys(), sorted(ours.keys() ^ wanted.keys())
    different = [k for k in wanted if not torch.equal(ours[k], wanted[k])]
    assert not different, different


def randomize(module, seed):
    """Weights as after training: nothing at its initial value."""
    torch.manual_seed(seed)
    for m in module.modules():
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias, 0, 0.2)
            m.running_mean.normal_(0, 0.2)
            m.running_var.uniform_(0.5, 1.5)
    return module.eval()


class Block(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.downsample = None
        if stride != 1 or cin != cout:
            self.downsample = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """As torchvision names it, with the stem for small images."""

    def __init__(self, widths, blocks, channels=1, classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.stages = len(widths)
        cin = widths[0]
        for i, width in enumerate(widths):
            stage = [Block(cin if k == 0 else width, width, 2 if i > 0 and k == 0 else 1) for k in range(blocks)]
            setattr(self, f"layer{i + 1}", nn.Sequential(*stage))
            cin = width
        self.fc = nn.Linear(cin, classes)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        for i in range(self.stages):
            x = getattr(self, f"layer{i + 1}")(x)
        return self.fc(x.mean((2, 3)))


def resnet20(seed):
    return randomize(ResNet((16, 32, 64), 3), seed)


def as_trained(state):
    """The names of our file for torchvision's of a ResNet."""
    return {k.replace(".downsample.0.", ".shortcut.").replace(".downsample.1.", ".shortcut_bn."): v
            for k, v in state.items()}


def mlp(seed):
    return randomize(nn.Sequential(
        nn.Flatten(), nn.Linear(784, 256, bias=False), nn.BatchNorm1d(256), nn.ReLU(),
        nn.Linear(256, 256, bias=False), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 10)), seed)


def as_mlp(state):
    names = dict(zip(("1", "2", "4", "5", "7"), ("fc1", "fc_bn1", "fc2", "fc_bn2", "fc3")))
    return {names[k.split(".")[0]] + "." + k.split(".")[1]: v for k, v in state.items()}


def torch_files():
    """How people save a network."""
    net = resnet20(0)
    state = net.state_dict()
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    net.train()
    net(torch.randn(4, 1, 28, 28)).sum().backward()
    optimizer.step()
    net.eval()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [10, 20])
    state = {k: v.clone() for k, v in net.state_dict().items()}
    yield "a state_dict", net.state_dict(), {}, state
    for protocol in (3, 4, 5):
        yield f"pickle protocol {protocol}", net.state_dict(), {"pickle_protocol": protocol}, state
    yield "a plain dict", dict(net.state_dict()), {}, state
    checkpoint = {"epoch": 3, "arch": "resnet20", "state_dict": net.state_dict(), "best_acc1": torch.tensor(9.5),
                  "optimizer": optimizer.state_dict(), "scheduler": schedule.state_dict()}
    yield "a checkpoint", checkpoint, {}, state
    other = {"net": net.state_dict(), "acc": 91.25, "epoch": 2**40, "tags": ["a", b"b", (1, None)]}
    yield "another key", other, {}, state
    yield "DataParallel", nn.DataParallel(net).state_dict(), {}, state
    yield "parameters", dict(net.named_parameters()) | dict(net.named_buffers()), {}, state
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        other = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
        yield str(dtype), other, {}, other
    # Memory as it comes: transposed, cut out of larger ones, all parts of one, shared.
    odd, flat = {}, torch.cat([v.flatten().float() for v in state.values()])
    at = 0
    for i, (k, v) in enumerate(state.items()):
        if i % 4 == 0 and v.dim() == 4:
            odd[k] = v.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)
        elif i % 4 == 1 and v.is_floating_point():
            odd[k] = torch.stack([v, v], -1)[..., 1]
        elif i % 4 == 2 and v.dim() == 4:
            odd[k] = v.to(memory_format=torch.channels_last)
        elif v.is_floating_point():
            odd[k] = flat[at:at + v.numel()].view(v.shape)
        else:
            odd[k] = v
        at += v.numel()
    assert sum(not v.is_contiguous() for v in odd.values()) > 10
    yield "strided", odd, {}, state


def reading():
    for name, value, how, wanted in torch_files():
        with case(f"weights: {name}"):
            torch.save(value, work / "w.pt", **how)
            nc_train("--model", "resnet20", "--weights", "w.pt", "--out", "m.safetensors")
            same(tensors_of(work / "m.safetensors"), as_trained(wanted))
    with case("weights: checksums left out"):
        torch.serialization.set_crc32_options(False)
        net = mlp(1)
        torch.save(net.state_dict(), work / "w.pt")
        torch.serialization.set_crc32_options(True)
        said = nc_train("--model", "mlp", "--weights", "w.pt", "--out", "m.safetensors").stderr
        same(tensors_of(work / "m.safetensors"), as_mlp(net.state_dict()))
        assert "1 as fc1, 2 as fc_bn1, 4 as fc2, 5 as fc_bn2, 7 as fc3" in said, said
    if save_file is None:
        skip("weights: safetensors", "no package safetensors")
        return
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        with case(f"weights: safetensors, {dtype}"):
            state = {k: v.to(dtype) for k, v in mlp(2).state_dict().items() if v.is_floating_point()}
            save_file(state, work / "w.safetensors")
            nc_train("--model", "mlp", "--weights", "w.safetensors", "--out", "m.safetensors")
            same(tensors_of(work / "m.safetensors"), as_mlp(state))


def images(count=None):
    """The test images as PyTorch users make them: what --mean 0.25 --std 0.5 is to our programs."""
    raw = (work / "data" / "mnist" / "t10k-images-idx3-ubyte").read_bytes()
    pixels = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 1, 28, 28)[:count]
    return torch.from_numpy((pixels / np.float32(255) - np.float32(0.25)) / np.float32(0.5))


def labels():
    raw = (work / "data" / "mnist" / "t10k-labels-idx1-ubyte").read_bytes()
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=8).astype(np.int64))


def accuracy(net):
    with torch.no_grad():
        return 100 * float((net(images()).argmax(1) == labels()).double().mean())


def fitted(net):
    """Its last layer solved for the test images: other weights anywhere before it cost accuracy."""
    last, seen = [m for m in net.modules() if isinstance(m, nn.Linear)][-1], []
    hook = last.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    with torch.no_grad():
        net(images())
        hook.remove()
        x = torch.cat([seen[0], torch.ones(len(seen[0]), 1)], 1).double()
        y = nn.functional.one_hot(labels(), 10).double()
        w = torch.linalg.solve(x.T @ x + 1e-3 * torch.eye(x.shape[1]), x.T @ y).T.float()
        last.weight.copy_(w[:, :-1])
        last.bias.copy_(w[:, -1])
    assert accuracy(net) > 80, accuracy(net)
    return net


def running():
    """The same network with the same weights is the same function."""
    nets = {"resnet20": fitted(resnet20(5)), "mlp": fitted(mlp(6))}
    if full:
        nets["resnet18"] = fitted(randomize(ResNet((64, 128, 256, 512), 2), 7))
    runs = "  nc_convert run " in program("nc_convert", "--help").stdout
    for name, net in nets.items():
        with case(f"weights: {name} computes what PyTorch's does"):
            torch.save(net.state_dict(), work / "w.pt")
            nc_train("--model", name, "--weights", "w.pt", "--mean", 0.25, "--std", 0.5, "--out", "m.safetensors")
            told = program("nc_convert", "eval", "m.safetensors", *data, "--json", "--quiet").stdout
            assert abs(json.loads(told)["accuracy"] - accuracy(net)) < 1e-9, (told, accuracy(net))
            # Over another network's weights, in nc_convert.
            program("nc_train", "--model", name, *data, "--samples", 40, "--batch", 20, "--epochs", 1, "--force",
                    "--mean", 0.25, "--std", 0.5, "--out", "other.safetensors")
            other = program("nc_convert", "eval", "other.safetensors", "--weights", "w.pt", *data, "--json", "--quiet")
            assert json.loads(other.stdout)["accuracy"] == json.loads(told)["accuracy"]
        if not runs:
            skip(f"weights: logits of {name}", "this nc_convert has no command run")
            continue
        with case(f"weights: logits of {name}"):
            x = images(20)
            np.save(work / "x.npy", x.numpy())
            program("nc_convert", "run", "m.safetensors", "--input", "x.npy", "--out", "y.npy", "--force")
            ours = torch.from_numpy(np.load(work / "y.npy"))
            with torch.no_grad():
                theirs = net(x)
            difference = (ours.reshape(theirs.shape) - theirs).abs().max() / theirs.abs().max()
            assert difference < 1e-4, float(difference)


def writing():
    """What we save, PyTorch loads."""
    program("nc_train", "--model", "resnet20", *data, "--epochs", 1, "--samples", 100, "--batch", 20, "--quiet",
            "--out", "ours.safetensors")
    ours = tensors_of(work / "ours.safetensors")
    back = {k.replace(".shortcut.", ".downsample.0.").replace(".shortcut_bn.", ".downsample.1."): v
            for k, v in ours.items()}
    with case("weights: a PyTorch network loads ours, strictly"):
        net = ResNet((16, 32, 64), 3)
        net.load_state_dict(back, strict=True)
        told = program("nc_convert", "eval", "ours.safetensors", *data, "--mean", 0.25, "--std", 0.5, "--json",
                       "--quiet")
        assert abs(json.loads(told.stdout)["accuracy"] - accuracy(net.eval())) < 1e-9
    with case("weights: and ours takes them back"):
        torch.save(net.state_dict(), work / "back.pt")
        nc_train("--model", "resnet20", "--weights", "back.pt", "--out", "again.safetensors")
        same(tensors_of(work / "again.safetensors"), ours)
    if load_numpy is None:
        skip("weights: safetensors reads our files", "no package safetensors")
        return
    for name, arguments in (("network", ("--model", "resnet20")),
                            ("spiking network", ("--model", "mlp", "--neuron", "if", "--T", 2)),
                            ("QCFS network", ("--model", "lenet", "--activation", "qcfs"))):
        with case(f"weights: safetensors reads our {name}"):
            program("nc_train", *arguments, *data, "--epochs", 1, "--samples", 40, "--batch", 20, "--quiet", "--force",
                    "--out", "s.safetensors")
            arrays, mine = load_numpy(work / "s.safetensors"), tensors_of(work / "s.safetensors")
            assert arrays.keys() == mine.keys() == load_file(work / "s.safetensors").keys()
            assert all(np.array_equal(arrays[k], mine[k].numpy()) for k in mine)


class Custom:
    pass


def refusing():
    good = resnet20(8)
    torch.save(good.state_dict(), work / "good.pt")

    def refused(name, pattern, value=None, **how):
        with case(f"weights: refused: {name}"):
            if value is not None:
                torch.save(value, work / "bad.pt", **how)
            done = nc_train("--model", "resnet20", "--weights", "bad.pt", "--out", "bad.safetensors", status=3)
            assert pattern in done.stderr and done.stderr.count("error: ") == 1, done.stderr
            assert not (work / "bad.safetensors").exists()

    state = good.state_dict()
    refused("a whole model", "torch.save(model.state_dict()", nn.Sequential(nn.Linear(2, 2)))
    refused("an object of a user's class", "Custom", {"state_dict": state, "args": Custom()})
    refused("the old format", "before version 1.6", state, _use_new_zipfile_serialization=False)
    torch.jit.script(nn.Linear(2, 2)).save(work / "bad.pt")
    refused("TorchScript", "a compiled program")
    refused("complex numbers", "ComplexFloatStorage", {"a": torch.ones(2, dtype=torch.complex64)})
    refused("8-bit floats", "_rebuild_tensor_v3", {"a": torch.ones(2).to(torch.float8_e5m2)})
    refused("sparse tensors", "_rebuild_sparse_tensor", {"a": torch.eye(2).to_sparse()})
    refused("one number without end", "repeats", {"a": torch.ones(1).expand(10**9)})
    refused("nothing in it", "no tensors", {"epoch": 3})
    refused("NaN", "holds nan", {**state, "fc.bias": torch.full((10,), torch.nan)})
    with case("weights: refused: another number of classes, a layer too many, one missing, all at once"):
        other = {**state, "fc.weight": torch.zeros(1000, 64), "head.bias": torch.zeros(10)}
        del other["layer1.0.bn1.bias"]
        torch.save(other, work / "bad.pt")
        said = nc_train("--model", "resnet20", "--weights", "bad.pt", "--out", "bad.safetensors", status=3).stderr
        for line in ("  missing: layer1.0.bn1.bias [16]", "  unexpected: head.bias [10]",
                     "  of another shape: fc.weight is [1000, 64], the network has [10, 64]"):
            assert line in said.splitlines(), said
    raw = (work / "good.pt").read_bytes()
    (work / "bad.pt").write_bytes(raw[:len(raw) // 2])
    refused("half a file", "bad.pt")
    (work / "bad.pt").write_bytes(raw[:-200_000] + bytes(b ^ 255 for b in raw[-200_000:-199_000]) + raw[-199_000:])
    refused("damage", "checksum")
    with case("weights: refused: no such file"):
        said = nc_train("--model", "mlp", "--weights", "none.pt", "--out", "bad.safetensors", status=3).stderr
        assert "none.pt" in said, said
    with case("weights: --epochs 0 goes with --weights"):
        assert "--weights" in program("nc_train", "--model", "mlp", *data, "--epochs", 0, status=2).stderr


def torchvision_names():
    if not have("torchvision"):
        skip("weights: torchvision's ResNet-18", "no package torchvision")
        return
    import torchvision
    net = torchvision.models.resnet18(num_classes=10)
    net.conv1 = nn.Conv2d(1, 64, 3, 1, 1, bias=False)
    net.maxpool = nn.Identity()
    randomize(net, 9)
    with case("weights: torchvision's ResNet-18 with a stem for small images"):
        torch.save(net.state_dict(), work / "w.pt")
        said = nc_train("--model", "resnet18", "--weights", "w.pt", "--mean", 0.25, "--std", 0.5,
                        "--out", "m.safetensors").stderr
        assert "layer2.0.downsample.0 as layer2.0.shortcut" in said, said
        same(tensors_of(work / "m.safetensors"), as_trained(net.state_dict()))
        if full:
            told = program("nc_convert", "eval", "m.safetensors", *data, "--json", "--quiet").stdout
            assert abs(json.loads(told)["accuracy"] - accuracy(net)) < 1e-9
    with case("weights: its checkpoint for ImageNet is refused"):
        torch.save(torchvision.models.resnet18().state_dict(), work / "w.pt")
        said = nc_train("--model", "resnet18", "--weights", "w.pt", "--out", "m.safetensors", status=3).stderr
        for line in ("conv1.weight is [64, 3, 7, 7], the network has [64, 1, 3, 3]", "fc.weight is [1000, 512]"):
            assert line in said, said


reading()
running()
writing()
refusing()
torchvision_names()
finish()
