#!/usr/bin/env bash
# Figures 1 and 3: zero-shot, zero-shot as chat, found, golden and human labels on GSM8K, TruthfulQA and Alpaca, in context and
# (TruthfulQA and Alpaca) fine-tuned. A laptop has film reviews as well, asked about in two ways, and short statements about
# cities, Spanish words and chemical elements: a model that runs on one knows something about them.
#
#     bash examples/paper/figure_1_3.sh --preset laptop --data-dir DATA
#
# Files: truthfulqa_pilot_train.jsonl, truthfulqa_pilot_test.jsonl (gpu, cluster: truthfulqa_paper_*.jsonl), gsm8k_claims.jsonl,
# alpaca_human_pairs.jsonl; laptop: movie_review_sentiment.jsonl, statements_cities.jsonl, statements_sp_en_trans.jsonl,
# statements_elements.jsonl.

. "$(dirname "$0")/common.sh"
# Tests of 20 questions or more, for fewer give no verdict; one seed, so that it takes minutes.
SEEDS_laptop=0
SEVERAL_TASKS=yes
begin "$@"
# A row of pairs is a question of its own, and is asked in both orders.
PAIRS=$LONG PAIRS_TEST=$LONG_TEST
if [[ $PRESET == laptop && -z $LIMIT ]]; then PAIRS=12 PAIRS_TEST=40; fi
preference_pairs "$DATA/alpaca_human_pairs.jsonl"
{
  if [ "$PRESET" = laptop ]; then cat <<YAML; fi
- {name: sentiment, task: sentiment, data: "$DATA/movie_review_sentiment.jsonl", limit: $SHORT, test_limit: $SHORT_TEST}
- name: review_claims
  task: "$HERE/../../bench/tasks/review_claims.yaml"
  data: "$DATA/movie_review_sentiment.jsonl"
  limit: $SHORT
  test_limit: $SHORT_TEST
- {name: cities, task: statements, data: "$DATA/statements_cities.jsonl", limit: $SHORT, test_limit: $SHORT_TEST}
- {name: spanish, task: statements, data: "$DATA/statements_sp_en_trans.jsonl", limit: $SHORT, test_limit: $SHORT_TEST}
- {name: elements, task: statements, data: "$DATA/statements_elements.jsonl", limit: $SHORT, test_limit: $SHORT_TEST}
YAML
  cat <<YAML
- {name: truthfulqa, task: truthfulqa, data: "$TRUTHFULQA", test: "$TRUTHFULQA_TEST", limit: $SHORT, test_limit: $SHORT_TEST}
- {name: gsm8k, task: gsm8k, data: "$DATA/gsm8k_claims.jsonl", limit: $LONG, test_limit: $LONG_TEST}
- name: alpaca
  task: preference
  data: "$PAIRS_FILE"
  limit: $PAIRS
  test_limit: $PAIRS_TEST
  conditions: [zero_shot, zero_shot_chat, human, found, golden]
YAML
} > "$OUT/tasks"
suite suite "$MODEL" zero_shot,zero_shot_chat,found,golden < "$OUT/tasks"
trained suite truthfulqa untrained,found,golden
# Pairs are hundreds of tokens long: too slow to train on with two cores.
if [ "$PRESET" != laptop ]; then trained suite alpaca untrained,found,human,golden; fi
finish bars "$OUT/suite"
