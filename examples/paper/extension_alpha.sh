#!/usr/bin/env bash
# Beyond the paper: the weight alpha of predictability. The search is icm: for ensemble alpha decides nothing.
#
#     bash examples/paper/extension_alpha.sh --preset laptop --data-dir DATA
#
# Files: laptop: movie_review_sentiment.jsonl; gpu, cluster: truthfulqa_paper_train.jsonl.

. "$(dirname "$0")/common.sh"
SEARCH_smoke=icm SEARCH_laptop=icm SHORT_laptop=20 ITERATIONS_laptop=32 SEEDS_laptop=0,1
begin "$@"
ablation ablation "$ROWS" "$TASK" "$SHORT" --alpha 10,100
finish ablation "$OUT/ablation"
