#!/usr/bin/env bash
# The programs as a user meets them: train, convert, evaluate, interrupt, resume, and every kind of bad input. In one
# file, since later checks take the models that earlier ones made.
cd "$(dirname "$0")/.." || exit 2
. tests/script.sh
build=$(cd "${NC_BUILD:?names the build to use}" && pwd)
train=$build/nc_train convert=$build/nc_convert bench=$build/nc_bench
root=$PWD
files="python3 $root/tests/program_files.py"
unset NC_ISA NO_COLOR
export NC_DATA=$work/data
cd "$work" || exit 2
cleanup() { ! mountpoint -q "$work/tiny" || umount "$work/tiny"; }

# run COMMAND...: what it says into the files out and err, its exit status into $status.
run() {
    status=0
    timeout 300 "$@" >out 2>err </dev/null || status=$?
}

# expect NAME STATUS PATTERN COMMAND...: this exit status, and a line of stderr or stdout matches.
expect() {
    local name=$1 wanted=$2 pattern=$3
    shift 3
    run "$@"
    if [ "$status" = "$wanted" ] && grep -qE -- "$pattern" err out; then
        pass "$name"
    else
        fail "$name" "$*
exit status $status, wanted $wanted and a line like: $pattern
$(tail -n 20 err out)"
    fi
}

# succeeds NAME COMMAND...
succeeds() {
    local name=$1
    shift
    expect "$name" 0 '' "$@"
}

# refuses NAME STATUS PATTERN COMMAND...: as expect, and the message is one line "error: ..." that
# names what PATTERN says; nothing is left behind in --out.
refuses() {
    local name=$1 wanted=$2 pattern=$3
    shift 3
    rm -f refused.safetensors
    run "$@"
    if [ "$status" != "$wanted" ] || ! grep -qE -- "^error: .*($pattern)" err ||
        [ "$(grep -c '^error: ' err)" != 1 ] || [ -e refused.safetensors ]; then
        fail "$name" "$*
exit status $status, wanted $wanted and one line like: error: ...$pattern
$(ls refused.safetensors* 2>/dev/null)
$(tail -n 20 err out)"
    else
        pass "$name"
    fi
}

# holds NAME FILE EXPRESSION: the JSON in FILE is strict and, as j, makes it true.
holds() { check "$1" $files require "$2" "$3"; }

mkdir -p data/mnist
$files idx data/mnist 600 200
small=(--dataset mnist --seed 1)

# --- The way through ------------------------------------------------------------------------------

succeeds 'train: an mlp learns' "$train" --model mlp "${small[@]}" --epochs 3 --out ann.safetensors \
    --log train.jsonl --json train.json
holds 'train: --log has one JSON object an epoch' train.jsonl \
    '[v["epoch"] for v in j if v["stage"] == "train"] == [1, 2, 3] and j[-1]["stage"] == "result"'
holds 'train: accuracy is percent, far above chance' train.json '50 < j["test_accuracy"] <= 100'
for n in 1 2; do
    succeeds "train: lenet on $n threads" "$train" --model lenet "${small[@]}" --epochs 1 --threads $n \
        --out "threads$n.safetensors"
done
check 'train: the same bits on one and two threads' $files same threads1.safetensors threads2.safetensors
succeeds 'train: a spiking network directly' "$train" --model mlp --neuron lif --T 4 "${small[@]}" \
    --epochs 1 --out direct.safetensors --json direct.json
succeeds 'train: recordings, simulated' "$train" --model cnn-nmnist-3x3 --dataset synthetic-events --T 4 \
    --samples 64 --epochs 1 --out events.safetensors

succeeds 'convert: to spikes' "$convert" ann.safetensors "${small[@]}" --T 4 --qcfs-epochs 2 --if-epochs 1 \
    --out snn.safetensors --report report.html --json stats.json --dump stages --curve-T 20 \
    --published 'a paper: 2=73.2, 4=83.75' --published 'another: 4=90'
holds 'convert: statistics' stats.json \
    'j["T"] == 4 and 50 < j["if_accuracy"] <= 100 and 0 <= j["sparsity"] <= 100 and len(j["accuracy_at_t"]) == 20'
holds 'convert: accuracy and energy at T = 1, 2, 4' stats.json \
    '[(c["T"], c["accuracy"]) for c in j["costs"]] == [(t, j["accuracy_at_t"][t - 1]) for t in (1, 2, 4)]'
holds 'convert: more steps cost more energy' stats.json \
    'j["costs"][0]["picojoules"] < j["costs"][1]["picojoules"] < j["energy"]["snn_picojoules_per_sample"]'
check 'convert: the report has pictures' grep -q '<svg' report.html
check 'convert: the report shows what others published' grep -q 'a paper: T 2, accuracy % 73.2' report.html
for wrong in 'no colon' 'a: 2' 'a: 0=50' 'a: 2=101' 'a: 2=50 3=60' ':2=50' 'a:'; do
    refuses "convert: --published '$wrong'" 2 "not NAME: T=PERCENT" "$convert" ann.safetensors "${small[@]}" \
        --published "$wrong" --report refused.html --out refused.safetensors
done
refuses 'convert: --published without a report' 2 'no --report' "$convert" ann.safetensors "${small[@]}" \
    --published 'a: 2=50' --out refused.safetensors
check 'convert: the report loads nothing' \
    bash -c '! grep -niE "(src|href)=[^ >]*https?:|<script[^>]*src|<link|@import" report.html'
check 'convert: --dump writes the stages' bash -c '[ "$(ls stages | wc -l)" -ge 3 ]'
succeeds 'convert: the rest of the conversion without training' "$convert" ann.safetensors "${small[@]}" --T 4 \
    --strategy percentile --out percentile.safetensors

succeeds 'eval: to T = 8' "$convert" eval snn.safetensors "${small[@]}" --T 8 --json eval.json
succeeds 'eval: an analog network' "$convert" eval ann.safetensors "${small[@]}" --json eval_ann.json
check 'eval: what the conversion reported' python3 -c '
import json
stats, curve, ann = (json.load(open(f)) for f in ("stats.json", "eval.json", "eval_ann.json"))
assert curve["accuracy_at_t"][:4] == stats["accuracy_at_t"][:4], (curve, stats)
assert len(curve["accuracy_at_t"]) == 8, curve
assert ann["accuracy"] == stats["ann_accuracy"], (ann, stats)'
holds 'eval: what is unknown is null' eval_ann.json 'j["T"] is None'
for command in sparsity energy neurobench; do
    succeeds "$command" "$convert" $command snn.safetensors "${small[@]}" --json $command.json
done
holds 'sparsity: spikes are counted' sparsity.json '0 < j["spikes"] < j["possible_spikes"] and len(j["layers"]) == 2'
holds 'energy: the saving at every T, with and without the cached first layer' energy.json \
    '[r["T"] for r in j["energy"]["by_T"]] == [1, 2, 3, 4] and j["energy"]["by_T"][3]["saving_percent"] == j["energy"]["saving_percent"] > j["energy"]["by_T"][3]["saving_percent_without_cache"]'
holds 'neurobench: its keys' neurobench.json \
    'list(j["neurobench"]) == ["Footprint", "ParameterCount", "ConnectionSparsity", "ClassificationAccuracy", "ActivationSparsity", "SynapticOperations", "MembraneUpdates"] and 0.5 < j["neurobench"]["ClassificationAccuracy"] <= 1'
refuses 'neurobench: an analog network' 2 'no spiking neurons' "$convert" neurobench ann.safetensors "${small[@]}"
succeeds 'info' "$convert" info snn.safetensors --json info.json
holds 'info: what the file holds' info.json 'j["spiking"] and j["T"] == 4 and j["dataset"] == "mnist"'
succeeds 'quantize' "$convert" quantize snn.safetensors "${small[@]}" --out q.safetensors
for target in loihi fpga; do
    succeeds "eval: on $target" "$convert" eval q.safetensors "${small[@]}" --target $target --json $target.json
done
check 'eval: both integer targets compute the same' python3 -c '
import json
a, b = (json.load(open(f)) for f in ("loihi.json", "fpga.json"))
assert a["accuracy_at_t"] == b["accuracy_at_t"] and len(a["accuracy_at_t"]) == 4 and a["sparsity"] == b["sparsity"], (a, b)
assert a["accuracy"] > 50 and 0 < b["cycles_per_sample"] and b["worst_step_cycles"] <= b["step_bound_cycles"], (a, b)'
refuses 'eval: an unknown target' 2 "did you mean|loihj" "$convert" eval q.safetensors --target loihj
refuses 'eval: a network in floats on a chip' 3 'not quantised' "$convert" eval snn.safetensors --target fpga
refuses 'eval: a hash of a chip' 2 'spike-hash' "$convert" eval q.safetensors --target loihi --spike-hash
succeeds 'convert: its hardware at once' "$convert" ann.safetensors "${small[@]}" --T 4 --qcfs-epochs 1 --if-epochs 0 \
    --out with.safetensors --emit loihi=with.json,rtl=with_rtl,hls=with_hls --json emitted.json
holds 'convert: what it wrote beside the model' emitted.json \
    'sorted(j["files"]) == ["hls", "loihi", "rtl"] and j["bits"] == 8 and j["quantized_accuracy"] > 50'
check 'convert: the folders are there' test -s with_rtl/testbench.sv -a -s with_hls/main.cpp -a -s with.json
refuses 'never overwrites: a folder of hardware' 2 'with_rtl is not empty' \
    "$convert" ann.safetensors "${small[@]}" --T 4 --out refused.safetensors --emit rtl=with_rtl
succeeds 'info: on a chip' "$convert" info q.safetensors --target loihi2 --json placed.json
holds 'info: every population has cores' placed.json \
    'all(p["cores"] > 0 for p in j["placement"]["populations"]) and j["placement"]["chips"] == 1'
refuses 'info: an unknown chip' 2 'loihi3' "$convert" info q.safetensors --target loihi3
refuses 'info: a network in floats on a chip' 3 'not quantised' "$convert" info snn.safetensors --target loihi2
succeeds 'export: for Loihi' "$convert" export q.safetensors --emit loihi=net.json
holds 'export: what programs the chip' net.json \
    'j["T"] == 4 and j["steps"] == 4 + j["depth"] and [p["kind"] for p in j["populations"]] == ["spiking", "spiking", "readout"]'
refuses 'never overwrites: export' 2 'net.json' "$convert" export q.safetensors --emit loihi=net.json
succeeds 'export: --force' "$convert" export q.safetensors --emit loihi=net.json --force
refuses 'export: an unknown form' 2 'lohi' "$convert" export q.safetensors --emit lohi=other.json
refuses 'export: a form without a file' 2 'loihi' "$convert" export q.safetensors --emit loihi
refuses 'export: a network in floats' 3 'not quantised' "$convert" export snn.safetensors --emit loihi=other.json
refuses 'export: Lava resets to zero' 3 'resets to zero' \
    "$convert" export q.safetensors --emit loihi=other.json,lava=other.py
check 'export: nothing is left of what is refused' bash -c '! ls other.* 2>/dev/null'
succeeds 'train: resets to zero' "$train" --model mlp --neuron if --reset zero --T 4 "${small[@]}" --epochs 1 \
    --out zero.safetensors
succeeds 'quantize: one threshold a layer' "$convert" quantize zero.safetensors "${small[@]}" --one-threshold --out zq.safetensors
succeeds 'export: a script for Lava' "$convert" export zq.safetensors --emit loihi=zero.json,lava=zero.py
check 'export: the script is Python' python3 -m py_compile zero.py
succeeds 'backends' "$convert" backends --json backends.json
holds 'backends: the reference is always usable' backends.json \
    'any(b["name"] == "reference" and b["usable"] for b in j)'
holds 'backends: the cards, or why there are none' backends.json \
    'all(b["cards"] if b["usable"] else b["reason"] for b in j if b["name"] == "cuda")'
succeeds 'finetune' "$convert" finetune snn.safetensors "${small[@]}" --if-epochs 1 --out tuned.safetensors \
    --json tuned.json
holds 'finetune: statistics' tuned.json '50 < j["if_accuracy"] <= 100'
# At a rate of nothing and without batch norms, only other samples could make a difference.
for part in "" "--samples 300"; do
    slow=(--dataset mnist --seed 2 $part --force)
    "$train" --graph "$root/tests/rtl_lif.json" --T 4 "${slow[@]}" --epochs 1 --lr 1e-30 --out before.safetensors \
        --json before.json &>err
    "$convert" finetune before.safetensors "${slow[@]}" --if-epochs 1 --if-lr 1e-30 --out after.safetensors \
        --json after.json &>>err
    printf '[%s, %s]' "$(cat before.json)" "$(cat after.json)" >both.json
    holds "finetune: validates on what training held out${part:+, $part}" both.json \
        'j[0]["validation_accuracy"] == j[1]["validation_accuracy"]'
done
expect 'finetune: another seed than that of training' 0 'was trained with --seed 2: with seed 1 most of' \
    "$convert" finetune before.safetensors "${small[@]}" --if-epochs 1 --out after.safetensors --force

# Results are on stdout alone, so that they can be piped.
run "$convert" eval snn.safetensors "${small[@]}" --json
cp out piped.json
holds 'eval: --json writes JSON to stdout and nothing else' piped.json 'j["T"] == 4'
run "$train" --model mlp "${small[@]}" --epochs 1 --out quiet.safetensors --quiet
check '--quiet is quiet' test ! -s err
for isa in reference sse2 avx2 avx512; do
    if ! NC_ISA=$isa "$convert" backends >/dev/null 2>&1; then
        skip "spike trains under NC_ISA=$isa" 'this processor lacks it'
        continue
    fi
    for path in dense event; do
        NC_ISA=$isa run "$convert" eval snn.safetensors "${small[@]}" --path $path --spike-hash --json
        python3 -c 'import json; j = json.load(open("out")); print(j["spike_hash"], j["accuracy_at_t"])' \
            >"hash-$isa-$path" 2>>err
        check "spike trains: NC_ISA=$isa, $path, are the reference's" cmp "hash-$isa-$path" hash-reference-dense
    done
done

# --- A policy for CartPole ------------------------------------------------------------------------

succeeds 'cartpole: a policy' "$train" --task cartpole --seed 3 --out policy.safetensors --log policy.jsonl --json policy.json
holds 'cartpole: it balances for 500 steps, nearly always' policy.json \
    'j["test_return"] >= 475 and j["test_episodes"] == 100 and j["T"] is None and j["steps"] == 256 * j["rounds"]'
holds 'cartpole: --log has one JSON object a validation' policy.jsonl \
    'all(v["validation_return"] >= 8 for v in j[:-1]) and j[0]["round"] < j[1]["round"] and j[-1]["stage"] == "result"'
brief=(--task cartpole --rounds 12 --updates 32 --seed 1)
for n in 1 2; do
    succeeds "cartpole: a spiking policy on $n threads" "$train" "${brief[@]}" --neuron lif --T 2 --threads "$n" \
        --out "lif$n.safetensors" --json "lif$n.json"
done
holds 'cartpole: T of a spiking policy' lif2.json 'j["T"] == 2 and j["neuron"] == "lif"'
check 'cartpole: the same bits on one and two threads' $files same lif1.safetensors lif2.safetensors
succeeds 'cartpole: converted' "$convert" policy.safetensors --dataset cartpole --T 4 --out spiking.safetensors --json spiking.json
holds 'cartpole: the spiking policy balances too' spiking.json \
    'j["measure"] == "agreement" and j["ann_accuracy"] == 100 and 70 < j["if_accuracy"] <= 100 and [(n["T"], n["mean"] >= 475) for n in j["returns"]["networks"]] == [(None, True), (4, True)]'
succeeds 'cartpole: eval' "$convert" eval spiking.safetensors --json spiking_eval.json
check 'cartpole: eval returns what the conversion did' python3 -c '
import json
stats, curve = (json.load(open(f)) for f in ("spiking.json", "spiking_eval.json"))
assert [n["T"] for n in curve["returns"]["networks"]] == [1, 2, 4], curve
assert curve["returns"]["networks"][2]["mean"] == stats["returns"]["networks"][1]["mean"], (curve, stats)
assert curve["accuracy_at_t"][3] == 100, curve'
succeeds 'cartpole: eval of the analog policy' "$convert" eval policy.safetensors
succeeds 'cartpole: finetune' "$convert" finetune spiking.safetensors --T 2 --if-epochs 1 --out spiking2.safetensors
succeeds 'cartpole: where actions differ' "$convert" actions policy.safetensors spiking.safetensors --episodes 20 --json actions.json
holds 'cartpole: actions are counted' actions.json \
    'j["states"] >= 9000 and 0 < j["different"] == len(j["differing_states"]) and all(sum(b["states"] for b in j[t]) == j["states"] and sum(b["different"] for b in j[t]) == j["different"] for t in ("by_angle", "by_margin"))'
holds 'cartpole: the states that differ' actions.json \
    'all((s["first"]["values"][0] < s["first"]["values"][1]) != (s["second"]["values"][0] < s["second"]["values"][1]) and abs(s["theta"]) < 0.21 for s in j["differing_states"])'
succeeds 'cartpole: a policy and itself' "$convert" actions policy.safetensors policy.safetensors --driver first --json same.json
holds 'cartpole: a policy and itself do not differ' same.json 'j["different"] == 0 and j["differing_states"] == []'
refuses 'cartpole: actions of another network' 2 'CartPole' "$convert" actions policy.safetensors ann.safetensors
refuses 'cartpole: the states of another network' 2 'CartPole' "$convert" eval ann.safetensors --dataset cartpole
refuses 'cartpole: states are no images' 2 'no mean' "$convert" eval policy.safetensors --mean 1
refuses 'cartpole: an unknown task' 2 'cartpol' "$train" --task cartpol --out refused.safetensors
refuses 'cartpole: T of an analog policy' 2 '--T is for spiking' "$train" --task cartpole --T 4 --out refused.safetensors
refuses 'cartpole: an unknown neuron' 2 "neuron 'lief'" "$train" --task cartpole --neuron lief --out refused.safetensors
for other in '--epochs 3' '--dataset mnist' '--model mlp' '--samples 9' '--rounds 0' '--enough 501' '--gamma 2'; do
    refuses "cartpole: $other makes no sense" 2 "${other% *}" "$train" --task cartpole $other --out refused.safetensors
done
printf 'task = "cartpole"\n' >task.toml
refuses 'cartpole: a task from a file' 2 'command line' "$train" --config task.toml --out refused.safetensors
expect 'cartpole: --help' 0 'exploration' "$train" --task cartpole --help
long=(--task cartpole --neuron if --rounds 40 --enough 500 --seed 1)
succeeds 'cartpole: an uninterrupted run' "$train" "${long[@]}" --out whole_policy.safetensors
"$train" "${long[@]}" --out stopped_policy.safetensors >out 2>err </dev/null &
child=$!
for ((i = 0; i < 500; ++i)); do [ -e stopped_policy.last.safetensors ] && break || sleep 0.02; done
kill -INT $child
wait $child
status=$?
check 'cartpole: Ctrl-C saves: exit status 130' [ $status = 130 ]
refuses 'cartpole: the options are the checkpoint'"'"'s' 2 'gamma' "$train" --resume stopped_policy.last.safetensors --gamma 0.9
succeeds 'cartpole: resumes' "$train" --resume stopped_policy.last.safetensors
check 'cartpole: bitwise the weights of the uninterrupted run' $files same whole_policy.safetensors stopped_policy.safetensors

# --- Interrupted and killed -----------------------------------------------------------------------

long=(--model lenet "${small[@]}" --epochs 12 --checkpoint-steps 1)
succeeds 'resume: an uninterrupted run' "$train" "${long[@]}" --out whole.safetensors
# Killed again and again at random moments, each time a little further; what is on the disk always loads.
arguments=("${long[@]}" --out killed.safetensors) kills=0 broken='' RANDOM=7
while [ $kills -lt 30 ]; do
    "$train" "${arguments[@]}" >out 2>err </dev/null &
    child=$!
    sleep "0.$((RANDOM % 4))$((RANDOM % 10))"
    kill -KILL $child 2>/dev/null
    wait $child 2>/dev/null
    status=$?
    [ $status != 0 ] || break
    # Killed after its work: the model is there, the checkpoint has gone.
    if [ -e killed.safetensors ] && ! [ -e killed.last.safetensors ]; then break; fi
    [ $status = 137 ] || broken+="exit status $status: $(cat err)"$'\n'
    kills=$((kills + 1))
    if [ -e killed.last.safetensors ]; then
        "$convert" info killed.last.safetensors >out 2>err || broken+="$(cat err)"$'\n'
        arguments=(--resume killed.last.safetensors --force)
    fi
done
if [ -z "$broken" ] && [ $kills -gt 1 ]; then
    pass "resume: the checkpoint loads after each of some kills"
else
    fail 'resume: the checkpoint loads after each of some kills' "$kills kills"$'\n'"$broken"
fi
[ "$status" = 0 ] || "$train" "${arguments[@]}" >out 2>err </dev/null
check 'resume: after the kills, bitwise the weights of the uninterrupted run' \
    $files same whole.safetensors killed.safetensors

"$train" "${long[@]}" --out stopped.safetensors >out 2>err </dev/null &
child=$!
for ((i = 0; i < 500; ++i)); do [ -e stopped.last.safetensors ] && break || sleep 0.02; done
sleep 0.1
kill -INT $child
wait $child
status=$?
check 'Ctrl-C: exit status 130' [ $status = 130 ]
check 'Ctrl-C: says how to go on' grep -q 'nc_train --resume stopped.last.safetensors' err
succeeds 'Ctrl-C: resumes' "$train" --resume stopped.last.safetensors
check 'Ctrl-C: bitwise the weights of the uninterrupted run' \
    $files same whole.safetensors stopped.safetensors
conversion=("$convert" whole.safetensors "${small[@]}" --T 4 --qcfs-epochs 2 --if-epochs 3)
succeeds 'conversion: an uninterrupted run' "${conversion[@]}" --out converted.safetensors
# Once in each of its two trainings.
for stage in qcfs tune; do
    "${conversion[@]}" --checkpoint halves --resume --out halves.safetensors >out 2>err </dev/null &
    child=$!
    for ((i = 0; i < 1000; ++i)); do [ -e halves/$stage.safetensors ] && break || sleep 0.01; done
    kill -INT $child
    wait $child
    status=$?
    check "conversion: Ctrl-C in $stage, exit status 130" [ $status = 130 ]
done
check 'conversion: Ctrl-C says how to go on' grep -q 'saved in halves; the same command with --resume goes on' err
refuses 'conversion: checkpoints are not overwritten' 2 'halves is not empty' \
    "${conversion[@]}" --checkpoint halves --out refused.safetensors
refuses 'conversion: resumes with its own options only' 3 'batch = 64, not 32' \
    "${conversion[@]}" --batch 32 --checkpoint halves --resume --out refused.safetensors
refuses 'conversion: resumes from its own network only' 3 'halves/qcfs.safetensors was not begun from this network' \
    "$convert" ann.safetensors "${conversion[@]:2}" --checkpoint halves --resume --out refused.safetensors
refuses 'conversion: --resume wants a folder' 2 'no --checkpoint' "${conversion[@]}" --resume --out refused.safetensors
succeeds 'conversion: resumes' "${conversion[@]}" --checkpoint halves --resume --out halves.safetensors
check 'conversion: bitwise the weights of the uninterrupted run' \
    $files same converted.safetensors halves.safetensors
refuses 'resume: a finished model is no checkpoint' 3 'whole.safetensors' "$train" --resume whole.safetensors
refuses 'resume: the options are the checkpoint'"'"'s' 2 'epochs' "$train" --resume whole.safetensors --epochs 3

# --- Bad input ------------------------------------------------------------------------------------

new=(--epochs 1 --out refused.safetensors)
# damaged FILE OFFSET BYTES: a data root whose FILE has these bytes (hexadecimal) there.
damaged() {
    rm -rf bad && cp -r data bad && $files patch "bad/mnist/$1" "$2" "$3"
}
refuses 'data: a missing data set' 2 'mnist' "$train" --model mlp --dataset mnist --data nowhere "${new[@]}"
refuses 'data: an unknown data set' 2 'mnits' "$train" --model mlp --dataset mnits "${new[@]}"
expect 'data: a mistyped data set is suggested' 2 "did you mean 'fashion-mnist'" "$train" --model mlp --dataset fashion-mnits "${new[@]}"
damaged train-images-idx3-ubyte 0 deadbeef
refuses 'data: wrong magic' 2 'train-images-idx3-ubyte' "$train" --model mlp --dataset mnist --data bad "${new[@]}"
damaged train-images-idx3-ubyte 4 00000259
refuses 'data: truncated file' 2 'train-images-idx3-ubyte' "$train" --model mlp --dataset mnist --data bad "${new[@]}"
damaged train-images-idx3-ubyte 4 7fffffff
refuses 'data: a size that is a lie' 2 'train-images-idx3-ubyte' "$train" --model mlp --dataset mnist --data bad "${new[@]}"
rm -rf bad && cp -r data bad && $files idx bad/mnist 500 200 && cp data/mnist/train-images* bad/mnist/
refuses 'data: labels and images do not match' 2 '600.*500|500.*600' \
    "$train" --model mlp --dataset mnist --data bad "${new[@]}"
damaged train-labels-idx1-ubyte 13 0b
refuses 'data: a label out of range' 2 'train-labels-idx1-ubyte.*11|11.*train-labels-idx1-ubyte' \
    "$train" --model mlp --dataset mnist --data bad "${new[@]}"

refuses 'model: unknown' 2 'lennet' "$train" --model lennet "${small[@]}" "${new[@]}"
expect 'model: mistyped is suggested' 2 "did you mean 'lenet'" "$train" --model lennet "${small[@]}" "${new[@]}"
refuses 'model: missing file' 3 'absent.safetensors' "$convert" absent.safetensors "${small[@]}" --T 4 --out refused.safetensors
echo 'not a model' >text.safetensors
head -c 5000 ann.safetensors >short.safetensors
$files poison ann.safetensors nan.safetensors
for damage in text short nan; do
    refuses "model: $damage" 3 "$damage.safetensors" "$convert" $damage.safetensors "${small[@]}" --T 4 --out refused.safetensors
    refuses "model: $damage, eval" 3 "$damage.safetensors" "$convert" eval $damage.safetensors "${small[@]}"
done
refuses 'model: ONNX is not supported yet' 3 'net.onnx' \
    bash -c 'printf "\010\010" >net.onnx; exec "$@"' - "$convert" net.onnx "${small[@]}" --out refused.safetensors
refuses 'resume: from no checkpoint' 3 'text.safetensors' "$train" --resume text.safetensors --out refused.safetensors
refuses 'model: sparsity of an analog network' 2 'no spiking neurons' "$convert" sparsity ann.safetensors "${small[@]}"

for T in 0 -3 nonsense; do
    refuses "T = $T" 2 'T' "$convert" ann.safetensors "${small[@]}" --T $T --out refused.safetensors
    refuses "T = $T, eval" 2 'T' "$convert" eval snn.safetensors "${small[@]}" --T $T
done
if $files require backends.json 'any(b["name"] == "cuda" and b["usable"] for b in j)' 2>/dev/null; then
    succeeds 'the GPU trains' "$train" --model mlp "${small[@]}" --epochs 1 --device cuda --out gpu.safetensors
    succeeds 'the GPU evaluates' "$convert" eval snn.safetensors "${small[@]}" --device cuda:0
    refuses 'no such GPU' 2 'cuda:99' "$train" --model mlp "${small[@]}" --device cuda:99 "${new[@]}"
else
    refuses 'no GPU: nc_train' 2 'cuda is not available: ' "$train" --model mlp "${small[@]}" --device cuda "${new[@]}"
    refuses 'no GPU: nc_convert' 2 'cuda is not available: ' "$convert" eval snn.safetensors "${small[@]}" --device cuda:0
fi
refuses 'precision without a GPU' 2 'bf16 is for a GPU' "$train" --model mlp "${small[@]}" --precision bf16 "${new[@]}"
refuses 'unknown precision' 2 'fp16' "$convert" eval snn.safetensors "${small[@]}" --precision fp16
refuses 'unknown device' 2 'tpu' "$train" --model mlp "${small[@]}" --device tpu "${new[@]}"
NC_ISA=nonsense refuses 'NC_ISA=nonsense' 2 'nonsense' "$train" --model mlp "${small[@]}" "${new[@]}"

# --- Files it may not or cannot write -------------------------------------------------------------

cp ann.safetensors kept.safetensors
refuses 'never overwrites: nc_train' 2 'kept.safetensors' "$train" --model mlp "${small[@]}" --epochs 1 --out kept.safetensors
refuses 'never overwrites: nc_convert' 2 'kept.safetensors' "$convert" ann.safetensors "${small[@]}" --T 4 --out kept.safetensors
refuses 'never overwrites: the report' 2 'report.html' \
    "$convert" ann.safetensors "${small[@]}" --T 4 --out refused.safetensors --report report.html
refuses 'never overwrites: --json' 2 'eval.json' "$convert" eval snn.safetensors "${small[@]}" --json eval.json
refuses 'never overwrites: --log' 2 'train.jsonl' "$train" --model mlp "${small[@]}" "${new[@]}" --log train.jsonl
check 'never overwrites: the file is as it was' cmp ann.safetensors kept.safetensors
succeeds '--force overwrites' "$train" --model mlp "${small[@]}" --epochs 1 --out kept.safetensors --force
refuses 'a folder that is not there' 2 'nowhere' "$train" --model mlp "${small[@]}" --epochs 1 --out nowhere/x.safetensors
refuses 'an output that is a folder' 2 'data' "$train" --model mlp "${small[@]}" --epochs 1 --out data
refuses 'full disk: /dev/full' 2 '/dev/full' "$train" --model mlp "${small[@]}" --epochs 1 --out /dev/full --force
mkdir tiny
if mount -t tmpfs -o size=64k tmpfs tiny 2>/dev/null; then
    refuses 'full disk: nc_train' 2 'tiny/x.*No space' \
        "$train" --model mlp "${small[@]}" --epochs 1 --out tiny/x.safetensors
    refuses 'full disk: nc_convert' 2 'tiny/x.*No space' \
        "$convert" ann.safetensors "${small[@]}" --T 4 --strategy max --out tiny/x.safetensors
    check 'full disk: no half file is left' bash -c '[ -z "$(ls -A tiny)" ]'
    umount tiny
else
    skip 'full disk: a small file system' 'may not mount one here'
fi
mkdir locked && chmod 555 locked && chmod 755 "$work"
as_user=()
[ "$(id -u)" != 0 ] || as_user=(setpriv --reuid=65534 --regid=65534 --clear-groups)
mkdir bin && cp "$train" "$convert" bin/ # the build may lie where another user cannot go
if [ ${#as_user[@]} = 0 ] || "${as_user[@]}" true 2>/dev/null; then
    refuses 'no permission: to write' 2 'locked.*ermission|ermission.*locked' \
        "${as_user[@]}" bin/nc_train --model mlp "${small[@]}" --epochs 1 --out locked/x.safetensors
    cp snn.safetensors secret.safetensors && chmod 000 secret.safetensors
    refuses 'no permission: to read' 3 'secret.safetensors.*ermission|ermission.*secret.safetensors' \
        "${as_user[@]}" bin/nc_convert eval secret.safetensors "${small[@]}"
else
    skip 'no permission' 'root may do everything and cannot become another user'
fi

# --- Usage ----------------------------------------------------------------------------------------

for program in "$train" "$convert" "$bench"; do
    name=${program##*/}
    expect "$name --help" 0 'Usage' "$program" --help
    expect "$name --version" 0 '[0-9]+\.[0-9]+' "$program" --version
done
refuses 'nc_train: unknown option' 2 'no-such' "$train" --no-such-option
refuses 'nc_convert: unknown option' 2 'no-such' "$convert" --no-such-option
refuses 'nc_bench: unknown option' 2 'no-such' "$bench" machine --no-such-option
for command in eval sparsity energy neurobench finetune export actions info backends; do
    expect "nc_convert $command --help" 0 'Usage' "$convert" $command --help
done
for command in machine kernels infer ann rates bptt train events stream compare; do
    expect "nc_bench $command --help" 0 'Usage' "$bench" $command --help
done
mkdir step
expect 'nc_bench train: recordings, drawn weights' 0 'train.linear_lif/T5-batch3' \
    "$bench" train --model "$root/bench/peers/linear_lif.json" --frames --T 5 --batch 3 --seconds 0 --dump step
check 'nc_bench train: what it dumps' bash -c '[ "$(ls step | tr "\n" " ")" = "input.npy labels.npy model.safetensors run.json stepped.safetensors " ]'
expect 'nc_bench train: pictures of a model' 0 '2 test samples of mnist' \
    "$bench" train --model snn.safetensors --T 2 --batch 2 --seconds 0
$files nmnist data/nmnist
succeeds 'nc_bench events: a data set beside itself' "$bench" events --simulated nmnist --json events_same.json
holds 'nc_bench events: figures of hand-made recordings' events_same.json \
    '(lambda r: r == j["simulated"] and r["events a recording"] == 4.5 and abs(r["- standard deviation"] ** 2 - 0.5) < 1e-9 and abs(r["ON %"] - 200 / 3) < 1e-9 and r["duration ms"] == 274 and [r["events from %s ms" % w] for w in ("0 to 90", "90 to 220", "220 to 320")] == [2, 1, 1.5] and abs(r["active pixels %"] - 350 / 1156) < 1e-9 and r["interval at a pixel ms, percentile 50"] == 2.025 and r["rate, events in 10 ms"][0] == 2 and r["rate, events in 10 ms"][30] == 0.5)(j["real"])'
holds 'nc_bench events: a recording is like itself' events_same.json \
    'j["paired"] and abs(j["image_correlation"] - 1) < 1e-9 and abs(j["polarity_correlation"] - 1) < 1e-9 and abs(j["rate_correlation"] - 1) < 1e-9 and j["rate_difference_percent"] == 0 and j["samples"] == 2'
succeeds 'nc_bench events: other pictures' "$bench" events --test --simulated synthetic-events --json other.json
holds 'nc_bench events: other pictures are not paired' other.json \
    'not j["paired"] and j["image_correlation"] is None and j["rate_difference_percent"] > 100'
succeeds 'nc_bench events: of simulated recordings' "$bench" events --simulated nmnist-simulated --skip 1 --samples 1
refuses 'nc_bench events: no recordings' 2 'mnist.*no data set of recordings' "$bench" events --real mnist
refuses 'nc_bench events: more than there are' 2 'recordings 1 to 4 of 2' "$bench" events --skip 1 --samples 3
refuses 'nc_bench events: missing data' 2 'nmnist is in none of: nowhere' "$bench" events --data nowhere
refuses 'nc_bench events: never overwrites' 2 'events_same.json' "$bench" events --simulated nmnist --json events_same.json
mkdir lone && cp -r data/nmnist lone/
expect 'data: what nmnist-simulated needs' 2 'datasets/fetch.sh mnist' "$bench" events --data lone
refuses 'data: nmnist-simulated without MNIST' 2 'lone/mnist' "$train" --model cnn-nmnist --dataset nmnist-simulated --data lone --out refused.safetensors

succeeds 'train: recordings of a simulated camera' "$train" --model cnn-nmnist-3x3 --neuron lif \
    --dataset nmnist-simulated --T 4 --samples 64 --batch 8 --epochs 2 --theta 0.3 --out lif.safetensors
expect 'eval: simulated recordings, and says so' 0 '20 simulated test recordings' "$convert" eval lif.safetensors --samples 20
expect 'eval: real recordings' 0 'on nmnist, 2 test recordings' "$convert" eval lif.safetensors --dataset nmnist
succeeds 'nc_bench stream: simulated recordings' "$bench" stream lif.safetensors --samples 6 --threads 1 \
    --margin 0,1e-9 --json stream.json
holds 'nc_bench stream: decides early when told to' stream.json \
    '[r["steps_mean"] for r in j["rows"]] == [4, 1] and j["rows"][0]["macs"] == 4 * j["rows"][1]["macs"] > 0 and j["rows"][0]["acs"] > j["rows"][1]["acs"] > 0 and all(r["decisions"] == 6 and 0 <= r["accuracy"] <= 100 and 0 < r["sparsity"] < 100 and 0 < r["latency_us_p50"] <= r["compute_us_p50"] for r in j["rows"])'
expect 'nc_bench stream: real recordings' 0 '^2 test recordings of nmnist' "$bench" stream lif.safetensors --dataset nmnist
succeeds 'nc_bench stream: a file of events' "$bench" stream lif.safetensors data/nmnist/Test/1/00002.bin --margin 0 \
    --window 50ms --json file.json
holds 'nc_bench stream: decisions until the events end' file.json \
    '[(a["t_us"], a["steps"]) for a in j["answers"]] == [(201000, 4), (301000, 2)] and j["rows"][0]["accuracy"] is None'
refuses 'nc_bench stream: an analog network' 2 'no spiking neurons' "$bench" stream events.safetensors
refuses 'nc_bench stream: a network for pictures' 2 "'mnist' is no data set of recordings" "$bench" stream snn.safetensors
refuses 'nc_bench stream: another sensor' 2 '34 x 34' "$bench" stream snn.safetensors data/nmnist/Test/1/00002.bin --window 60ms
# An event at y = 240 adds 8192 us to those after it.
python3 -c 'open("hours.bin", "wb").write(bytes((1, 2, 128, 0, 9)) + bytes((0, 240, 0, 0, 0)) * 1300 + bytes((1, 2, 0, 0, 9)))'
refuses 'nc_bench stream: hours of nothing' 2 'from 9 to 10649609 us are more than 10000000 frames of 1 us' \
    "$bench" stream lif.safetensors hours.bin --window 1us
refuses 'nc_bench stream: no such file' 2 'absent.bin' "$bench" stream lif.safetensors absent.bin --window 60ms
refuses 'nc_bench stream: a window without a unit' 2 'unit' "$bench" stream lif.safetensors --window 60
refuses 'nc_bench stream: no model' 3 'absent.safetensors' "$bench" stream absent.safetensors
refuses 'nc_bench train: unknown network' 3 'lennet' "$bench" train --model lennet --T 2
expect 'a mistyped option is suggested' 2 "did you mean '--epochs'" "$train" --model mlp "${small[@]}" --epoch 1 --out refused.safetensors
printf 'model = "mlp"\ndataset = "mnist"\nepochs = 1\nseed = 1\n' >run.toml
succeeds '--config' "$train" --config run.toml --out configured.safetensors
succeeds '--config: the options it stands for' "$train" --model mlp --dataset mnist --epochs 1 --seed 1 --out spelt.safetensors
check '--config: the same run' $files same configured.safetensors spelt.safetensors
succeeds '--config: the command line wins' "$train" --config run.toml --seed 2 --out other.safetensors
check '--config: another seed is another run' bash -c "! $files same configured.safetensors other.safetensors 2>/dev/null"
printf 'model = "mlp"\nepocs = 1\n' >bad.toml
refuses '--config: unknown key' 2 'epocs' "$train" --config bad.toml "${small[@]}" --out refused.safetensors
expect '--config: unknown key is suggested' 2 'epochs' "$train" --config bad.toml "${small[@]}" --out refused.safetensors
printf 'model = "mlp"\nepochs = "many"\n' >bad.toml
refuses '--config: a value that does not fit' 2 'epochs.*many' "$train" --config bad.toml "${small[@]}" --out refused.safetensors
refuses '--config: missing' 2 'absent.toml' "$train" --config absent.toml "${small[@]}" --out refused.safetensors

# Colour on a terminal only, and not with NO_COLOR. script gives the program one.
terminal() { script -qec "$1" /dev/null </dev/null; }
if command -v script >/dev/null; then
    check 'colour on a terminal' bash -c "$(declare -f terminal); terminal '$train --model lennet --dataset mnist --out x.safetensors' | grep -q \$'\\e'"
    check 'NO_COLOR' bash -c "$(declare -f terminal); ! terminal 'NO_COLOR=1 $train --model lennet --dataset mnist --out x.safetensors' | grep -q \$'\\e'"
else
    skip 'colour on a terminal' 'there is no script(1)'
fi
run "$train" --model lennet "${small[@]}" "${new[@]}"
check 'no colour in a file' bash -c "! grep -q \$'\\e' err"
finish
