"""Holds the figures of README.md against the JSON files below bench/results, or writes them there.

<!--from mnist-mlp--> names the file of the figures that follow; each has a comment with its place there, as in
99.17 ± 0.06<!--=ANN-->: keys and, in lists, the label or name of an entry, separated by slashes. A row of
bench/reproduce.sh is its mean and, where the README shows one, its deviation. Figures have as many decimals as they are
written with. <!--printed example/verify--> stands before a block of text that this stage's command printed.

usage: python3 bench/results.py [--write] [--complete] [README]

--write puts the files' figures into the README. --complete: a figure in a table of the results or a block of text
without a file is a problem too.
"""
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCE = r"<!--from (\S+)-->"
FIGURE = r"(-?\d[\d ]*(?:\.\d+)?(?:e-?\d+)?)(?: ± (\d+(?:\.\d+)?))?<!--=(.+?)-->"
PRINTED = r"<!--printed (\S+)/(\S+)-->\n```text\n(.*?)```\n"
WANTED = ("command", "commit", "machine", "date")


def entry(value, step):
    if isinstance(value, list):
        found = [item for item in value if step in (item.get("label"), item.get("name"))]
        if len(found) != 1:
            raise KeyError(f"{len(found)} entries are called '{step}'")
        return found[0]
    return value[step]


def result(file):
    data = json.loads((ROOT / "bench" / "results" / f"{file}.json").read_text())
    missing = [key for key in WANTED if not data.get(key)]
    if missing:
        raise KeyError(f"the file does not say its {', '.join(missing)}")
    return data


def looked_up(file, path):
    """The number, and its deviation or None."""
    data = result(file)
    value = data.get("rows") or data.get("programs") or data
    for step in path.split("/"):
        value = entry(value, step)
    return (value["mean"], value["sd"]) if isinstance(value, dict) else (value, None)


def written(value, like):
    """The value with the decimals, the grouping and the exponent of the text `like`."""
    mantissa, _, exponent = like.partition("e")
    decimals = len(mantissa.partition(".")[2])
    if exponent:
        mantissa, power = f"{value:.{decimals}e}".split("e")
        return f"{mantissa}e{int(power)}"
    text = f"{value:.{decimals}f}"
    grouped = f"{value:,.{decimals}f}".replace(",", " ")
    return grouped if " " in like.strip() else text


def held(text, problems):
    """The text with the files' figures; what differs goes into problems."""
    file, found = "", 0

    def replaced(match):
        nonlocal file, found
        source, number, deviation, path = match.groups()
        if source:
            file = source
            return match[0]
        found += 1
        try:
            mean, sd = looked_up(file, path)
            if deviation is not None and sd is None:
                raise KeyError("there is no deviation")
            now = written(mean, number) + (f" ± {written(sd, deviation)}" if deviation is not None else "")
        except (OSError, KeyError, TypeError, ValueError) as why:
            problems.append(f"{file}: {path}: {why}")
            return match[0]
        before = match[0].partition("<!--")[0]
        if now != before:
            problems.append(f"{file}: {path}: README has {before}, the file {now}")
        return f"{now}<!--={path}-->"

    def printed(match):
        nonlocal found
        file, stage, before = match.groups()
        found += 1
        try:
            now = result(file)["printed"][stage]
        except (OSError, KeyError, TypeError, ValueError) as why:
            problems.append(f"{file}: {stage}: {why}")
            return match[0]
        if now != before:
            problems.append(f"{file}: README shows something else than {stage} printed")
        return f"<!--printed {file}/{stage}-->\n```text\n{now}```\n"

    out = re.sub(PRINTED, printed, re.sub(f"{SOURCE}|{FIGURE}", replaced, text), flags=re.DOTALL)
    marks = text.count("<!--=") + text.count("<!--printed ")
    if found != marks:
        problems.append(f"{marks - found} marks stand before no block or after no figure")
    return out, found


def unmarked(text):
    """Figures in blocks of text and in the tables of the results that no file stands behind."""
    blocks = re.findall(r"```text\n(.*?)```\n", re.sub(PRINTED, "", text, flags=re.DOTALL), flags=re.DOTALL)
    out = [figure for block in blocks for figure in re.findall(r"\d+\.\d+", block)]
    results = text.partition("\n## Results\n")[2].partition("\n## ")[0]
    for line in results.splitlines():
        if line.startswith("|"):
            for cell in line.strip("|").split("|")[1:]:
                out += re.findall(r"\d+\.\d+", re.sub(f"{SOURCE}|{FIGURE}|`.*?`", "", cell))
    return out


def main():
    words = sys.argv[1:]
    names = [word for word in words if not word.startswith("--")]
    readme = pathlib.Path(names[0]) if names else ROOT / "README.md"
    problems = []
    text, found = held(readme.read_text(), problems)
    if "--write" in words:
        readme.write_text(text)
    left = unmarked(text)
    if "--complete" in words and left:
        problems.append(f"no file stands behind {', '.join(left)}")
    print(*problems, sep="\n", end="\n" if problems else "")
    print(f"{found} figures and blocks of files, {len(left)} figures without one, {len(problems)} problems")
    return 1 if problems or found == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
