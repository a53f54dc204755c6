#!/usr/bin/env bash
# Figure 5, the negative control: pairs of poems of which gold likes the one about the sun, which no model can know.
#
#     bash examples/paper/figure_5.sh --preset laptop --data-dir DATA
#
# Files: none, the poems are made here.

. "$(dirname "$0")/common.sh"
SHORT_laptop=20 SHORT_TEST_laptop=20 SEEDS_laptop=0,1
begin "$@"
poems=$OUT/poems.jsonl
if [ ! -f "$poems" ]; then
  n=512
  if [ "$PRESET" = smoke ]; then n=24; fi
  elicitor sample-poems "$poems" --n "$n" >&2
fi
# Pairs are half as long as other texts and asked about in both orders.
suite suite "$MODEL" zero_shot,found,golden <<YAML
- {name: poems, task: poems, data: "$poems", limit: $SHORT, test_limit: $SHORT_TEST}
YAML
finish bars "$OUT/suite"
