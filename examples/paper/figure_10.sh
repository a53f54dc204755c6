#!/usr/bin/env bash
# Figure 10: the search without logical consistency.
#
#     bash examples/paper/figure_10.sh --preset laptop --data-dir DATA
#
# Files: alpaca_human_pairs.jsonl, truthfulqa_pilot_train.jsonl (gpu, cluster: truthfulqa_paper_train.jsonl). On TruthfulQA only
# claims in the same words are bound here, so that little can change; docs/tasks.md says why.

. "$(dirname "$0")/common.sh"
SHORT_laptop=80 LONG_laptop=24
begin "$@"
ablation ablation-truthfulqa "$TRUTHFULQA" truthfulqa "$SHORT" --consistency off
ablation ablation-alpaca "$DATA/alpaca_human_pairs.jsonl" preference "$LONG" --consistency off
finish ablation "$OUT/ablation-truthfulqa" "$OUT/ablation-alpaca"
