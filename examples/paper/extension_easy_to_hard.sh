#!/usr/bin/env bash
# Beyond the paper: labels found for easy questions, put before hard ones; beside labels found for hard ones.
#
#     bash examples/paper/extension_easy_to_hard.sh --preset laptop --data-dir DATA
#
# Files: gsm8k_claims.jsonl, whose column category says easy or hard.

. "$(dirname "$0")/common.sh"
SEEDS_laptop=0
SEVERAL_TASKS=yes
begin "$@"
python "$HERE/rows.py" split "$DATA/gsm8k_claims.jsonl" --column category --values easy hard -o "$OUT"
suite suite "$MODEL" zero_shot,found,golden <<YAML
- {name: easy_to_hard, task: gsm8k, data: "$OUT/easy.jsonl", test: "$OUT/hard-test.jsonl", limit: $LONG, test_limit: $LONG_TEST}
- {name: hard_to_hard, task: gsm8k, data: "$OUT/hard.jsonl", test: "$OUT/hard-test.jsonl", limit: $LONG, test_limit: $LONG_TEST}
YAML
finish bars "$OUT/suite"
