#!/usr/bin/env bash
# Beyond the paper: pools of equal size with 10 to 90% positive examples, drawn by gold.
#
#     bash examples/paper/extension_imbalance.sh --preset laptop --data-dir DATA
#
# Files: laptop: movie_review_sentiment.jsonl; gpu, cluster: truthfulqa_paper_train.jsonl.

. "$(dirname "$0")/common.sh"
SHORT_laptop=24 SEEDS_laptop=0,1
begin "$@"
shares=0.1,0.3,0.5,0.7,0.9
if [ "$PRESET" = smoke ]; then shares=0.25,0.75; fi
ablation ablation "$ROWS" "$TASK" "$SHORT" --balance "$shares"
finish ablation "$OUT/ablation"
