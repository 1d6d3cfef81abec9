"""Runs the experiments of experiments.py; bench/reproduce.sh builds the programs and calls this."""
import argparse
import datetime
import importlib.util
import itertools
import json
import math
import os
import pathlib
import re
import resource
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

# From the project's root, where reproduce.sh starts this.
RESULTS = pathlib.Path("bench/results")
RUNS = pathlib.Path("run/reproduce")


class Cut(Exception):
    """Interrupted, or out of time; what was done is kept."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def commit():
    def git(*words):
        return subprocess.run(["git", *words], capture_output=True, text=True).stdout.strip()
    # Results that an earlier experiment wrote do not change what is measured.
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+changes" if changed else "")


def machine():
    names = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return f"{len(os.sched_getaffinity(0))} x {names[0] if names else 'unknown'}"


def with_data(folders):
    """The programs' environment with these data sets below NC_DATA, fetched where they are missing; None when one
    cannot be had. Fashion-MNIST is Debian's and needs none."""
    environment = dict(os.environ)
    if not folders:
        return environment
    root = pathlib.Path(environment.setdefault("NC_DATA", str(pathlib.Path("run/data").absolute())))
    for folder in folders:
        if not (root / folder).is_dir():
            say(f"fetching {folder} into {root}")
            root.mkdir(parents=True, exist_ok=True)
            if subprocess.run(["bash", "datasets/fetch.sh", folder], env=environment).returncode != 0:
                return None
    return environment


def cpu_seconds():
    """Of the programs run so far, all their threads."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def words_of(stage, seed, folder):
    """The stage's command with its files, and the variables before it; it goes on where an earlier one was cut."""
    def file(suffix):
        return str(folder / f"{stage.name}{suffix}")
    models = {p.name.removesuffix(".safetensors"): str(p) for p in folder.glob("*.safetensors")}
    words = shlex.split(stage.command.format(seed=seed, folder=folder, **models))
    variables = dict(word.split("=", 1) for word in itertools.takewhile(lambda word: "=" in word, words))
    program, *words = words[len(variables):]
    if program == "nc_train":
        last = file(".last.safetensors")
        words = ["--resume", last] if os.path.exists(last) else words
        words += ["--out", file(".safetensors"), "--log", file(".jsonl")]
    elif program == "nc_convert" and (words[0].endswith(".safetensors") or words[0] == "finetune"):
        words += ["--out", file(".safetensors"), "--log", file(".jsonl"), "--checkpoint", file(".state"), "--resume"]
    return variables, [os.path.join(os.environ["NC_BUILD"], program), *words, "--json", file(".part"), "--force"]


def commands_of(stage, stages):
    """The stage's command after those of the stages whose files it takes."""
    before = stages[:stages.index(stage)]
    taken = [s for s in before if re.search(rf"{{{s.name}}}|/{s.name}\.", stage.command)]
    return [command for s in taken for command in commands_of(s, stages)] + [stage.command]


def run_stage(stage, stages, seed, folder, environment, deadline):
    """What the stage's command reported, from its file when it has run before with the same words, and those before."""
    commands = commands_of(stage, stages)
    done = folder / f"{stage.name}.json"
    if done.exists():
        before = json.loads(done.read_text())
        if before.get("commands") == commands:
            return before
        say(f"{stage.name}: a command has changed, so it runs again")
    start = folder / f"{stage.name}.begun"
    if not start.exists() or json.loads(start.read_text()) != commands:
        for left in folder.glob(f"{stage.name}.*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        start.write_text(json.dumps(commands))
    variables, words = words_of(stage, seed, folder)
    say("$ " + shlex.join([*map("=".join, variables.items()), os.path.basename(words[0]), *words[1:]]))
    clock = folder / f"{stage.name}.seconds"
    earlier, begin = float(clock.read_text()) if clock.exists() else 0.0, cpu_seconds()
    with tempfile.TemporaryFile("w+") as printed:
        child = subprocess.Popen(words, stdout=printed, env=environment | variables)
        try:
            status = child.wait(None if deadline is None else max(1.0, deadline - time.monotonic()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as why:
            # A Ctrl-C of the terminal has reached the program already; a second would end it at once.
            if isinstance(why, subprocess.TimeoutExpired):
                child.send_signal(signal.SIGINT)
            status = child.wait()
        printed.seek(0)
        text = printed.read()
    seconds = earlier + cpu_seconds() - begin
    clock.write_text(str(seconds))
    if status == 130:
        raise Cut
    if status != 0:
        raise RuntimeError(f"{stage.name}: exit status {status}")
    result = json.loads((folder / f"{stage.name}.part").read_text())
    result.update(commands=commands, cpu_seconds=seconds, printed=text,
                  made={"commit": commit(), "machine": machine(), "date": datetime.date.today().isoformat()})
    done.write_text(json.dumps(result))
    for left in (folder / f"{stage.name}.part", clock, start):
        left.unlink()
    shutil.rmtree(folder / f"{stage.name}.state", ignore_errors=True)
    return result


def judged(row, values):
    """A row of the result: mean, deviation, and whether the goal is reached."""
    mean = statistics.fmean(values)
    compared = (max(values) if row.less else min(values)) if row.each else mean
    compared = round(compared, 6)  # 99.1 - 99.0 is 0.1
    verdict = None
    if row.goal is not None:
        verdict = "PASS" if (compared <= row.goal if row.less else compared >= row.goal) else "SHORT"
    return {"label": row.label, "unit": row.unit, "values": values, "mean": mean,
            "sd": statistics.stdev(values) if len(values) > 1 else None,
            "goal": row.goal, "goal_is": "at most" if row.less else "at least", "of_each_seed": row.each,
            "required": row.required and row.goal is not None, "peer": row.peer or None, "verdict": verdict}


def shown(row):
    text = f"{row['mean']:.2f}"
    return text if row["sd"] is None else f"{text} +- {row['sd']:.2f}"


def table(rows):
    cells = [("", "here", "published", "goal", "")]
    for row in rows:
        goal = "" if row["goal"] is None else f"{'<=' if row['goal_is'] == 'at most' else '>='} {row['goal']:g}"
        verdict = row["verdict"] or ""
        if verdict == "SHORT" and not row["required"]:
            verdict = "SHORT (not required)"
        unit = "" if row["unit"] in ("", "%") else f", {row['unit']}"
        cells.append((row["label"] + unit, shown(row), row["peer"] or "", goal, verdict))
    widths = [max(len(line[i]) for line in cells) for i in range(5)]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip() for line in cells)


def run(experiment, seeds, options, deadline):
    """Prints the experiment's table and writes its JSON; True when every required row passes."""
    if experiment.device == "cuda" and not os.path.exists("/dev/nvidiactl"):
        print(f"\n{experiment.name}: NOT RUN, it needs a GPU")
        return False
    environment = with_data(experiment.data)
    if environment is None:
        print(f"\n{experiment.name}: NOT RUN, its data is not here: {', '.join(experiment.data)}")
        return False
    per_seed = []
    for seed in seeds:
        folder = (RESULTS if experiment.kept else RUNS) / experiment.name / f"seed{seed}"
        if options.fresh:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        per_seed.append({stage.name: run_stage(stage, experiment.stages, seed, folder, environment, deadline)
                         for stage in experiment.stages})
    rows = [judged(row, [float(row.value(runs)) for runs in per_seed]) for row in experiment.rows]
    labels = [experiment.label] if experiment.label else []
    if "subset" not in experiment.label and any(runs[s.name].get("subset") for runs in per_seed
                                                for s in experiment.stages if not s.part):
        labels.append("subset")
    if len(seeds) < 3 and any("{seed}" in stage.command for stage in experiment.stages):
        labels.append("one seed" if len(seeds) == 1 else f"{len(seeds)} seeds")
    label = ", ".join(labels)
    # Stages may have run on different days.
    made = {key: ", ".join(sorted({r["made"][key] for runs in per_seed for r in runs.values()}))
            for key in ("commit", "machine", "date")}
    result = {"experiment": experiment.name, "about": experiment.about, "label": label or None,
              "command": "bash bench/reproduce.sh " + shlex.join(sys.argv[1:]), "seeds": list(seeds), **made,
              "stages": {s.name: s.command for s in experiment.stages}, "rows": rows}
    texts = {s.name: per_seed[0][s.name]["printed"] for s in experiment.stages if s.shown}
    if texts:
        result["printed"] = texts
    out = pathlib.Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{experiment.name}.json").write_text(json.dumps(result, indent=2) + "\n")
    print(f"\n{experiment.name}: {experiment.about}; seeds {', '.join(map(str, seeds))}"
          + (f" ({label})" if label else ""))
    print(table(rows), flush=True)
    return all(row["verdict"] != "SHORT" or not row["required"] for row in rows)


def experiments_of(path):
    spec = importlib.util.spec_from_file_location("experiments", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["experiments"] = module
    spec.loader.exec_module(module)
    return module.EXPERIMENTS


def parse():
    parser = argparse.ArgumentParser(prog="bash bench/reproduce.sh", add_help=False)
    parser.add_argument("names", nargs="*", metavar="NAME")
    for flag in ("--list", "--quick", "--all", "--fresh"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--seeds")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--out")
    parser.add_argument("--table", default="bench/experiments.py")
    options = parser.parse_args()
    known = {e.name: e for e in experiments_of(options.table)}
    for name in options.names:
        if name not in known:
            parser.error(f"no experiment is called '{name}'; there are {', '.join(known)}")
    if sum((bool(options.names), options.list, options.quick, options.all)) != 1:
        parser.error("one of --list, --quick, --all or names")
    if options.minutes is not None and not (options.minutes > 0 and math.isfinite(options.minutes)):
        parser.error(f"--minutes must be positive: {options.minutes:g}")
    try:
        options.seeds = options.seeds and [int(seed) for seed in options.seeds.split(",")]
    except ValueError:
        parser.error(f"--seeds takes whole numbers separated by commas: {options.seeds}")
    options.out = options.out or (RUNS / "quick" if options.quick else RESULTS)
    options.chosen = [e for e in known.values()
                      if options.all or options.list or (options.quick and e.quick) or e.name in options.names]
    return options


def main():
    options = parse()
    if options.list:
        for e in options.chosen:
            print(f"{e.name:<22} {e.minutes:>4} min a seed, {len(e.seeds)} seed{'s' if len(e.seeds) > 1 else ' '}"
                  f"{' (GPU)' if e.device == 'cuda' else ''}  {e.about}{' [--quick]' if e.quick else ''}")
        return 0
    deadline = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    passed = []
    try:
        for e in options.chosen:
            seeds = options.seeds or (e.seeds[:1] if options.quick else e.seeds)
            passed.append(run(e, seeds, options, deadline))
    except Cut:
        say("cut; the same command goes on from here")
        return 130
    except RuntimeError as why:
        say(f"error: {why}")
        return 2
    print(f"\n{sum(passed)} of {len(passed)} experiments reach every required figure")
    return 0 if all(passed) else 1


sys.exit(main())
