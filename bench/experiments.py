"""The experiments of bench/reproduce.sh: what is run, which figures come out, what they are held against.

Commands are those a user would type. {seed} is the run's seed, {name} the model an earlier stage left, {out} the
folder of the run. "Peer" is a published figure and says where; a goal is ours.
"""
from dataclasses import dataclass, field
from typing import Callable, Optional

QCFS = "Bu et al., ICLR 2022"
PLIF = "Fang et al., ICCV 2021, trained directly"


@dataclass(frozen=True)
class Stage:
    """One command. Its JSON is <name>.json, and its model, if it leaves one, <name>.safetensors."""
    name: str
    command: str


@dataclass(frozen=True)
class Row:
    """One figure: `value` takes it from the JSON of a run's stages, by their names."""
    label: str
    value: Callable
    goal: Optional[float] = None  # at least this; at most when less is set; None: for information
    less: bool = False
    each: bool = False  # every seed must reach it, not their mean
    required: bool = True
    peer: str = ""
    unit: str = "%"


@dataclass(frozen=True)
class Experiment:
    name: str
    about: str
    stages: list
    rows: list
    seeds: tuple = (0, 1, 2)
    data: tuple = ()  # folders below NC_DATA
    label: str = ""  # subset, simulated, ...
    quick: bool = False  # also in --quick, there with the first seed only
    device: str = "cpu"
    minutes: int = 10  # of two cores, a seed


def at(stage, t):
    """The accuracy after t steps."""
    return lambda runs: runs[stage]["accuracy_at_t"][t - 1]


def test_accuracy(stage):
    return lambda runs: runs[stage]["test_accuracy"]


def if_accuracy(stage):
    return lambda runs: runs[stage]["if_accuracy"]


MLP = "--dataset mnist --shift 1 --label-smoothing 0.1 --seed {seed}"
CNN = "--shift 2 --label-smoothing 0.1 --seed {seed}"
CIFAR = "--dataset cifar10 --seed {seed}"


def cnn(name, dataset, goal, peer, folders):
    return Experiment(
        name, f"cnn on {dataset}: trained, converted, tuned at T = 8",
        [Stage("ann", f"nc_train --model cnn --dataset {dataset} --epochs 20 --batch 128 {CNN}"),
         Stage("snn", f"nc_convert {{ann}} --dataset {dataset} --T 8 {CNN}")],
        [Row("ANN", test_accuracy("ann")),
         Row("SNN, T = 8", if_accuracy("snn"), goal, peer=peer),
         Row("SNN, T = 4", at("snn", 4)),
         Row("time of a seed", lambda runs: sum(r["wall_seconds"] for r in runs.values()) / 60, unit="minutes")],
        data=folders, minutes=20)


EXPERIMENTS = [
    Experiment(
        "mnist-mlp", "MLP 784-256-256-10 on MNIST, converted for 8 and for 32 steps",
        [Stage("ann", f"nc_train --model mlp --epochs 20 --batch 128 {MLP}"),
         Stage("snn8", f"nc_convert {{ann}} --T 8 {MLP}"),
         Stage("snn32", f"nc_convert {{ann}} --T 32 {MLP}")],
        [Row("ANN", test_accuracy("ann"), peer="97.8"),
         Row("SNN, T = 32", if_accuracy("snn32"), 98.4, peer="97.4"),
         Row("SNN, T = 32, above its ANN", lambda r: r["snn32"]["if_accuracy"] - r["ann"]["test_accuracy"],
             0, required=False),
         Row("SNN, T = 8", if_accuracy("snn8")),
         Row("SNN, T = 8 below T = 32", lambda r: r["snn32"]["if_accuracy"] - r["snn8"]["if_accuracy"], 0.1,
             less=True)],
        data=("mnist",), quick=True, minutes=4),
    Experiment(
        "mnist-lenet", "LeNet on MNIST, converted for 8 steps",
        [Stage("ann", "nc_train --model lenet --dataset mnist --epochs 10 --batch 128 --shift 2 --seed {seed}"),
         Stage("snn", "nc_convert {ann} --dataset mnist --T 8 --shift 2 --seed {seed}")],
        [Row("ANN", test_accuracy("ann")), Row("SNN, T = 8", if_accuracy("snn"))],
        data=("mnist",), minutes=3),
    cnn("mnist-cnn", "mnist", 99.5, f"99.72 ({PLIF})", ("mnist",)),
    cnn("fashion-cnn", "fashion-mnist", 92.5, f"94.38 ({PLIF})", ()),
    Experiment(
        "nmnist", "cnn-nmnist on the real N-MNIST recordings at hand",
        [Stage("ann", "nc_train --model cnn-nmnist --dataset nmnist --T 10 --epochs 10 --seed {seed}"),
         Stage("snn", "nc_convert {ann} --dataset nmnist --T 10 --fold after --seed {seed}"),
         Stage("lif", "nc_train --model cnn-nmnist --neuron lif --dataset nmnist --T 10 --batch 32 --epochs 6 "
                      "--seed {seed}")],
        [Row("ANN", test_accuracy("ann"), peer="99.70 on all of N-MNIST"),
         Row("SNN, T = 10", if_accuracy("snn"), 97, peer=f"99.61 on all of N-MNIST ({PLIF})"),
         Row("LIF, trained directly", test_accuracy("lif"), 95)],
        seeds=(0,), data=("nmnist",), label="subset: 1000 training and 100 test recordings", quick=True, minutes=4),
]
