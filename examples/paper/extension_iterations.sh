#!/usr/bin/env bash
# Beyond the paper: label accuracy over the iterations of a search. The search is icm.
#
#     bash examples/paper/extension_iterations.sh --preset laptop --data-dir DATA
#
# Files: truthfulqa_pilot_train.jsonl, truthfulqa_pilot_test.jsonl (gpu, cluster: truthfulqa_paper_*.jsonl).

. "$(dirname "$0")/common.sh"
SEARCH_smoke=icm SEARCH_laptop=icm SHORT_laptop=32 ITERATIONS_laptop=64
begin "$@"
suite suite "$MODEL" found <<YAML
- {name: truthfulqa, task: truthfulqa, data: "$TRUTHFULQA", test: "$TRUTHFULQA_TEST", limit: $SHORT, test_limit: $SHORT_TEST}
YAML
GOLD=$TRUTHFULQA
finish accuracy "$OUT"/suite/truthfulqa/seed-*
