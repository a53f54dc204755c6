#!/usr/bin/env bash
# Figure 10: the search without logical consistency.
#
#     bash examples/paper/figure_10.sh --preset laptop --data-dir DATA
#
# Files: alpaca_human_pairs.jsonl; laptop: statements_cities.jsonl, smoke, gpu, cluster: truthfulqa_paper_train.jsonl. On TruthfulQA
# only claims in the same words are bound here, so that little can change; docs/tasks.md says why.

. "$(dirname "$0")/common.sh"
SHORT_laptop=48 LONG_laptop=22 SEEDS_laptop=0,1
begin "$@"
# Two statements a city, one of them true.
if [ "$PRESET" = laptop ]; then TASK=statements ROWS=$DATA/statements_cities.jsonl; fi
ablation ablation-claims "$ROWS" "$TASK" "$SHORT" --consistency off
preference_pairs "$DATA/alpaca_human_pairs.jsonl"
# Even short pairs are long: one seed.
if [ "$PRESET" = laptop ]; then SEEDS=$FIRST_SEED; fi
ablation ablation-alpaca "$PAIRS_FILE" preference "$LONG" --consistency off
finish ablation "$OUT/ablation-claims" "$OUT/ablation-alpaca"
