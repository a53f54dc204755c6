#!/usr/bin/env bash
# Beyond the paper: the weight alpha of predictability. The search is icm: for ensemble alpha decides nothing.
#
#     bash examples/paper/extension_alpha.sh --preset laptop --data-dir DATA
#
# Files: truthfulqa_pilot_train.jsonl, truthfulqa_pilot_test.jsonl (gpu, cluster: truthfulqa_paper_*.jsonl).

. "$(dirname "$0")/common.sh"
SEARCH_smoke=icm SEARCH_laptop=icm SHORT_laptop=80 ITERATIONS_laptop=64 SEEDS_laptop=0,1
begin "$@"
ablation ablation "$TRUTHFULQA" truthfulqa "$SHORT" --alpha 10,100
finish ablation "$OUT/ablation"
