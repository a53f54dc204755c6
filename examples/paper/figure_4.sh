#!/usr/bin/env bash
# Figure 4: the same comparison under models of several sizes, TruthfulQA (laptop: film reviews). Give --model once for each, the smallest first.
#
#     bash examples/paper/figure_4.sh --preset laptop --data-dir DATA --model bundled --model hf:Qwen/Qwen2.5-0.5B
#
# Files: laptop: movie_review_sentiment.jsonl; gpu, cluster: truthfulqa_paper_train.jsonl, truthfulqa_paper_test.jsonl.

. "$(dirname "$0")/common.sh"
SEEDS_smoke=0 SHORT_smoke=4 SHORT_TEST_smoke=4
SEEDS_laptop=0
begin "$@"
if [ ${#MODELS[@]} -eq 1 ]; then
  case $PRESET in
    smoke) MODELS=(fake bundled) ;;
    gpu) MODELS=(hf:meta-llama/Llama-3.2-1B hf:meta-llama/Llama-3.2-3B "$MODEL") ;;
    cluster) MODELS=(vllm:meta-llama/Llama-3.1-8B "$MODEL") ;;
    laptop) echo "error: one model has no scaling; add a second --model" >&2; exit 2 ;;
  esac
fi
folders=()
for number in "${!MODELS[@]}"; do
  suite "model-$number" "${MODELS[$number]}" zero_shot,found,golden <<YAML
- {name: $TASK, task: $TASK, data: "$ROWS", test: $TEST_ROWS, limit: $SHORT, test_limit: $SHORT_TEST}
YAML
  folders+=("$OUT/model-$number")
done
finish scaling "${folders[@]}"
