#!/usr/bin/env bash
# Beyond the paper: do two models find the same labels, and does each under other seeds? Give --model twice.
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
runs=() others=()
for number in 0 1; do
  if [ -n "$DRY" ]; then elicitor label "${flags[@]}" --model "${MODELS[$number]}" --dry-run; continue; fi
  for seed in ${SEEDS//,/ }; do
    run="$OUT/model-$number-seed-$seed"
    elicitor label "${flags[@]}" --model "${MODELS[$number]}" --seed "$seed" --output-dir "$run" --resume "${RAY_FLAGS[@]}"
    runs+=("$run")
  done
done
if [ -n "$DRY" ]; then echo "each model's search once for each seed of $SEEDS"; fi
if [ -z "$DRY" ]; then
  for run in "${runs[@]:1}"; do others+=(--against "$run"); done
  elicitor audit "${runs[0]}" "${others[@]}"
fi
finish utility "$OUT/model-0-seed-$FIRST_SEED" "$OUT/model-1-seed-$FIRST_SEED"
