#!/usr/bin/env bash
# Beyond the paper: self-training from zero-shot answers, with and without keeping the most confident half alone.
#
#     bash examples/paper/extension_confidence.sh --preset laptop --data-dir DATA
#
# Files: truthfulqa_pilot_train.jsonl, truthfulqa_pilot_test.jsonl (gpu, cluster: truthfulqa_paper_*.jsonl).

. "$(dirname "$0")/common.sh"
begin "$@"
suite suite "$MODEL" zero_shot,bootstrap,bootstrap_confident,bootstrap_consistent,bootstrap_consistent_confident,found,golden <<YAML
- {name: truthfulqa, task: truthfulqa, data: "$TRUTHFULQA", test: "$TRUTHFULQA_TEST", limit: $SHORT, test_limit: $SHORT_TEST}
YAML
finish bars "$OUT/suite"
