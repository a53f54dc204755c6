#!/usr/bin/env bash
# Figure 6: which of two blog posts was written by a man; people do badly at it.
#
#     bash examples/paper/figure_6.sh --preset laptop --data-dir DATA
#
# Files: blog_gender_pairs.jsonl; with a column human_votes the human bar is there, without one it is left out and said so.

. "$(dirname "$0")/common.sh"
# One seed: posts have hundreds of tokens.
LONG_laptop=8 LONG_TEST_laptop=24 SEEDS_laptop=0
begin "$@"
suite suite "$MODEL" zero_shot,human,found,golden <<YAML
- {name: author_gender, task: author_gender, data: "$DATA/blog_gender_pairs.jsonl", limit: $LONG, test_limit: $LONG_TEST}
YAML
if [ "$PRESET" != laptop ]; then trained suite author_gender untrained,found,golden; fi
finish bars "$OUT/suite"
