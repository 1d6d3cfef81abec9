"""PyTorch networks to export: random ones, and the forms of known ones."""
import random

import torch
from torch import nn


class Silu(nn.Module):
    """As people write it."""
    def forward(self, x):
        return x * torch.sigmoid(x)


class Gelu(nn.Module):
    def forward(self, x):
        return 0.5 * x * (1 + torch.erf(x / 2 ** 0.5))


def activation(rng, channels, shared):
    kinds = [lambda: shared, nn.ReLU, nn.ReLU6, lambda: nn.LeakyReLU(0.1), lambda: nn.PReLU(channels), nn.PReLU,
             nn.SiLU, nn.GELU, nn.Hardswish, Silu, Gelu, lambda: nn.Hardtanh(0, rng.choice([1.0, 4.0]))]
    return rng.choice(kinds)()


def pooling(rng):
    return rng.choice([lambda: nn.AvgPool2d(2), lambda: nn.MaxPool2d(2), lambda: nn.AvgPool2d(3, 2, 1),
                       lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
                       lambda: nn.Sequential(nn.ZeroPad2d(1), nn.AvgPool2d(5, 2, 1, count_include_pad=False)),
                       lambda: nn.MaxPool2d(3, 2, 1), lambda: nn.MaxPool2d(2, 1),
                       lambda: nn.Sequential(nn.ZeroPad2d(1), nn.AvgPool2d(3, 2))])()


def convolution(rng, channels_in, channels, stride=1):
    """Plain, asymmetrically padded, dilated, grouped or depthwise; the size is kept or halved."""
    groups = rng.choice([1, 1, 1, 2]) if channels_in % 2 == 0 and channels % 2 == 0 else 1
    kind = rng.choice(["plain", "plain", "small", "wide", "dilated", "padded", "depthwise"])
    bias = rng.random() < 0.5
    if kind == "small":
        return nn.Conv2d(channels_in, channels, 1, stride, bias=bias, groups=groups)
    if kind == "wide":
        return nn.Conv2d(channels_in, channels, (3, 5), stride, (1, 2), bias=bias, groups=groups)
    if kind == "dilated":
        return nn.Conv2d(channels_in, channels, 3, stride, 2, dilation=2, bias=bias, groups=groups)
    if kind == "padded":
        return nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels_in, channels, 2, stride, bias=bias))
    if kind == "depthwise":
        return nn.Sequential(nn.Conv2d(channels_in, channels_in, 3, stride, 1, groups=channels_in, bias=bias),
                             nn.Conv2d(channels_in, channels, 1, bias=bias))
    return nn.Conv2d(channels_in, channels, 3, stride, 1, bias=bias, groups=groups)


class Residual(nn.Module):
    def __init__(self, rng, channels, shared, depth):
        super().__init__()
        layers = []
        for i in range(depth):
            layers += [convolution(rng, channels, channels), nn.BatchNorm2d(channels)]
            if i + 1 < depth:
                layers.append(activation(rng, channels, shared))
        self.body = nn.Sequential(*layers)
        self.minus = rng.random() < 0.2
        self.after = activation(rng, channels, shared) if rng.random() < 0.8 else nn.Identity()

    def forward(self, x):
        y = self.body(x)
        return self.after(y - x if self.minus else y + x)


class Branches(nn.Module):
    """Feature maps side by side."""
    def __init__(self, rng, channels, shared):
        super().__init__()
        self.a = nn.Sequential(convolution(rng, channels, channels), activation(rng, channels, shared))
        self.b = nn.Conv2d(channels, channels // 2, 1)

    def forward(self, x):
        return torch.cat([self.a(x), x, self.b(x)], 1)


class Squashed(nn.Module):
    """Global pooling, in many spellings."""
    def __init__(self, rng):
        super().__init__()
        self.kind = rng.choice(["adaptive", "mean", "view", "squeeze", "flatten", "flatten", "reshape"])
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        if self.kind == "adaptive":
            return torch.flatten(self.pool(x), 1)
        if self.kind == "mean":
            return x.mean((2, 3))
        if self.kind == "view":
            return self.pool(x).view(x.size(0), -1)
        if self.kind == "squeeze":
            return self.pool(x).squeeze(-1).squeeze(-1)
        if self.kind == "reshape":
            return x.reshape(x.shape[0], x.shape[1] * x.shape[2] * x.shape[3])
        return torch.flatten(x, 1)


class Net(nn.Module):
    def __init__(self, seed):
        super().__init__()
        rng = random.Random(seed)
        torch.manual_seed(seed)
        depth = rng.randint(2, 12)  # weight layers, about
        shared = nn.ReLU()
        self.maps = rng.random() < 0.85
        self.scaled = rng.random() < 0.2  # normalisation inside the network
        channels = size = 0
        layers = []
        if self.maps:
            self.input_shape = (rng.choice([1, 3]), rng.choice([8, 12, 16]), rng.choice([8, 12, 16]))
            channels, size = self.input_shape[0], min(self.input_shape[1:])
            left = depth - 1
            while left > 0:
                wanted = rng.choice([4, 6, 8, 12])
                if left >= 2 and rng.random() < 0.4 and channels >= 4:
                    count = rng.randint(1, min(3, left))
                    layers.append(Residual(rng, channels, shared, count))
                    left -= count
                elif channels >= 4 and channels % 2 == 0 and rng.random() < 0.15:
                    layers.append(Branches(rng, channels, shared))
                    channels = channels * 5 // 2
                    left -= 1
                else:
                    stride = 2 if size >= 8 and rng.random() < 0.3 else 1
                    layers.append(convolution(rng, channels, wanted, stride))
                    size //= stride
                    channels = wanted
                    if rng.random() < 0.6:
                        layers.append(nn.BatchNorm2d(channels, affine=rng.random() < 0.8))
                    layers.append(activation(rng, channels, shared))
                    left -= 1
                if size >= 6 and rng.random() < 0.3:
                    layers.append(pooling(rng))
                    size //= 2
                if rng.random() < 0.1:
                    layers.append(nn.Dropout(0.3))
            layers.append(Squashed(rng))
        else:
            self.input_shape = (rng.choice([10, 33]),)
        body = nn.Sequential(*layers)
        with torch.no_grad():
            features = body.eval()(torch.zeros(2, *self.input_shape)).shape[1]
        for _ in range(rng.randint(0, 2) if self.maps else depth - 1):
            hidden = rng.choice([16, 24])
            layers.append(nn.Linear(features, hidden, bias=rng.random() < 0.6))
            if rng.random() < 0.5:
                layers.append(nn.BatchNorm1d(hidden))
            layers.append(activation(rng, hidden, shared))
            features = hidden
        layers.append(nn.Linear(features, 10, bias=rng.random() < 0.7))
        self.body = nn.Sequential(*layers)
        self.settle()

    def forward(self, x):
        if self.scaled and self.maps:
            x = (x - 0.4) / 0.3
        return self.body(x)

    def settle(self):
        """Statistics and slopes as of training, so that no layer is the identity."""
        with torch.no_grad():
            for m in self.modules():
                if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)):
                    m.running_mean.normal_(0, 0.2)
                    m.running_var.uniform_(0.5, 2)
                    if m.affine:
                        m.weight.uniform_(0.5, 1.5)
                        m.bias.normal_(0, 0.2)
                if isinstance(m, nn.PReLU):
                    m.weight.uniform_(-0.2, 0.5)
        self.eval()
