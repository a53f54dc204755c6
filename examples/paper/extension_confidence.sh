#!/usr/bin/env bash
# Beyond the paper: self-training from zero-shot answers, with and without keeping the most confident half alone.
#
#     bash examples/paper/extension_confidence.sh --preset laptop --data-dir DATA
#
# Files: laptop: movie_review_sentiment.jsonl; gpu, cluster: truthfulqa_paper_train.jsonl, truthfulqa_paper_test.jsonl.

. "$(dirname "$0")/common.sh"
SEEDS_laptop=0,1
begin "$@"
suite suite "$MODEL" zero_shot,bootstrap,bootstrap_confident,bootstrap_consistent,bootstrap_consistent_confident,found,golden <<YAML
- {name: $TASK, task: $TASK, data: "$ROWS", test: $TEST_ROWS, limit: $SHORT, test_limit: $SHORT_TEST}
YAML
finish bars "$OUT/suite"
