#!/usr/bin/env bash
# An assistant without labels, on a CPU: label preferences -> initial reward model -> relabel -> final reward model ->
# policy -> win rate (Wen et al. 2025, section 4.3, at a thousandth of its size).
#
#     bash examples/assistant_cpu.sh [PAIRS.jsonl [FOLDER]]
#
# PAIRS.jsonl has question, choice, choice_2, and label as gold, which only evaluation reads; without it, small pairs that
# make_pairs.py makes up. Killed at any moment, the same
# command goes on where it was. Sizes can be set: LABEL=32 REST=200 TEST=200 PROMPTS=200 STEPS=20 EPOCHS=1
# MODEL=bundled SEED=0 DTYPE=float32 SEARCH=bootstrap CALIBRATION=batch TOKENS=48 DUELS=50 HELD_OUT=32. Pairs of more than LONGEST=600 characters are left out.
set -euo pipefail

pairs=${1:-}
out=${2:-runs/assistant}
LABEL=${LABEL:-32} REST=${REST:-200} TEST=${TEST:-200} PROMPTS=${PROMPTS:-200} STEPS=${STEPS:-20} EPOCHS=${EPOCHS:-1}
MODEL=${MODEL:-bundled} SEED=${SEED:-0} LONGEST=${LONGEST:-600} SEARCH=${SEARCH:-bootstrap} CALIBRATION=${CALIBRATION:-batch}
TOKENS=${TOKENS:-48} DUELS=${DUELS:-50} HELD_OUT=${HELD_OUT:-32}
# bfloat16 is several times faster on a CPU that can add and multiply it, and several times slower on one that cannot.
if grep -qE -m1 'amx_bf16|avx512_bf16' /proc/cpuinfo 2>/dev/null; then fast=bfloat16; else fast=float32; fi
DTYPE=${DTYPE:-$fast}
elicitor() { python -m elicitor "$@"; }
mkdir -p "$out"
if [ -z "$pairs" ]; then
  pairs=$out/pairs.jsonl
  python "$(dirname "$0")/make_pairs.py" $((LABEL + REST + TEST)) > "$pairs"
fi

# Parts that share no pair: to label, for the initial reward model to label, to test on. The first two lose their gold.
python - "$pairs" "$out" "$LABEL" "$REST" "$TEST" "$PROMPTS" "$LONGEST" "$SEED" <<'PY'
import json, sys
import numpy as np
source, out, *sizes, seed = sys.argv[1:]
label, rest, test, prompts, longest = map(int, sizes)
rows = [json.loads(line) for line in open(source, encoding="utf-8")]
rows = [row for row in rows if sum(len(row[key]) for key in ("question", "choice", "choice_2")) <= longest]
if len(rows) < label + rest + test:
    sys.exit(f"error: {source} has {len(rows)} short rows, {label} + {rest} + {test} are needed; set LABEL, REST, TEST lower")
rows = [rows[i] for i in np.random.default_rng(int(seed)).permutation(len(rows))]
cut = {"label": rows[:label], "rest": rows[label : label + rest], "test": rows[label + rest : label + rest + test]}
cut["golden"] = cut["label"] + cut["rest"]
inputs = ("id", "question", "choice", "choice_2")
for name in ("label", "rest"):
    cut[name] = [{key: row[key] for key in inputs} for row in cut[name]]
short = [{"question": row["question"]} for row in cut["golden"] if len(row["question"]) < 200]
cut["prompts"] = short[:prompts]
for name, part in cut.items():
    with open(f"{out}/{name}.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in part)
PY

rounds=()
if [ "$SEARCH" = bootstrap ]; then rounds=(--set bootstrap.rounds=3); fi
echo "== 1. labels without gold"
elicitor label "$out/label.jsonl" --task preference --model "$MODEL" --seed "$SEED" --search "$SEARCH" \
  --calibration "$CALIBRATION" --output-dir "$out/labels" --resume --set backend.dtype="$DTYPE" "${rounds[@]}"

echo "== 2. initial reward model, relabelling, final reward model"
elicitor train reward "$out/labels" --rest "$out/rest.jsonl" -o "$out/rm-found" --resume --seed "$SEED" \
  --epochs "$EPOCHS" --set dtype="$DTYPE"

echo "== 3. the same pairs with golden labels, for comparison"
elicitor train reward "$out/golden.jsonl" --labels golden --model "$MODEL" -o "$out/rm-golden" --resume --seed "$SEED" \
  --epochs "$EPOCHS" --set dtype="$DTYPE"
elicitor eval reward "$out/rm-found" "$out/rm-golden" "$out/rm-found/initial" --test "$out/test.jsonl" --dtype "$DTYPE"

echo "== 4. policy against the final reward model"
elicitor train rl "$out/prompts.jsonl" --reward "$out/rm-found" --model "$MODEL" -o "$out/policy" --resume \
  --seed "$SEED" --steps "$STEPS" --max-new-tokens "$TOKENS" --set dtype="$DTYPE" --set max_prompt_tokens=128 \
  --set eval_prompts=$((HELD_OUT / 4)) --set test_prompts="$HELD_OUT"

echo "== 5. win rate against the start, on the test pairs' prompts, judged by three"
elicitor eval winrate "adapter:$out/policy" "$MODEL" --prompts "$out/test.jsonl" -o "$out/winrate" --resume \
  --judge "$out/rm-found" --judge "$out/rm-golden" --judge "$MODEL" --limit "$DUELS" --max-new-tokens "$TOKENS" --seed "$SEED" \
  --dtype "$DTYPE"
