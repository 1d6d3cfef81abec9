"""The experiments of bench/reproduce.sh: what is run, which figures come out, what they are held against.

Commands are those a user would type. {seed} is the run's seed, {name} the model an earlier stage left, {folder} where
its files are. "Peer" is a published figure and says where; a goal is ours.
"""
import re
from dataclasses import dataclass
from typing import Callable, Optional

QCFS = "Bu et al., ICLR 2022"
PLIF = "Fang et al., ICCV 2021, trained directly"


@dataclass(frozen=True)
class Stage:
    """One command. Its JSON is <name>.json, and its model, if it leaves one, <name>.safetensors."""
    name: str
    command: str
    shown: bool = False  # what it prints, with the first seed, is part of the result
    part: bool = False  # takes a part of the data on purpose, as its rows say: the others' figures are of all of it


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
    kept: bool = False  # hours of work: its files lie below bench/results, for anyone to check and go on with


def at(stage, t):
    """The accuracy after t steps."""
    return lambda runs: runs[stage]["accuracy_at_t"][t - 1]


def test_accuracy(stage):
    return lambda runs: runs[stage]["test_accuracy"]


def if_accuracy(stage):
    return lambda runs: runs[stage]["if_accuracy"]


def qcfs_accuracy(stage):
    return lambda runs: runs[stage]["qcfs_accuracy"]


def report(name, published=""):
    """Options for the page of a conversion, its curve up to 64 steps beside a published one."""
    return f"--report {{folder}}/{name}.html --curve-T 64" + (f" --published '{published}'" if published else "")


def quantized(name, model, bits, words=""):
    """A stage that rounds a network's weights to so many bits."""
    return Stage(name, f"nc_convert quantize {{{model}}} --bits {bits} --out {{folder}}/{name}.safetensors "
                       f"--seed {{seed}}{words}")


def verified(model):
    """A stage that runs a network of whole numbers on every backend, and rows of what it found."""
    def largest(key):
        return lambda runs: max(backend[key] for backend in runs["verify"]["backends"])
    differing = ("u_different", "v_different", "s_different", "logits_different")
    return (Stage("verify", f"nc_convert verify {{{model}}} --samples 1000", shown=True, part=True),
            [Row("neuron steps of 1000 images", largest("neuron_steps"), unit=""),
             Row("spikes of 1000 images", largest("spikes"), unit=""),
             Row("differences between the backends",
                 lambda runs: sum(b[key] for b in runs["verify"]["backends"] for key in differing), 0, less=True,
                 unit="")])


def different_hashes(pairs):
    """How many pairs of stages have different spike hashes."""
    return lambda runs: sum(runs[a]["spike_hash"] != runs[b]["spike_hash"] for a, b in pairs)


MLP = "--dataset mnist --shift 1 --label-smoothing 0.1 --seed {seed}"
CNN = "--shift 2 --label-smoothing 0.1 --seed {seed}"
BITS = (8, 6, 4)
CIFAR = "--dataset cifar10 --seed {seed}"


def cnn(name, dataset, goal, published, folders):
    return Experiment(
        name, f"cnn on {dataset}: trained, converted, tuned at T = 8",
        [Stage("ann", f"nc_train --model cnn --dataset {dataset} --epochs 20 --batch 128 {CNN}"),
         Stage("snn", f"nc_convert {{ann}} --dataset {dataset} --T 8 {report('snn', f'{PLIF}: 8={published}')} {CNN}")],
        [Row("ANN", test_accuracy("ann")),
         Row("QCFS", qcfs_accuracy("snn")),
         Row("SNN, T = 8", if_accuracy("snn"), goal, peer=f"{published} ({PLIF})"),
         Row("SNN, T = 4", at("snn", 4)),
         Row("CPU time of a seed", lambda runs: sum(r["cpu_seconds"] for r in runs.values()) / 60, unit="minutes")],
        data=folders, minutes=8)


def kernel_figure(pattern, key="floor_percent"):
    """The mean over the kernels whose names match."""
    def value(runs):
        found = [b[key] for b in runs["kernels"]["benchmarks"] if re.search(pattern, b["name"])]
        return sum(found) / len(found)
    return value


def kernels():
    rows = []
    for table, sgemm in (("avx2", 92), ("avx512", None)):
        rows += [
            Row(f"sgemm, n = 2048, {table}", kernel_figure(f"^gemm/2048.*/{table}/"), sgemm, peer="OpenBLAS 92",
                unit="% of FMA peak"),
            Row(f"- weights packed beforehand, {table}", kernel_figure(f"^gemm/packed/2048.*/{table}/"), sgemm,
                unit="% of FMA peak"),
            Row(f"convolution forward, {table}", kernel_figure(f"^conv.forward/resnet18.*/{table}/"),
                peer="ONNX Runtime 93", unit="% of FMA peak"),
            Row(f"convolution backward, {table}", kernel_figure(f"^conv.backward.*/resnet18.*/{table}/"),
                unit="% of FMA peak"),
            Row(f"linear on spikes at 0.1, event over dense, {table}",
                lambda r, table=table: kernel_figure(f"linear_dense/rate-0.1/{table}/", "minimum_ms")(r)
                / kernel_figure(f"linear_event/rate-0.1/{table}/", "minimum_ms")(r), unit="times")]
    rows += [Row(f"IF forward and backward, T = 4, 33.6 M elements, {table}",
                 lambda r, table=table: r[f"bptt_{table}"]["benchmarks"][0]["floor_percent"], 77,
                 unit="% of reading bandwidth") for table in ("avx2", "avx512")]
    return Experiment(
        "kernels", "kernels against the limits of the same cores, all threads",
        [Stage("kernels", "nc_bench kernels --table avx2,avx512 "
                          "--filter 'gemm/(packed/)?2048|resnet18|spike.linear_.*rate-0.1'"),
         Stage("bptt_avx2", "NC_ISA=avx2 nc_bench bptt --T 4 --elements 33554432"),
         Stage("bptt_avx512", "NC_ISA=avx512 nc_bench bptt --T 4 --elements 33554432")],
        rows, seeds=(0,), minutes=4)


def ablation():
    """What each part of a conversion buys at 4 steps: LeNet on Fashion-MNIST, one trained network a seed."""
    data = "--dataset fashion-mnist --seed {seed}"
    variants = [
        ("none", "thresholds of 1, no training", "--strategy none"),
        ("max", "thresholds from the largest activation", "--strategy max"),
        ("percentile", "thresholds from the 99.9 percentile", "--strategy percentile"),
        ("bias", "- and biases corrected by channel", "--strategy percentile --bias-calibration channel"),
        ("bias_step", "- and biases corrected by channel and step", "--strategy percentile --bias-calibration step"),
        ("membrane", "- and v(0) corrected", "--strategy percentile --membrane-calibration"),
        ("direct", "QCFS training, L = 4", "--strategy qcfs_direct"),
        ("direct8", "- L = 8", "--strategy qcfs_direct --levels 8"),
        ("layer", "- one threshold a layer", "--strategy qcfs_direct --lambda layer"),
        ("direct_bias", "- and its biases corrected by channel and step",
         "--strategy qcfs_direct --bias-calibration step"),
        ("signed", "- neurons that also send -1", "--strategy qcfs_direct --neuron signed"),
        ("exact", "- exact neurons: the QCFS network in spiking form",
         "--strategy qcfs_direct --neuron exact"),
        ("tuned", "and tuned through 4 steps", "--strategy qcfs_if_ft"),
        ("before", "- BatchNorm folded before tuning", "--strategy qcfs_if_ft --fold before"),
        ("thresholds", "- thresholds tuned too", "--strategy qcfs_if_ft --train-thresholds"),
        ("distilled", "- half of the loss from the ANN's answers", "--strategy qcfs_if_ft --distill 0.5"),
        ("untrained", "tuned without QCFS training", "--strategy qcfs_if_ft --qcfs-epochs 0"),
    ]
    return Experiment(
        "ablation", "what each part of a conversion buys at T = 4: LeNet on Fashion-MNIST",
        [Stage("ann", f"nc_train --model lenet --epochs 5 {data}"),
         *(Stage(name, f"nc_convert {{ann}} --T 4 {words} {data}") for name, _, words in variants)],
        [Row("ANN", test_accuracy("ann")), *(Row(label, if_accuracy(name)) for name, label, _ in variants)],
        minutes=12)


def example():
    """What the README shows of one LeNet, each command as it stands there."""
    hashes = [(f"{isa}_{path}", f"NC_ISA={isa} nc_convert eval {{snn}} --samples 1000 --path {path} --spike-hash")
              for isa in ("reference", "sse2", "avx2", "avx512") for path in ("dense", "event")]
    verify, verify_rows = verified("int8")
    return Experiment(
        "example", "the README's example: LeNet on Fashion-MNIST, converted, in whole numbers, on every backend",
        [Stage("ann", "nc_train --model lenet --dataset fashion-mnist --epochs 5"),
         Stage("snn", "nc_convert {ann} --dataset fashion-mnist --T 8", shown=True),
         quantized("int8", "snn", 8), verify,
         *(Stage(name, command, part=True) for name, command in hashes)],
        [Row("SNN, T = 8", if_accuracy("snn")),
         Row("training", lambda r: r["ann"]["cpu_seconds"], unit="CPU seconds"),
         Row("conversion", lambda r: r["snn"]["cpu_seconds"], unit="CPU seconds"),
         Row("runs of 1000 images with another spike hash than the reference",
             different_hashes([("reference_dense", name) for name, _ in hashes[1:]]), 0, less=True, unit=""),
         *verify_rows],
        seeds=(0,), minutes=3)


def memory():
    """The peak of a training step: of nc_train's own tensors, the same on every machine."""
    train = "nc_train --model cnn-nmnist --neuron lif --dataset nmnist --batch 32 --epochs 1 --samples 64"
    stages = {(t, kept): Stage(f"{kept}{t}", f"{train} --T {t}{words}", part=True)
              for t in (16, 32) for kept, words in (("all", ""), ("spikes", " --recompute"))}
    return Experiment(
        "memory", "peak memory of a training step of cnn-nmnist, LIF, batch 32", list(stages.values()),
        [Row(f"T = {t}, {kept} kept", lambda r, name=stage.name: r[name]["peak_bytes"] / 1e6, unit="MB")
         for (t, kept), stage in stages.items()],
        seeds=(0,), data=("nmnist",), minutes=1)


def resnet20():
    """Hours of two cores: stages of at most 90 minutes with --minutes 90."""
    data = f"{CIFAR} --crop 4 --flip --batch 128"
    published = f"{QCFS}: 2=73.20, 4=83.75, 8=89.55, 16=91.62, 32=92.24"
    verify, verify_rows = verified("int8")
    hashes = [(f"{form}{t}", f"nc_convert eval {model} --T {t} --samples 200 --spike-hash --dataset cifar10")
              for t in (1, 8, 32) for form, model in (("nir", "{folder}/nir.nir"), ("again", "{folder}/again.nir"))]
    return Experiment(
        "resnet20", "resnet20 on CIFAR-10: trained, converted, tuned at T = 4, 8 and 16",
        [Stage("ann", f"nc_train --model resnet20 --epochs 120 --optimizer sgd --lr 0.1 --weight-decay 5e-4 {data}"),
         Stage("snn32", f"nc_convert {{ann}} --T 32 --levels 16 --strategy qcfs_direct --recipe cifar "
                        f"--qcfs-epochs 20 --dump {{folder}}/snn32.dump {report('snn32', published)} {data}"),
         *(Stage(f"snn{t}", f"nc_convert {{folder}}/snn32.dump/3-qcfs.safetensors --T {t} --levels {t} --recipe cifar "
                            f"--strategy qcfs_if_ft --qcfs-epochs 8 --if-epochs 8 --if-lr 5e-4 --distill 0.5 "
                            f"{report(f'snn{t}', published)} {data}") for t in (8, 4)),
         Stage("snn16", f"nc_convert {{folder}}/snn32.dump/3-qcfs.safetensors --T 16 --levels 16 --recipe cifar "
                        f"--strategy qcfs_if_ft --qcfs-epochs 8 --if-epochs 4 --if-lr 5e-4 --distill 0.5 "
                        f"{report('snn16', published)} {data}"),
         quantized("int8", "snn8", 8), verify, Stage("nir", "nc_convert export {snn8} --emit nir={folder}/nir.nir"),
         Stage("again", "nc_convert export {folder}/nir.nir --emit nir={folder}/again.nir"),
         *(Stage(name, command, part=True) for name, command in hashes)],
        [Row("ANN", test_accuracy("ann"), 91.5, peer=f"91.77 ({QCFS})"),
         Row("QCFS", qcfs_accuracy("snn32")),
         Row("SNN tuned at T = 4", if_accuracy("snn4"), 87, peer=f"83.75 ({QCFS}); 86.43, corrected"),
         Row("SNN tuned at T = 8", if_accuracy("snn8"), 90, peer=f"89.55 ({QCFS}); 91.38, corrected"),
         Row("SNN, T = 32", if_accuracy("snn32"), peer=f"92.24 ({QCFS}); 93.09, corrected"),
         Row("SNN tuned at T = 16", if_accuracy("snn16"), peer=f"91.62 ({QCFS})"),
         Row("- after T = 32", at("snn16", 32), peer=f"92.24 ({QCFS}); 93.09, corrected"),
         Row("- below its ANN", lambda r: r["ann"]["test_accuracy"] - at("snn16", 32)(r), 0.3, less=True),
         Row("one network, T = 2", at("snn32", 2), peer=f"73.20 ({QCFS})"),
         Row("one network, T = 4", at("snn32", 4), peer=f"83.75 ({QCFS})"),
         Row("one network, T = 8", at("snn32", 8), peer=f"89.55 ({QCFS})"),
         Row("one network, T = 16", at("snn32", 16), peer=f"91.62 ({QCFS})"),
         Row("runs of 200 images with another spike hash after NIR is read and written",
             different_hashes([(f"nir{t}", f"again{t}") for t in (1, 8, 32)]), 0, less=True, unit=""),
         *verify_rows],
        seeds=(0,), data=("cifar10",), minutes=360, kept=True)


def nmnist_simulated():
    """Networks that learn from simulated events only, tested on real ones."""
    data = "--dataset nmnist-simulated --samples 6000 --T 10 --seed {seed}"

    def figure(side, name):
        return lambda runs: runs["events"][side][name]
    alike = [("events a recording", "events"), ("- standard deviation", "events"), ("ON %", "%"),
             ("active pixels %", "%"), ("autocorrelation, lag 1", ""), ("autocorrelation, lag 4", "")]
    return Experiment(
        "nmnist-simulated", "cnn-nmnist trained on events simulated from MNIST, tested on the real recordings at hand",
        [Stage("ann", f"nc_train --model cnn-nmnist --epochs 8 {data}"),
         Stage("snn", f"nc_convert {{ann}} --fold after {data}"),
         Stage("real_ann", "nc_convert eval {ann} --dataset nmnist"),
         Stage("real_snn", "nc_convert eval {snn} --dataset nmnist"),
         Stage("all", "nc_convert eval {snn}"),
         Stage("events", "nc_bench events --real nmnist --simulated nmnist-simulated --skip 500 --samples 500")],
        [Row("ANN, real recordings", lambda r: r["real_ann"]["accuracy"]),
         Row("SNN, T = 10, real recordings", lambda r: r["real_snn"]["accuracy"], 95),
         Row("SNN, T = 10, 10 000 simulated", lambda r: r["all"]["accuracy"]),
         *(Row(f"{side}: {name.removeprefix('- ')}", figure(side, name), unit=unit)
           for name, unit in alike for side in ("real", "simulated")),
         Row("correlation of events a pixel, same digit", lambda r: r["events"]["image_correlation"], unit=""),
         Row("correlation of rates over time", lambda r: r["events"]["rate_correlation"], unit="")],
        seeds=(0,), data=("mnist", "nmnist"), label="simulated events; 100 real test recordings", minutes=25)


def cartpole():
    """Validation, which chooses the checkpoint, and test are different episodes of 100 each."""
    def returned(stage, network):
        return lambda runs: next(n["mean"] for n in runs[stage]["returns"]["networks"] if n["network"] == network)
    train = "nc_train --task cartpole --seed {seed}"
    convert = "nc_convert {ann} --dataset cartpole --seed {seed}"
    return Experiment(
        "cartpole", "CartPole-v1: policies by double DQN, converted and trained directly",
        [Stage("ann", train), Stage("snn4", f"{convert} --T 4"), Stage("snn16", f"{convert} --T 16"),
         Stage("if", f"{train} --neuron if --T 4"), Stage("lif", f"{train} --neuron lif --T 4"),
         Stage("actions", "nc_convert actions {ann} {snn16}")],
        [Row("ANN", lambda r: r["ann"]["test_return"], 475, each=True, unit="return"),
         Row("converted, T = 4", returned("snn4", "SNN"), 475, each=True, unit="return"),
         Row("converted, T = 16", returned("snn16", "SNN"), 475, each=True, unit="return",
             peer="29 % of seeds above 195"),
         Row("IF, trained directly, T = 4", lambda r: r["if"]["test_return"], 475, each=True, unit="return"),
         Row("LIF, trained directly, T = 4", lambda r: r["lif"]["test_return"], 475, each=True, unit="return"),
         Row("states with another action, T = 16", lambda r: r["actions"]["different_percent"])],
        seeds=(0, 1, 2, 3, 4), quick=True, minutes=1)


def on_a_card(name, goals):
    """TARGETS' recipe for a network of full size; one seed a lease, checkpointed."""
    data = CIFAR + " --recipe cifar --device cuda --precision bf16"
    tuned = [Stage(f"snn{t}", f"nc_convert {{ann}} --T {t} --strategy qcfs_if_ft --recipe cifar --qcfs-epochs 100 "
                              f"--if-epochs 20 {CIFAR} --crop 4 --flip --auto-augment --cutout 16 --batch 128 "
                              "--device cuda --precision bf16") for t in goals if t != "ann"]
    return Experiment(
        f"{name}", f"{name} on CIFAR-10, tuned at each T",
        [Stage("ann", f"nc_train --model {name} --epochs 300 {data}"), *tuned],
        [Row("ANN", test_accuracy("ann"), goals["ann"]),
         *(Row(f"SNN, T = {t}", if_accuracy(f"snn{t}"), goal) for t, goal in goals.items() if t != "ann")],
        seeds=(0,), data=("cifar10",), device="cuda", minutes=60, kept=True)


EXPERIMENTS = [
    Experiment(
        "mnist-mlp", "MLP 784-256-256-10 on MNIST, converted for 8 and for 32 steps",
        [Stage("ann", f"nc_train --model mlp --epochs 20 --batch 128 {MLP}"),
         *(Stage(f"snn{t}", f"nc_convert {{ann}} --T {t} --qcfs-epochs 15 --distill 0.5 {report(f'snn{t}')} {MLP}")
           for t in (8, 32)),
         *(quantized(f"rounded{bits}", "snn8", bits) for bits in BITS),
         *(quantized(f"trained{bits}", "snn8", bits, " --no-clip-search --if-epochs 2") for bits in BITS)],
        [Row("ANN", test_accuracy("ann"), peer="97.8"),
         Row("QCFS", qcfs_accuracy("snn8")),
         Row("SNN, T = 32", if_accuracy("snn32"), 98.4, peer="97.4"),
         Row("SNN, T = 32, above its ANN", lambda r: r["snn32"]["if_accuracy"] - r["ann"]["test_accuracy"], 0),
         Row("SNN, T = 8", if_accuracy("snn8")),
         Row("SNN, T = 8 below T = 32", lambda r: r["snn32"]["if_accuracy"] - r["snn8"]["if_accuracy"], 0.1,
             less=True),
         *(Row(f"- {bits} bits, {how}", lambda r, stage=f"{how}{bits}": r[stage]["quantized_accuracy"])
           for how in ("rounded", "trained") for bits in BITS)],
        data=("mnist",), quick=True, minutes=1),
    Experiment(
        "mnist-lenet", "LeNet on MNIST, converted for 8 steps",
        [Stage("ann", "nc_train --model lenet --dataset mnist --epochs 10 --batch 128 --shift 2 --seed {seed}"),
         Stage("snn", "nc_convert {ann} --dataset mnist --T 8 --shift 2 --seed {seed}")],
        [Row("ANN", test_accuracy("ann")), Row("QCFS", qcfs_accuracy("snn")), Row("SNN, T = 8", if_accuracy("snn"))],
        data=("mnist",), minutes=2),
    Experiment(
        "fashion-lenet", "LeNet on Fashion-MNIST, converted for 8 steps: the README's example",
        [Stage("ann", "nc_train --model lenet --dataset fashion-mnist --epochs 5 --seed {seed}"),
         Stage("snn", "nc_convert {ann} --dataset fashion-mnist --T 8 --seed {seed}")],
        [Row("ANN", test_accuracy("ann")), Row("QCFS", qcfs_accuracy("snn")), Row("SNN, T = 8", if_accuracy("snn")),
         *(Row(f"- T = {t}", at("snn", t)) for t in (1, 2, 4, 16))],
        quick=True, minutes=1),
    cnn("mnist-cnn", "mnist", 99.5, 99.72, ("mnist",)),
    cnn("fashion-cnn", "fashion-mnist", 92.5, 94.38, ()),
    Experiment(
        "nmnist", "cnn-nmnist on the real N-MNIST recordings at hand",
        [Stage("ann", "nc_train --model cnn-nmnist --dataset nmnist --T 10 --epochs 10 --seed {seed}"),
         Stage("snn", "nc_convert {ann} --dataset nmnist --T 10 --fold after --seed {seed}"),
         Stage("lif", "nc_train --model cnn-nmnist --neuron lif --dataset nmnist --T 10 --batch 32 --epochs 6 "
                      "--seed {seed}")],
        [Row("ANN", test_accuracy("ann"), peer="99.70 on all of N-MNIST"),
         Row("QCFS", qcfs_accuracy("snn")),
         Row("SNN, T = 10", if_accuracy("snn"), 97, peer=f"99.61 on all of N-MNIST ({PLIF})"),
         Row("LIF, trained directly", test_accuracy("lif"), 95)],
        seeds=(0,), data=("nmnist",), label="subset: 1000 training and 100 test recordings", quick=True, minutes=4),
    example(),
    nmnist_simulated(),
    cartpole(),
    memory(),
    kernels(),
    ablation(),
    resnet20(),
    on_a_card("resnet18", {"ann": 96.0, 4: 95.5, 8: 95.9, 32: 96.09}),
    on_a_card("vgg16", {"ann": None, 4: None, 8: None}),
]
