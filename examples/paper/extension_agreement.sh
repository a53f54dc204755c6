#!/usr/bin/env bash
# Beyond the paper: do two models find the same labels? Give --model twice.
#
#     bash examples/paper/extension_agreement.sh --preset laptop --data-dir DATA --model bundled --model hf:Qwen/Qwen2.5-0.5B
#
# Files: laptop: movie_review_sentiment.jsonl; gpu, cluster: truthfulqa_paper_train.jsonl.

. "$(dirname "$0")/common.sh"
begin "$@"
if [ ${#MODELS[@]} -eq 1 ]; then
  case $PRESET in
    smoke) MODELS=(fake fake:gain=2) ;;
    gpu) MODELS=(hf:meta-llama/Llama-3.2-3B "$MODEL") ;;
    cluster) MODELS=(vllm:meta-llama/Llama-3.1-8B "$MODEL") ;;
    laptop) echo "error: one model agrees with itself; add a second --model" >&2; exit 2 ;;
  esac
fi
settings > "$OUT/label.yaml"
flags=("$ROWS" --task "$TASK" --config "$OUT/label.yaml")
if [ "$SHORT" != null ]; then flags+=(--limit "$SHORT"); fi
runs=()
for number in 0 1; do
  run="$OUT/model-$number"
  if [ -n "$DRY" ]; then elicitor label "${flags[@]}" --model "${MODELS[$number]}" --dry-run; continue; fi
  elicitor label "${flags[@]}" --model "${MODELS[$number]}" --seed "$FIRST_SEED" --output-dir "$run" --resume "${RAY_FLAGS[@]}"
  runs+=("$run")
done
if [ -z "$DRY" ]; then elicitor audit "${runs[0]}" --against "${runs[1]}"; fi
finish utility "${runs[@]}"
