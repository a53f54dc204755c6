#!/usr/bin/env bash
# Beyond the paper: label accuracy over the iterations of a search. The search is icm.
#
#     bash examples/paper/extension_iterations.sh --preset laptop --data-dir DATA
#
# Files: laptop: movie_review_sentiment.jsonl; gpu, cluster: truthfulqa_paper_train.jsonl, truthfulqa_paper_test.jsonl.

. "$(dirname "$0")/common.sh"
SEARCH_smoke=icm SEARCH_laptop=icm SHORT_laptop=20 SEEDS_laptop=0,1 ITERATIONS_laptop=48
begin "$@"
suite suite "$MODEL" found <<YAML
- {name: $TASK, task: $TASK, data: "$ROWS", test: $TEST_ROWS, limit: $SHORT, test_limit: $SHORT_TEST}
YAML
GOLD=$ROWS
finish accuracy "$OUT"/suite/"$TASK"/seed-*
