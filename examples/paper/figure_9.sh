#!/usr/bin/env bash
# Figure 9: first labels that are random, golden, or all wrong. The search is icm, the only one whose first labels matter so.
#
#     bash examples/paper/figure_9.sh --preset laptop --data-dir DATA
#
# Files: laptop: movie_review_sentiment.jsonl; gpu, cluster: truthfulqa_paper_train.jsonl.

. "$(dirname "$0")/common.sh"
SEARCH_smoke=icm SEARCH_laptop=icm SHORT_laptop=20 ITERATIONS_laptop=32 SEEDS_laptop=0,1
begin "$@"
ablation ablation "$ROWS" "$TASK" "$SHORT" --init golden,wrong
finish ablation "$OUT/ablation"
