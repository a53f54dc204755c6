#!/usr/bin/env bash
# Figure 8: found labels beside golden ones with as many mistakes by lot, in context and fine-tuned.
#
#     bash examples/paper/figure_8.sh --preset laptop --data-dir DATA
#
# Files: laptop: movie_review_sentiment.jsonl; gpu, cluster: truthfulqa_paper_train.jsonl, truthfulqa_paper_test.jsonl,
# gsm8k_claims.jsonl, alpaca_human_pairs.jsonl.

. "$(dirname "$0")/common.sh"
SEVERAL_TASKS=yes
begin "$@"
{
  cat <<YAML
- {name: $TASK, task: $TASK, data: "$ROWS", test: $TEST_ROWS, limit: $SHORT, test_limit: $SHORT_TEST}
YAML
  # The others are long.
  if [ "$PRESET" != laptop ]; then cat <<YAML; fi
- {name: gsm8k, task: gsm8k, data: "$DATA/gsm8k_claims.jsonl", limit: $LONG, test_limit: $LONG_TEST}
- {name: alpaca, task: preference, data: "$DATA/alpaca_human_pairs.jsonl", limit: $LONG, test_limit: $LONG_TEST}
YAML
} > "$OUT/tasks"
suite suite "$MODEL" zero_shot,found,noised_gold,golden < "$OUT/tasks"
trained suite "$TASK" untrained,found,noised_gold,golden
finish bars "$OUT/suite"
