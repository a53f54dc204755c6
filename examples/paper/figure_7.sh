#!/usr/bin/env bash
# Figure 7 (v1): found labels -> reward model -> policy -> win rate, beside a reward model of human labels.
#
#     bash examples/paper/figure_7.sh --preset laptop --data-dir DATA
#
# Files: hh_helpful_pairs.jsonl, whose gold is one annotator of each pair. What assistant_cpu.sh does, with its results kept.
# The win rate is against the start of the policy, where the paper has a policy of human labels. One seed, the first.

. "$(dirname "$0")/common.sh"
begin "$@"
pairs=$DATA/hh_helpful_pairs.jsonl
# Pairs to label, for the reward model to label, to test on; prompts and steps of the policy; tokens of a response; duels.
case $PRESET in
  smoke) sizes="4 12 12 32 1 4 4 600" ;;
  laptop) sizes="32 200 200 200 20 48 50 600" ;;
  gpu) sizes="256 500 300 600 200 128 200 4000" ;;
  cluster) sizes="256 500 300 600 400 256 300 4000" ;;
esac
read -r LABEL REST TEST PROMPTS STEPS TOKENS DUELS LONGEST <<< "$sizes"
LABEL=${LIMIT:-$LABEL} HELD_OUT=32
if [ "$PRESET" = smoke ]; then HELD_OUT=4; fi
SEED=$FIRST_SEED MODEL=$TRAIN_MODEL
# As assistant_cpu.sh would choose it.
if [ "$DTYPE" = auto ]; then
  if grep -qE -m1 'amx_bf16|avx512_bf16' /proc/cpuinfo 2> /dev/null; then DTYPE=bfloat16; else DTYPE=float32; fi
fi
if [ -n "$DRY" ]; then
  elicitor label "$pairs" --task preference --model "$MODEL" --search "$SEARCH" --limit "$LABEL" --dry-run
  elicitor train reward "$pairs" --labels golden --model "$MODEL" -o "$OUT/rm" --limit $((LABEL + REST)) --dry-run
  elicitor train rl "$pairs" --reward "$OUT/rm" --model "$MODEL" -o "$OUT/policy" --steps "$STEPS" --max-new-tokens "$TOKENS" \
    --limit "$PROMPTS" --set eval_prompts=$((HELD_OUT / 4)) --set test_prompts="$HELD_OUT" --dry-run
  finish ""
  exit
fi
export LABEL REST TEST PROMPTS STEPS TOKENS DUELS LONGEST HELD_OUT SEED MODEL SEARCH CALIBRATION DTYPE
if [ "$PRESET" = smoke ]; then export EPOCHS=1; fi
bash "$HERE/../assistant_cpu.sh" "$pairs" "$OUT" >&2
stage "the same figures as JSON; nothing is scored twice"
elicitor eval reward "$OUT/rm-found" "$OUT/rm-golden" "$OUT/rm-found/initial" --test "$OUT/test.jsonl" \
  --dtype "$DTYPE" --json > "$OUT/reward.json"
elicitor eval winrate "adapter:$OUT/policy" "$MODEL" --prompts "$OUT/test.jsonl" -o "$OUT/winrate" --resume --seed "$SEED" \
  --judge "$OUT/rm-found" --judge "$OUT/rm-golden" --judge "$MODEL" --limit "$DUELS" --max-new-tokens "$TOKENS" \
  --dtype "$DTYPE" --json > "$OUT/winrate.json"
finish ""
