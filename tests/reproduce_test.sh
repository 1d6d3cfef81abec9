#!/usr/bin/env bash
# bench/reproduce.sh: verdicts, exit statuses, results, and going on where it was cut; on simulated events, in seconds.
cd "$(dirname "$0")/.." || exit 2
. tests/script.sh
NC_BUILD=$(cd "${NC_BUILD:?names the build to use}" && pwd)
root=$PWD
export NC_BUILD

# A copy of the scripts, so that run/ is the test's own.
mkdir "$work/tree" && cp -r bench "$work/tree" && ln -s "$PWD/datasets" "$work/tree" && cd "$work/tree" || exit 2
cat >table.py <<'END'
import pathlib, runpy, sys
globals().update(runpy.run_path(str(pathlib.Path("bench/experiments.py").resolve())))
DATA = "--dataset synthetic-events --T 4 --samples 64 --batch 16 --seed {seed}"
def experiment(name, goal, epochs=1, **other):
    return Experiment(name, "events", [
        Stage("ann", f"nc_train --model mlp --epochs {epochs} " + DATA),
        Stage("snn", "nc_convert {ann} --qcfs-epochs 2 --if-epochs 2 " + DATA),
        Stage("one", "nc_convert eval {snn} --samples 64", shown=True)],
        [Row("ANN", test_accuracy("ann"), goal), Row("SNN", lambda r: r["one"]["accuracy"], goal, required=False),
         Row("least", if_accuracy("snn"), 101, less=True, each=True, peer="a paper")], **other)
EXPERIMENTS = [experiment("low", 0), experiment("high", 101, seeds=(0,), quick=True),
               experiment("long", 0, epochs=300, seeds=(3,), label="simulated"),
               experiment("card", 0, device="cuda"), experiment("none", 0, data=("no-such-data",))]
END
reproduce() {
    status=0
    bash bench/reproduce.sh --table table.py --out results "$@" >out 2>err </dev/null || status=$?
}
holds() { check "$1" python3 -c "import json; j = json.load(open('$2')); assert $3, j"; }

reproduce --list
check '--list names every experiment' [ "$status $(wc -l <out)" = '0 5' ]
reproduce low
check 'goals reached: exit status 0' [ $status = 0 ]
check 'goals reached: PASS in every row' [ "$(grep -c 'PASS$' out)" = 3 ]
holds 'the result names command, commit, seeds, machine and date' results/low.json \
    'j["command"].endswith(" low") and j["commit"] and j["seeds"] == [0, 1, 2] and j["machine"] and j["date"]'
holds 'the result has mean and deviation over seeds' results/low.json \
    'len(j["rows"][0]["values"]) == 3 and j["rows"][0]["sd"] >= 0 and j["rows"][2]["verdict"] == "PASS"'
reproduce low
check 'what is done is not done again' [ "$status $(grep -c '^\$' err)" = '0 0' ]
reproduce --quick
check 'a goal missed: exit status 1' [ $status = 1 ]
check 'a goal missed: SHORT, and whether it is required' \
    [ "$(grep -c 'SHORT$' out) $(grep -c 'SHORT (not required)$' out)" = '1 1' ]
holds 'subset and seed are labelled' results/high.json 'j["label"] == "subset, one seed"'
reproduce --quick --fresh
check '--fresh does it again' [ "$(grep -c '^\$' err)" = 3 ]

reproduce long --seeds 3 --minutes 0.01
check 'out of time: exit status 130' [ $status = 130 ]
check 'out of time: says how to go on' grep -q 'the same command goes on' err
reproduce long --seeds 3
check 'goes on from the checkpoint' grep -q '^\$ nc_train --resume' err
holds 'the label says what it is of' results/long.json 'j["label"] == "simulated, subset, one seed" and len(j["rows"]) == 3'
sed -i 's/epochs=300/epochs=2/' table.py
reproduce long
check 'another command is run anew, and what took its model' \
    [ "$(grep -c 'a command has changed' err) $(grep -c '^\$' err)" = '3 3' ]

check "README: its figures are the files'" python3 "$root/bench/results.py" --complete
mkdir -p bench/results && cp results/low.json bench/results/
# readme TEXT: a README whose results are this table.
readme() { printf '# A\n\n## Results\n\n%s\n\n## Limits\n' "$1" >readme.md; }
readme '| SNN<!--from low--> | 0.0 ± 0.0<!--=ANN--> |'
check 'figures: what differs is a problem' bash -c '! python3 bench/results.py readme.md >said && grep -q "README has 0.0 ± 0.0" said'
check 'figures: --write puts them right' bash -c '! python3 bench/results.py --write readme.md && python3 bench/results.py readme.md'
check 'figures: mean and deviation' python3 -c 'import json
row = json.load(open("results/low.json"))["rows"][0]
assert f"""| {row["mean"]:.1f} ± {row["sd"]:.1f}<!--=ANN--> |""" in open("readme.md").read()'
for wrong in '<!--from none-->1.0<!--=ANN-->' '<!--from low-->1.0<!--=nothing-->' '<!--from low-->a<!--=ANN-->' '1.0'; do
    readme "| x | $wrong |"
    check "figures: a problem: $wrong" bash -c '! python3 bench/results.py readme.md'
done
python3 -c 'import json
text = json.load(open("results/low.json"))["printed"]["one"]
assert "%" in text
print("<!--printed low/one-->\n```text\n" + text + "```")' >printed || fail 'a stage that is shown: what it printed' ''
readme "$(cat printed)"
check 'figures: a block is what the stage printed' python3 bench/results.py --complete readme.md
sed -i 's/accuracy/precision/' readme.md
check 'figures: a block that differs is a problem' bash -c '! python3 bench/results.py readme.md'
check 'figures: --write puts the block right' bash -c '! python3 bench/results.py --write readme.md && python3 bench/results.py readme.md'
readme "$(sed 's/printed low/printed none/' printed)"
check 'figures: a block of no file is a problem' bash -c '! python3 bench/results.py readme.md'
readme "$(tail -n +2 printed)"
check 'figures: --complete wants a file for each block' bash -c '! python3 bench/results.py --complete readme.md >said && grep -q "behind" said'
readme '| y | 2.5 |'
check 'figures: --complete wants a file for each' bash -c '! python3 bench/results.py --complete readme.md >said && grep -q "behind 2.5" said'

if [ ! -e /dev/nvidiactl ]; then
    reproduce card
    check 'without a GPU: not run, exit status 1' [ "$status $(grep -c 'NOT RUN, it needs a GPU' out)" = '1 1' ]
fi
reproduce none
check 'without its data: not run, exit status 1' [ "$status $(grep -c 'NOT RUN, its data' out)" = '1 1' ]
for wrong in nothing '--quick low' '--minutes 0 low' '--seeds x low' '--unknown low'; do
    reproduce $wrong
    check "refused: $wrong" [ "$status" = 2 ]
done
finish
