#!/usr/bin/env bash
# Table 3 (v2, table 5): iterations and prompt tokens that it takes to label an example. The search is icm.
#
#     bash examples/paper/table_3.sh --preset laptop --data-dir DATA
#
# Files: those of figure_1_3.sh.

. "$(dirname "$0")/common.sh"
SEARCH_smoke=icm SEARCH_laptop=icm SHORT_laptop=12 SHORT_TEST_laptop=4 LONG_laptop=4 LONG_TEST_laptop=4 SEEDS_laptop=0
SEVERAL_TASKS=yes
begin "$@"
preference_pairs "$DATA/alpaca_human_pairs.jsonl"
suite suite "$MODEL" zero_shot <<YAML
- {name: truthfulqa, task: truthfulqa, data: "$TRUTHFULQA", test: "$TRUTHFULQA_TEST", limit: $SHORT, test_limit: $SHORT_TEST}
- {name: gsm8k, task: gsm8k, data: "$DATA/gsm8k_claims.jsonl", limit: $LONG, test_limit: $LONG_TEST}
- {name: alpaca, task: preference, data: "$PAIRS_FILE", limit: $LONG, test_limit: $LONG_TEST}
YAML
finish utility "$OUT"/suite/*/seed-"$FIRST_SEED"
